"""Pairs in other trainers' formats: the exact rows, there and back; what a format cannot tell is counted."""

import json
from dataclasses import replace

import pytest

from avcap.errors import UserError
from avcap.preference.formats import FLAVOURS, export_pairs, import_pairs
from avcap.records import ErrorCounts, PreferencePair

PAIR = PreferencePair(
    sample_id="a",
    video="clips/a.mp4",
    prompt="Describe the video.",
    chosen='A voice says "löwe".',
    rejected="Rain falls.",
    reference_caption="A man speaks.",
    margin=0.5,
    chosen_id="a/1",
    rejected_id="a/2",
    checkpoint="tiny@1",
    chosen_errors=ErrorCounts(num_events=4, missing=1, incorrect=0, invented=0, repeated=0),
    rejected_errors=ErrorCounts(num_events=4, missing=1, incorrect=1, invented=1, repeated=1),
    judge="oracle",
)
LOCAL = replace(PAIR, sample_id="a-3s-7s", interval_s=(3.0, 7.0), prompt="Describe what happens from 3s to 7s.")
BARE = PreferencePair(
    sample_id="b.mp4",
    video="b.mp4",
    prompt="\nWhat is heard?",
    chosen="Bells.",
    rejected="",
    reference_caption="Two bells.",
)


def rows_of(path) -> list[dict]:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def exported_row(tmp_path, flavour: str, pair: PreferencePair = PAIR) -> dict:
    """The row that a pair becomes, without our own column."""
    export_pairs([pair], tmp_path / "out", flavour=flavour)
    row = rows_of(tmp_path / "out")[0]
    del row["avcap"]
    return row


def imported(tmp_path, flavour: str, *rows: dict):
    path = tmp_path / "external.json"
    path.write_text(json.dumps(rows))
    return import_pairs(path, flavour=flavour)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_pairs_come_back_as_they_left(tmp_path, flavour):
    path = tmp_path / "pairs.json"
    exported = export_pairs([PAIR, LOCAL, BARE], path, flavour=flavour)
    assert (exported.num_pairs, exported.left_out) == (3, {})
    assert import_pairs(path, flavour=flavour).pairs == (PAIR, LOCAL, BARE)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3 + 2 * FLAVOURS[flavour].is_list


def test_the_rows_of_trl(tmp_path):
    assert exported_row(tmp_path, "trl") == {
        "id": "a",
        "prompt": [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Describe the video."}]}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": 'A voice says "löwe".'}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "Rain falls."}]}],
        "videos": ["clips/a.mp4"],
        "reference": "A man speaks.",
        "score_chosen": 0.75,  # 1 - 1/4
        "score_rejected": 0.25,  # 1 - 3/4
        "judge": "oracle",
    }


def test_the_rows_of_ms_swift(tmp_path):
    assert exported_row(tmp_path, "ms-swift") == {
        "messages": [
            {"role": "user", "content": "<video>Describe the video."},
            {"role": "assistant", "content": 'A voice says "löwe".'},
        ],
        "rejected_response": "Rain falls.",
        "videos": ["clips/a.mp4"],
        "margin": 0.5,
    }


def test_the_rows_of_llama_factory_and_its_register(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"other": {"file_name": "other.json"}}')
    exported = export_pairs([PAIR], tmp_path / "round1.json", flavour="llama-factory")
    assert rows_of(tmp_path / "round1.json")[0] | {"avcap": ""} == {
        "conversations": [{"from": "human", "value": "<video>Describe the video."}],
        "chosen": {"from": "gpt", "value": 'A voice says "löwe".'},
        "rejected": {"from": "gpt", "value": "Rain falls."},
        "videos": ["clips/a.mp4"],
        "avcap": "",
    }
    assert exported.files == (tmp_path / "round1.json", tmp_path / "dataset_info.json")
    assert json.loads((tmp_path / "dataset_info.json").read_text()) == {
        "other": {"file_name": "other.json"},
        "round1": {
            "file_name": "round1.json",
            "formatting": "sharegpt",
            "ranking": True,
            "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "videos": "videos"},
        },
    }


def test_the_rows_of_video_salmonn_2(tmp_path):
    assert exported_row(tmp_path, "salmonn2", LOCAL) == {
        "video": "clips/a.mp4",
        "audio": "clips/a.wav",
        "timestamps": [3.0, 7.0],
        "conversations": [
            {"from": "human", "value": "<image>\nDescribe what happens from 3s to 7s."},
            {"from": "gpt", "value": 'A voice says "löwe".'},
            {"from": "reject_gpt", "value": "Rain falls."},
            {"from": "gt", "value": "A man speaks."},
        ],
    }


def test_the_rows_of_video_salmonn_2_plus_where_gpt_is_the_ground_truth(tmp_path):
    assert exported_row(tmp_path, "salmonn2-plus") == {
        "video": "clips/a.mp4",
        "use_audio": True,
        "conversations": [
            {"from": "human", "value": "<video>\nDescribe the video."},
            {"from": "gpt", "value": "A man speaks."},
            {"from": "chosen", "value": 'A voice says "löwe".'},
            {"from": "reject", "value": "Rain falls."},
        ],
    }


def test_what_a_format_cannot_tell_is_left_out_and_counted(tmp_path):
    tagged = replace(PAIR, rejected="the sign reads <video>")
    no_reference_caption = replace(PAIR, reference_caption=None)
    untold = replace(LOCAL, prompt="Describe this part.")
    pairs = [PAIR, tagged, no_reference_caption, untold]
    tag = "its text holds <video>, <image> or <audio>, where the format would look for a file"
    interval = "it is about an interval, which neither the format nor the prompt tells"
    reference_caption = "it has no reference caption, which the format needs"
    expected = {
        "trl": {interval: 1},
        "ms-swift": {tag: 1, interval: 1},
        "llama-factory": {tag: 1, interval: 1},
        "salmonn2": {tag: 1, reference_caption: 1},
        "salmonn2-plus": {tag: 1, reference_caption: 1, interval: 1},
    }
    for flavour, left_out in expected.items():
        exported = export_pairs(pairs, tmp_path / flavour, flavour=flavour)
        assert (exported.left_out, exported.num_pairs) == (left_out, 4 - sum(left_out.values()))
    with pytest.raises(UserError, match="got no pair that ms-swift can tell \\(1: its text holds"):
        export_pairs([tagged], tmp_path / "none", flavour="ms-swift")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("answers_hold_the_prompt", [False, True])
def test_trl_rows_of_others(tmp_path, answers_hold_the_prompt):
    question = [{"role": "user", "content": "Describe."}]
    good, bad = [{"role": "assistant", "content": "Good."}], [{"role": "assistant", "content": "Bad."}]
    row = {"prompt": question, "chosen": good, "rejected": bad, "videos": ["v.mp4"]}
    if answers_hold_the_prompt:
        row = {"chosen": question + good, "rejected": question + bad, "videos": ["v.mp4"]}
    plain = {"prompt": "Describe.", "chosen": "Good.", "rejected": "Bad.", "videos": ["v.mp4"]}
    expected = PreferencePair(sample_id="v.mp4", video="v.mp4", prompt="Describe.", chosen="Good.", rejected="Bad.")
    assert imported(tmp_path, "trl", row, plain).pairs == (expected, expected)


def test_ms_swift_rows_of_others(tmp_path):
    question = {"role": "user", "content": "Look: <video> and listen: <audio> What happens?"}
    answers = {"messages": [question, {"role": "assistant", "content": "Good."}]}
    rejected = [{"role": "assistant", "content": "Bad."}]
    found = imported(
        tmp_path,
        "ms-swift",
        {**answers, "rejected_response": "Bad.", "video": "v.mp4", "audios": ["v.wav"]},
        {**answers, "rejected_response": rejected, "videos": ["v.mp4"]},
    )
    assert [(pair.chosen, pair.rejected, pair.video) for pair in found.pairs] == [("Good.", "Bad.", "v.mp4")] * 2
    assert found.pairs[0].prompt == "Look:  and listen:  What happens?"
    assert found.num_audio_files == 1


def test_rows_of_the_released_code(tmp_path):
    turns = [("human", "<image>\nDescribe."), ("gpt", "Good."), ("reject_gpt", "Bad."), ("gt", "True.")]
    row = {"video": "v.mp4", "audio": "v.wav", "timestamps": [0, 5], "ce_only": False}
    row["conversations"] = [{"from": speaker, "value": text} for speaker, text in turns]
    assert imported(tmp_path, "salmonn2", row).pairs == (
        PreferencePair(
            sample_id="v.mp4#t=0,5",
            video="v.mp4",
            prompt="Describe.",
            chosen="Good.",
            rejected="Bad.",
            reference_caption="True.",
            interval_s=(0.0, 5.0),
        ),
    )
    with pytest.raises(UserError, match=r"row 1: .*turns by human, gpt, reject_gpt, gt, not by .*chosen"):
        imported(tmp_path, "salmonn2-plus", row)


def test_rows_that_are_no_pair_about_one_video_are_left_out_and_counted(tmp_path):
    good = {"prompt": "Describe.", "chosen": "Good.", "rejected": "Bad.", "videos": ["v.mp4"]}
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Describe."}]
    talk = [{"role": "assistant", "content": "Good."}]
    found = imported(
        tmp_path,
        "trl",
        good,
        good | {"videos": []},
        good | {"videos": ["a.mp4", "b.mp4"]},
        good | {"videos": [["1.jpg", "2.jpg"]]},
        good | {"prompt": system, "chosen": talk, "rejected": talk},
    )
    assert len(found.pairs) == 1
    assert found.left_out == {
        "no video": 1,
        "not about one video file": 2,
        "more than one question, or a system message": 1,
    }


def test_the_flavour_is_asked_for(tmp_path):
    export_pairs([PAIR], tmp_path / "a.json", flavour="salmonn2")
    with pytest.raises(UserError, match="gpt is the chosen caption in salmonn2, and the ground truth in salmonn2-plus"):
        import_pairs(tmp_path / "a.json", flavour=None)
    with pytest.raises(UserError, match="got the flavour 'verl', expected one of trl, ms-swift"):
        import_pairs(tmp_path / "a.json", flavour="verl")


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the file is empty"),
        ("{", "cannot be read"),
        ("[1]", "row 1: got a int, expected an object"),
        ('[{"video": "v.mp4"}]', "row 1: got the fields video"),
        ('[{"messages": 3, "conversations": 3, "chosen": 3, "rejected": 3}]', "row 1: got the fields messages"),
    ],
)
def test_a_file_that_holds_no_pairs_is_named(tmp_path, flavour, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        import_pairs(path, flavour=flavour)
    assert str(path) in str(caught.value) and message in str(caught.value)


def test_a_text_of_a_wrong_type_is_named(tmp_path):
    with pytest.raises(UserError, match=r"row 1: PreferencePair\.rejected: got None, expected str"):
        imported(tmp_path, "trl", {"prompt": "p", "chosen": "c", "rejected": None, "videos": ["v.mp4"]})
    with pytest.raises(UserError, match="cannot be read"):
        import_pairs(tmp_path / "none.json", flavour="trl")
