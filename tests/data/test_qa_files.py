"""Readers of question files, on small made-up files in exactly the forms in which the benchmarks are published."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from avcap.data.qa_files import QuestionSet, letters_of, read_questions
from avcap.errors import UserError
from avcap.records import Event, Question, WorldTruth, write_jsonl


def touch(path: Path) -> Path:
    """An empty file: readers look for videos, and do not open them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write_json(path: Path, data: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


# --- Video-MME --------------------------------------------------------------------------------------------------------

MME_ROW = {
    "video_id": "001",
    "duration": "short",
    "domain": "Knowledge",
    "sub_category": "Humanity & History",
    "url": "https://www.youtube.com/watch?v=fFjv93ACGo8",
    "videoID": "fFjv93ACGo8",
    "question_id": "001-1",
    "task_type": "Counting Problem",
    "question": "When demonstrating the tree, how many apples are there?",
    "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. The three kinds are of the same number."],
    "answer": "C",
}


def check_mme(found: QuestionSet, video: Path) -> None:
    assert found.format == "videomme"
    (question,) = found.questions
    assert question.question_id == "001-1" and question.kind == "Counting Problem"
    assert question.options[:3] == ("Apples.", "Candles.", "Berries.")
    assert (question.answer_index, question.answer, letters_of(question)) == (2, "Berries.", "ABCD")
    assert question.video == str(video) and question.interval_s is None


def test_video_mme_as_the_table_of_the_hub(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    import pyarrow

    (tmp_path / "videomme").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist([MME_ROW]), tmp_path / "videomme" / "test-00000-of-00001.parquet")
    video = touch(tmp_path / "data" / "fFjv93ACGo8.mp4")
    check_mme(read_questions(tmp_path), video)


def test_video_mme_as_rows_of_json(tmp_path):
    video = touch(tmp_path / "videos" / "fFjv93ACGo8.MP4")
    check_mme(read_questions(write_json(tmp_path / "rows.json", [MME_ROW])), video)


def test_video_mme_as_the_json_that_results_are_handed_in_with(tmp_path):
    inner = {name: MME_ROW[name] for name in ("question_id", "task_type", "question", "options", "answer")}
    outer = {name: MME_ROW[name] for name in ("video_id", "duration", "domain", "sub_category")}
    video = touch(tmp_path / "001.mp4")
    file = write_json(tmp_path / "template.json", [{**outer, "questions": [inner | {"response": ""}]}])
    check_mme(read_questions(file), video)


def test_parquet_that_is_none_is_an_error(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    (tmp_path / "x.parquet").write_text("no table")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        read_questions(tmp_path / "x.parquet")


# --- NExT-QA ----------------------------------------------------------------------------------------------------------

NEXT_FIELDS = [
    "video",
    "frame_count",
    "width",
    "height",
    "question",
    "answer",
    "qid",
    "type",
    "a0",
    "a1",
    "a2",
    "a3",
    "a4",
]


def test_next_qa(tmp_path):
    rows = [
        [
            "4010069381",
            "369",
            "640",
            "480",
            "how do the two man play the instrument",
            "0",
            "6",
            "CH",
            "roll the handle",
            "tap their feet",
            "strum the string",
            "hit with sticks",
            "pat with hand",
        ],
        ["4010069381", "369", "640", "480", "why is there no video", "7", "7", "CW", "a", "b", "c", "d", "e"],
    ]
    with open(tmp_path / "mc.csv", "w", newline="") as handle:
        csv.writer(handle).writerows([NEXT_FIELDS, *rows])
    video = touch(tmp_path / "NExTVideo" / "1164" / "4010069381.mp4")
    found = read_questions(tmp_path)
    assert found.format == "nextqa"
    (question,) = found.questions
    assert (question.question_id, question.kind, question.answer_index) == ("4010069381-6", "CH", 0)
    assert question.answer == "roll the handle" and len(question.options) == 5 and question.video == str(video)
    (problem,) = found.problems
    assert problem.question_id == "4010069381-7" and problem.reason == "the answer 7 is none of the 5 options"


# --- MVBench ----------------------------------------------------------------------------------------------------------


def test_mvbench_takes_the_video_of_the_task_s_own_source(tmp_path):
    row = {
        "video": "video_10009.mp4",
        "question": "What is moving?",
        "candidates": ["the cube", "not sure"],
        "answer": "not sure",
    }
    write_json(tmp_path / "json" / "moving_count.json", [row])
    write_json(tmp_path / "json" / "character_order.json", [row])
    clevrer = touch(tmp_path / "video" / "clevrer" / "video_validation" / "video_10009.mp4")
    perception = touch(tmp_path / "video" / "perception" / "videos" / "video_10009.mp4")
    found = read_questions(tmp_path)
    assert found.format == "mvbench" and not found.problems
    by_kind = {question.kind: question for question in found.questions}
    assert by_kind["moving_count"].video == str(clevrer)
    assert by_kind["character_order"].video == str(perception)
    assert by_kind["moving_count"].answer_index == 1 and by_kind["moving_count"].question_id == "moving_count-0"


@pytest.mark.parametrize(("folder", "interval_s"), [("Charades_v1_480", (11.1, 19.6)), ("Charades_segment", None)])
def test_mvbench_intervals_are_for_uncut_videos(tmp_path, folder, interval_s):
    # 19.6 s of a video that was cut to 8.5 s would be no interval of it
    row = {
        "video": "ZS9XR.mp4",
        "question": "What happened after?",
        "candidates": ["A book.", "A bag."],
        "answer": "A bag.",
        "start": 11.1,
        "end": 19.6,
    }
    file = write_json(tmp_path / "json" / "action_sequence.json", [row])
    touch(tmp_path / "video" / "star" / folder / "ZS9XR.mp4")
    (question,) = read_questions(file, videos=tmp_path / "video").questions
    assert question.interval_s == interval_s
    # "A book." begins like a lettered option, "A bag." is not the B that would follow
    assert question.options == ("A book.", "A bag.") and question.answer_index == 1


# --- WorldSense and Daily-Omni ----------------------------------------------------------------------------------------


def test_world_sense(tmp_path):
    task = {
        "task_domain": "Recognition",
        "task_type": "Audio Recognition",
        "question": "What sounds?",
        "answer": "B",
        "candidates": ["A. A bell.", "B. A drum.", "C. Rain.", "D. Nothing."],
    }
    video = {
        "video_id": "aBcD",
        "video_duration": "60s",
        "duration": "<1min",
        "domain": "Music",
        "sub_category": "Solo",
        "audio_class": ["Music"],
        "video_caption": "...",
    }
    write_json(tmp_path / "worldsense_qa.json", {"aBcD": {**video, "task0": task, "task1": task | {"answer": "E"}}})
    path = touch(tmp_path / "videos" / "aBcD.mp4")
    found = read_questions(tmp_path)
    assert found.format == "worldsense"
    (question,) = found.questions
    assert (question.question_id, question.kind, question.answer) == ("aBcD-task0", "Audio Recognition", "A drum.")
    assert question.video == str(path)
    assert [problem.question_id for problem in found.problems] == ["aBcD-task1"]  # four options, and an answer "E"


def test_daily_omni(tmp_path):
    row = {
        "Question": "What is said when he waves?",
        "Choice": ["A. Hello", "B. Bye", "C. Stop", "D. Go"],
        "Answer": "A",
        "Type": "AV Event Alignment",
        "video_id": "G_VTkkb34gw",
        "video_category": "People",
        "content_parent_category": "Daily",
        "video_duration": "30s",
    }
    write_json(tmp_path / "qa.json", [row, row | {"video_id": "gone"}])
    path = touch(tmp_path / "Videos" / "G_VTkkb34gw" / "G_VTkkb34gw_video.mp4")
    found = read_questions(tmp_path)
    assert found.format == "dailyomni"
    (question,) = found.questions
    assert (question.kind, question.answer, question.video) == ("AV Event Alignment", "Hello", str(path))
    (problem,) = found.problems
    assert problem.video == "gone" and problem.reason == f"no video called gone below {tmp_path}"


# --- the world --------------------------------------------------------------------------------------------------------


def world_truth(number: int, *questions: tuple[str, str, str]) -> WorldTruth:
    return WorldTruth(
        clip_id=f"c{number}",
        video=f"clips/c{number}.mp4",
        difficulty="easy",
        domain="default",
        seed=0,
        duration_s=5.0,
        reference_caption="",
        events=(),
        questions=tuple(
            Question(question_id=f"c{number}-{kind}", kind=kind, text=text, answer=answer, needs="audio")
            for kind, text, answer in questions
        ),
    )


def test_world_questions_get_options_of_their_own_kind(tmp_path):
    counts = ("once.", "twice.", "three times.", "four times.", "five times.")
    truths = [world_truth(index, ("count", "How many times?", answer)) for index, answer in enumerate(counts)]
    truths.append(world_truth(5, ("first", "Which comes first, the bell or the drum?", "the drum.")))
    truths.append(world_truth(6, ("say", "What does the voice say first?", "zebra candle.")))
    write_jsonl(tmp_path / "truth.jsonl", truths)
    for truth in truths[:-1]:
        touch(tmp_path / truth.video)
    found = read_questions(tmp_path)
    assert found.format == "world"
    of_id = {question.question_id: question for question in found.questions}
    for index, answer in enumerate(counts):
        question = of_id[f"c{index}-count"]
        assert len(set(question.options)) == 4 and set(question.options) <= set(counts)
        assert question.answer == answer == question.options[question.answer_index]
    assert len({of_id[f"c{index}-count"].answer_index for index in range(5)}) > 1  # not always the same letter
    assert set(of_id["c5-first"].options) == {"the bell.", "the drum."}  # only what the question names
    assert [problem.question_id for problem in found.problems] == ["c6-say"]  # its video is not there
    assert read_questions(tmp_path) == found  # the same options whenever it is asked


def test_what_the_clip_itself_names_is_the_first_choice_for_a_wrong_option(tmp_path):
    """Else whoever only looks would know which of four objects is in the clip at all."""
    colours = ("red", "blue", "cyan", "pink", "white", "black")
    truths = [
        world_truth(index, ("there", "Which object is the last to appear before a bell rings?", f"the {colour} ring."))
        for index, colour in enumerate(colours)
    ]
    seen = tuple(
        Event(event_id=f"v{n}", text=f"a {colour} ring appears", modality="visual")
        for n, colour in enumerate(("red", "pink", "black"))
    )
    write_jsonl(tmp_path / "truth.jsonl", [replace(truths[0], events=seen), *truths[1:]])
    for truth in truths:
        touch(tmp_path / truth.video)
    question = read_questions(tmp_path).questions[0]
    assert question.answer == "the red ring." and len(question.options) == 4
    assert {"the pink ring.", "the black ring."} < set(question.options)


def test_an_answer_that_is_alone_of_its_kind_stays_a_short_answer(tmp_path):
    write_jsonl(tmp_path / "truth.jsonl", [world_truth(0, ("say", "What does the voice say first?", "zebra candle."))])
    touch(tmp_path / "clips" / "c0.mp4")
    (question,) = read_questions(tmp_path).questions
    assert question.options == () and question.answer_index is None and question.answer == "zebra candle."


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_two_videos_of_one_name_and_two_questions_of_one_id_are_named(tmp_path):
    touch(tmp_path / "a" / "fFjv93ACGo8.mp4")
    file = write_json(tmp_path / "rows.json", [MME_ROW, MME_ROW])
    (problem,) = read_questions(file).problems
    assert problem.reason == "a second question of this id"
    touch(tmp_path / "b" / "fFjv93ACGo8.mp4")
    found = read_questions(file)
    assert not found.questions
    assert all("2 videos called fFjv93ACGo8" in problem.reason for problem in found.problems)


def test_an_answer_that_stands_twice_among_the_options_has_no_index(tmp_path):
    touch(tmp_path / "v.mp4")
    row = {"video": "v.mp4", "question": "?", "candidates": ["yes", "yes"], "answer": "yes"}
    (problem,) = read_questions(write_json(tmp_path / "action_count.json", [row])).problems
    assert problem.reason == "the answer 'yes' stands twice among the options"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "{", "cannot be read as JSON"),
        ("x.json", "3", "got int, expected a list"),
        ("x.json", "[]", "got rows with the fields"),
        ("x.json", '[{"prompt": 1}]', r"\['prompt'\], which no known format has"),
        ("x.json", '[{"video": "v", "candidates": ["a"]}]', "row 0: got no field 'question'"),
        ("x.csv", "video,qid\n1,2\n", "row 0: got no field 'type'"),
        ("x.jsonl", '{"a": 1}\n', "unknown field 'a'"),
        ("x.jsonl", "", "got no questions"),
    ],
)
def test_a_file_of_another_form_is_an_error_that_names_it(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read_questions(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


def test_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        read_questions(tmp_path / "gone")
    with pytest.raises(UserError, match="a folder without a file of questions"):
        read_questions(tmp_path)
    with pytest.raises(UserError, match=r"expected one of mc\.csv"):
        read_questions(tmp_path, format="nextqa")
    with pytest.raises(UserError, match="the format 'mmmu'"):
        read_questions(tmp_path, format="mmmu")
    file = write_json(tmp_path / "rows.json", [MME_ROW])
    with pytest.raises(UserError, match="expected the folder that holds the videos"):
        read_questions(file, videos=tmp_path / "gone")
