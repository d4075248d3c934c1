"""Files of questions about videos become VideoQuestions: the world's, and five published benchmarks from a local copy.

    format      file                                     one question
    world       truth.jsonl                              `questions` of a WorldTruth; options are made here
    videomme    *.parquet or .json                       videoID, question_id, task_type, question, options, answer
    nextqa      *.csv (multiple choice)                  video, qid, type, question, a0..a4, answer (its index)
    mvbench     one JSON list for each task              video, question, candidates, answer (its text), start?, end?
    worldsense  worldsense_qa.json, keyed by video       task0.. with task_type, question, candidates, answer
    dailyomni   qa.json                                  video_id, Type, Question, Choice, Answer

A row that cannot be asked (no such video, an answer that is none of the options) becomes a QuestionProblem with its
reason: counted and named, never passed over.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.files.names import composed, last_part, longest_tail
from avcap.files.walk import NotTaken, files_below, is_media
from avcap.records import Modality, WorldTruth, read_jsonl
from avcap.texts.json_text import read_json
from avcap.texts.tables import read_table

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTERS_PROMPT = "{question}\n{options}\nAnswer with the letter of the right option alone."
WORLD_OPTIONS = 4

MVBENCH_FOLDERS = {
    "action_sequence": "star",
    "action_prediction": "star",
    "object_interaction": "star",
    "action_antonym": "ssv2",
    "fine_grained_action": "Moments_in_Time",
    "unexpected_action": "FunQA",
    "object_existence": "clevrer",
    "object_shuffle": "perception",
    "moving_direction": "clevrer",
    "action_localization": "sta",
    "scene_transition": "scene_qa",
    "action_count": "perception",
    "moving_count": "clevrer",
    "moving_attribute": "clevrer",
    "state_change": "perception",
    "fine_grained_pose": "nturgbd",
    "character_order": "perception",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa",
    "counterfactual_inference": "clevrer",
}
"""Task -> how the folder of its source begins: several sources have a video_1.mp4."""


@dataclass(frozen=True, kw_only=True)
class VideoQuestion:
    """A question about a video, or an interval of it. Without options it wants a short answer in words."""

    question_id: str
    video: str
    kind: str
    text: str
    answer: str
    options: tuple[str, ...] = ()
    answer_index: int | None = None
    interval_s: tuple[float, float] | None = None
    needs: Modality | None = None
    """The modality without which it is a guess, where the file says so."""


@dataclass(frozen=True, kw_only=True)
class QuestionProblem:
    """A row of the file that cannot be asked, and why."""

    question_id: str
    video: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """What a file of questions holds: those that can be asked, in its order, and those that cannot."""

    format: str
    questions: tuple[VideoQuestion, ...]
    problems: tuple[QuestionProblem, ...]


def read_questions(path: Path, *, format: str = "auto", videos: Path | None = None) -> QuestionSet:
    """File or folder of a benchmark -> its questions. `videos`: the folder that holds the videos, `path`'s if None.

    "auto" knows a format by its fields. Raises UserError where the file is none of the known forms.
    """
    if format not in ("auto", *FORMATS):
        raise UserError(f"got the format {format!r}, expected auto or one of {', '.join(FORMATS)}")
    files = _question_files(path, format)
    known = format if format != "auto" else _guess_format(files[0])
    folder = videos or (path if path.is_dir() else path.parent)
    if not folder.is_dir():
        raise UserError(f"{folder}: got no such folder; expected the folder that holds the videos (--videos)")
    find = VideoFolder(folder).find
    found: list[VideoQuestion | QuestionProblem] = []
    for file in files:
        found += FORMATS[known](file, find)
    questions, problems = _without_doubles(found)
    if not found:
        raise UserError(f"{path}: got no questions, expected at least one")
    return QuestionSet(format=known, questions=questions, problems=problems)


def letters_of(question: VideoQuestion) -> str:
    """The letters that stand for the options: "ABCD" for four."""
    return LETTERS[: len(question.options)]


def letters_prompt(question: VideoQuestion) -> str:
    """A multiple-choice question -> the prompt that shows its options and asks for a letter."""
    lines = [f"{letter}. {option}" for letter, option in zip(letters_of(question), question.options, strict=True)]
    return LETTERS_PROMPT.format(question=question.text, options="\n".join(lines))


# --- files ------------------------------------------------------------------------------------------------------------

FOLDER_FILES = {
    "world": ("truth.jsonl",),
    "worldsense": ("worldsense_qa.json",),
    "dailyomni": ("qa.json",),
    "nextqa": ("mc.csv", "test.csv", "val.csv", "test-data/*.csv"),
    "videomme": ("videomme/*.parquet", "*.parquet", "videomme.json", "Video-MME.json"),
    "mvbench": ("json/*.json", *(f"{task}.json" for task in MVBENCH_FOLDERS)),
}
"""Format -> what its files are called in a local copy; the first name that is there wins, a pattern means all of it."""


def _question_files(path: Path, format: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: got no such file or folder; expected one with questions")
    for name, patterns in FOLDER_FILES.items():
        if format not in ("auto", name):
            continue
        hits = [sorted(path.glob(pattern)) for pattern in patterns]
        if any(hits):
            return [file for files in hits for file in files] if name == "mvbench" else next(filter(None, hits))
    expected = FOLDER_FILES if format == "auto" else {format: FOLDER_FILES[format]}
    names = ", ".join(pattern for patterns in expected.values() for pattern in patterns[:2])
    raise UserError(f"{path}: got a folder without a file of questions; expected one of {names}, or the file itself")


def _guess_format(file: Path) -> str:
    """A file -> its format, by name and by the fields of its first row."""
    by_suffix = {".jsonl": "world", ".csv": "nextqa", ".parquet": "videomme"}
    if file.suffix in by_suffix:
        return by_suffix[file.suffix]
    data = _read_json(file)
    first = next(iter(data.values() if isinstance(data, dict) else data), None)
    fields = set(first) if isinstance(first, dict) else set()
    signs = {
        "worldsense": {"task0"},
        "dailyomni": {"Question", "Choice"},
        "mvbench": {"video", "candidates"},
        "videomme": {"questions", "sub_category"},
    }
    for name, sign in (*signs.items(), ("videomme", {"videoID", "options"})):
        if sign <= fields:
            return name
    raise UserError(f"{file}: got rows with the fields {sorted(fields)}, which no known format has; give --format")


def _read_json(file: Path) -> Any:
    data = read_json(file, expected="JSON of questions")
    if not isinstance(data, list | dict):
        raise UserError(f"{file}: got {type(data).__name__}, expected a list or an object of questions")
    return data


def _read_parquet(file: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(
            f"{file}: reading parquet needs pyarrow; pip install 'avcap[data]', or save the table as JSON"
        ) from None
    try:
        return parquet.read_table(file).to_pylist()
    except (OSError, ArrowException) as error:
        raise UserError(f"{file}: cannot be read as parquet ({error}); expected a table of questions") from None


class VideoFolder:
    """All videos and sound files below a folder, by file name and by name without suffix; links are followed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self.not_taken = NotTaken()
        seen: set[str] = set()
        for found in files_below(str(folder), is_expected=is_media, not_taken=self.not_taken):
            if found.real in seen:
                continue
            seen.add(found.real)
            file = Path(found.path)
            for name in (file.name, file.stem):
                self._by_name[composed(name)].append(file)

    def find(self, name: str, within: str = "") -> Path:
        """Name with or without suffix -> the file; `within`: one folder of its path begins so. LookupError with why."""
        hits = self._by_name.get(composed(name)) or self._by_name.get(composed(last_part(name)), [])
        named = (
            [file for file in hits if any(part.startswith(within) for part in file.relative_to(self.folder).parts[:-1])]
            if within
            else hits
        )
        hits = longest_tail(name, named or hits)
        if not hits:
            raise LookupError(f"no video called {name} below {self.folder}")
        if len(hits) > 1:
            raise LookupError(f"{len(hits)} videos called {name} below {self.folder}: {hits[0]}, {hits[1]}")
        return hits[0]


Find = Callable[..., Path]
Found = Iterator[VideoQuestion | QuestionProblem]


def _without_doubles(
    found: Iterable[VideoQuestion | QuestionProblem],
) -> tuple[tuple[VideoQuestion, ...], tuple[QuestionProblem, ...]]:
    """Rows -> (questions, problems); a second question of one id is a problem."""
    questions: dict[str, VideoQuestion] = {}
    problems = []
    for row in found:
        if isinstance(row, QuestionProblem):
            problems.append(row)
        elif row.question_id in questions:
            problems.append(
                QuestionProblem(question_id=row.question_id, video=row.video, reason="a second question of this id")
            )
        else:
            questions[row.question_id] = row
    return tuple(questions.values()), tuple(problems)


# --- formats ----------------------------------------------------------------------------------------------------------

_OPTION_LETTER = re.compile(r"^\s*\(?([A-Z])\)?\s*[.:)]\s*")


def _choice_question(
    *,
    question_id: str,
    video: str,
    kind: str,
    text: str,
    options: Iterable[Any],
    answer: str | int,
    find: Find,
    within: str = "",
    interval_s: tuple[float, float] | None = None,
) -> VideoQuestion | QuestionProblem:
    """The fields of a row -> a question with its video found; `answer`: letter, index or text of the right option."""
    plain = _without_letters([str(option).strip() for option in options])
    try:
        index = _answer_index(answer, plain)
        path = find(video, within)
    except LookupError as error:
        return QuestionProblem(question_id=question_id, video=video, reason=str(error))
    if any(part.endswith("_segment") for part in path.parts):
        interval_s = None  # this copy of MVBench has its videos cut already
    return VideoQuestion(
        question_id=question_id,
        video=str(path),
        kind=kind,
        text=text.strip(),
        options=tuple(plain),
        answer=plain[index],
        answer_index=index,
        interval_s=interval_s,
    )


def _without_letters(options: list[str]) -> list[str]:
    """["A. a dog", "B. a cat"] -> ["a dog", "a cat"]; options that are not lettered in order stay as they are."""
    found = [_OPTION_LETTER.match(option) for option in options]
    if "".join(match.group(1) if match else "" for match in found) != LETTERS[: len(options)]:
        return options
    return [option[match.end() :] for option, match in zip(options, found, strict=True) if match]


def _answer_index(answer: str | int, options: list[str]) -> int:
    """Letter, index or text -> index. LookupError if it names no option, or more than one."""
    if not 2 <= len(options) <= len(LETTERS):
        raise LookupError(f"{len(options)} options, expected 2 to {len(LETTERS)}")
    if isinstance(answer, int):
        if 0 <= answer < len(options):
            return answer
    elif options.count(answer.strip()) == 1:
        return options.index(answer.strip())
    elif options.count(answer.strip()) > 1:
        raise LookupError(f"the answer {answer!r} stands twice among the options")
    else:
        letter = answer.strip().rstrip(".):").lstrip("(")
        if len(letter) == 1 and letter in LETTERS[: len(options)]:
            return LETTERS.index(letter)
    raise LookupError(f"the answer {answer!r} is none of the {len(options)} options")


def _rows(file: Path, rows: Iterable[Any], read: Callable[[Any], Found]) -> Found:
    """Applies `read` to each row; a field that is missing or of another type is an error that names the row."""
    for index, row in enumerate(rows):
        try:
            yield from read(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            got = f"no field {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
            raise UserError(f"{file}, row {index}: got {got}; expected the published form of the benchmark") from None


def _video_mme(file: Path, find: Find) -> Found:
    """The published table has one row a question; the published JSON one object a video, with its questions inside."""
    rows = _read_parquet(file) if file.suffix == ".parquet" else _read_json(file)

    def read(row: dict[str, Any]) -> Found:
        video = row.get("videoID") or row["video_id"]
        for question in row.get("questions", [row]):
            yield _choice_question(
                question_id=question["question_id"],
                video=video,
                kind=question["task_type"],
                find=find,
                text=question["question"],
                options=question["options"],
                answer=question["answer"],
            )

    yield from _rows(file, rows, read)


def _next_qa(file: Path, find: Find) -> Found:
    def read(row: dict[str, str]) -> Found:
        yield _choice_question(
            question_id=f"{row['video']}-{row['qid']}",
            video=row["video"],
            kind=row["type"],
            text=row["question"],
            options=[row[f"a{index}"] for index in range(5)],
            answer=int(row["answer"]),
            find=find,
        )

    table = read_table(file, names=("video", "question", "answer"), expected="CSV of multiple-choice questions")
    yield from _rows(file, (row for _, row in table), read)


def _mv_bench(file: Path, find: Find) -> Found:
    numbers = iter(range(10**9))

    def read(row: dict[str, Any]) -> Found:
        has_interval = row.get("start") is not None and row.get("end") is not None
        yield _choice_question(
            question_id=f"{file.stem}-{next(numbers)}",
            video=row["video"],
            kind=file.stem,
            text=row["question"],
            options=row["candidates"],
            answer=row["answer"],
            find=find,
            within=MVBENCH_FOLDERS.get(file.stem, ""),
            interval_s=(float(row["start"]), float(row["end"])) if has_interval else None,
        )

    yield from _rows(file, _read_json(file), read)


def _world_sense(file: Path, find: Find) -> Found:
    def read(item: tuple[str, dict[str, Any]]) -> Found:
        video, tasks = item
        for name, task in tasks.items():
            if re.fullmatch(r"task\d+", name):
                yield _choice_question(
                    question_id=f"{video}-{name}",
                    video=video,
                    kind=task["task_type"],
                    text=task["question"],
                    options=task["candidates"],
                    answer=task["answer"],
                    find=find,
                )

    yield from _rows(file, dict(_read_json(file)).items(), read)


def _daily_omni(file: Path, find: Find) -> Found:
    numbers = iter(range(10**9))

    def find_video(video: str, within: str) -> Path:
        try:
            return find(f"{video}_video", within)
        except LookupError:
            return find(video, within)

    def read(row: dict[str, Any]) -> Found:
        yield _choice_question(
            question_id=f"{row['video_id']}-{next(numbers)}",
            video=row["video_id"],
            kind=row["Type"],
            text=row["Question"],
            options=row["Choice"],
            answer=row["Answer"],
            find=find_video,
        )

    yield from _rows(file, _read_json(file), read)


# --- the world --------------------------------------------------------------------------------------------------------

_EITHER_OR = re.compile(r", (.+) or (.+)\?$")


def _world(file: Path, find: Find) -> Found:
    """Short answers. Options are other answers of the same kind in the file: those that the question names, or else
    first those that the clip's own events name. What is nowhere in a clip can be ruled out by looking at it alone."""
    truths = list(read_jsonl(file, WorldTruth))
    answers: dict[str, set[str]] = defaultdict(set)
    for truth in truths:
        for question in truth.questions:
            answers[question.kind].add(question.answer)
    for truth in truths:
        for question in truth.questions:
            try:
                video = find(Path(truth.video).name)
            except LookupError as error:
                yield QuestionProblem(question_id=question.question_id, video=truth.video, reason=str(error))
                continue
            plain = VideoQuestion(
                question_id=question.question_id,
                video=str(video),
                kind=question.kind,
                text=question.text,
                answer=question.answer,
                needs=question.needs,
            )
            wrong = sorted(answers[question.kind] - {question.answer})
            told = " ".join(event.text for event in truth.events)
            yield _with_options(plain, others=wrong, near=[answer for answer in wrong if _bare(answer) in told])


def _bare(answer: str) -> str:
    """
    >>> _bare("the red ball."), _bare("a bell.")
    ('red ball', 'bell')
    """
    return re.sub(r"^(?:the|a|an) ", "", answer.rstrip("."))


def _with_options(plain: VideoQuestion, *, others: list[str], near: list[str]) -> VideoQuestion:
    """The same options whenever it is asked: drawn by the question's id. Fewer than two, and it stays without."""
    rng = random.Random(plain.question_id)
    named = _EITHER_OR.search(plain.text)
    if named:
        others, near = [f"{name}." for name in named.groups() if f"{name}." != plain.answer], []
    far = [answer for answer in others if answer not in near]
    wrong = [*rng.sample(near, len(near)), *rng.sample(far, len(far))][: WORLD_OPTIONS - 1]
    options = [plain.answer, *wrong]
    rng.shuffle(options)
    if len(options) < 2:
        return plain
    return replace(plain, options=tuple(options), answer_index=options.index(plain.answer))


FORMATS: dict[str, Callable[[Path, Find], Found]] = {
    "world": _world,
    "videomme": _video_mme,
    "nextqa": _next_qa,
    "mvbench": _mv_bench,
    "worldsense": _world_sense,
    "dailyomni": _daily_omni,
}
