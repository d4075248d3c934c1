"""Files of benchmarks in their own forms become items. Standard library only, beside what reads rows.

| benchmark | file | a row |
|---|---|---|
| testset-gpt | video_salmonn2_test.json | video, events: [text], conversations |
| dream-1k | JSON or JSONL | a name of the video, source, a reference caption, events or extra_info.events |
| vdc | detailed.jsonl, short.jsonl, ... | {video_id: [{question, answer}]}; the file's name is the aspect |
| avscapbench | OmniCaption.json | video_id, event: {visual_events, audio_events, synergistic_events} |
| omni-cloze | omni_cloze.jsonl | video_path, cloze: {passage, blanks}, metadata |
| ugc-videocap | final_caption_qa.json | {samples: [{video_id, answer}]} |
| daily-omni-caption-qa | grouped_data.json, qa.json | video_id, questions: [{Question, Choice, Answer, Type}] |
| worldsense-caption-qa | worldsense_qa.json | {video: {task0: {question, candidates, answer, task_type}}} |

A row that is not of the form is an error that names it and the field.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.judge.benchmarks.benchmark import BenchmarkItem
from avcap.judge.inputs.external_rows import Row, names_of, read_rows, reference_caption_of
from avcap.judge.protocols.caption_qa import LETTERS, ChoiceQuestion
from avcap.judge.protocols.omni_cloze import LETTERS as CLOZE_LETTERS
from avcap.judge.protocols.omni_cloze import Blank
from avcap.judge.protocols.vdc import QuestionAnswer
from avcap.records import Event, Modality, Sample
from avcap.texts.json_text import parse_json, read_json, read_json_or_lines

AVSCAP_CLASSES: dict[str, Modality] = {
    "visual": "visual",
    "speech": "audio",
    "music": "audio",
    "effects": "audio",
    "synergy": "both",
}
"""Class of an event of AVSCapBench -> what is needed to know it; an event's id is its class and number: "music-2"."""
REFERENCE_CAPTION_NAMES = ("description", "reference_caption", "reference", "caption", "answer", "text")


def read_testset(path: Path) -> tuple[BenchmarkItem, ...]:
    """video_salmonn2_test.json -> items with their events; a reference caption alone has none yet."""
    items = []
    for row in read_rows(path):
        events = tuple(_event(f"e{n}", text, None, where=row.where) for n, text in enumerate(_listed(row, "events"), 1))
        reference_caption = reference_caption_of(row)
        if not events and reference_caption is None:
            raise UserError(f"{row.where}: got neither events nor a reference caption, expected one of them")
        items.append(BenchmarkItem(sample=_sample(row, events=events, reference_caption=reference_caption)))
    return tuple(items)


def read_dream(path: Path) -> tuple[BenchmarkItem, ...]:
    """Rows with a source and a reference -> items; `about`: (source, events or None)."""
    items = []
    for row in read_rows(path):
        extra = row.data.get("extra_info")
        fields = {**(extra if isinstance(extra, Mapping) else {}), **row.data}
        reference_caption = next(
            (str(fields[name]) for name in REFERENCE_CAPTION_NAMES if isinstance(fields.get(name), str)), None
        ) or reference_caption_of(row)
        if reference_caption is None:
            raise UserError(
                f"{row.where}: got no reference caption, expected one in {', '.join(REFERENCE_CAPTION_NAMES)}"
            )
        events = fields.get("events")
        told = None if events is None else tuple(_text(one, where=row.where) for one in events)
        source = str(fields.get("source", fields.get("dataset", "all")))
        sample = _sample(row, reference_caption=reference_caption)
        items.append(BenchmarkItem(sample=sample, about=(source, told)))
    return tuple(items)


def read_vdc(path: Path) -> tuple[BenchmarkItem, ...]:
    """Lines of {video: [question and answer]} -> items; `about`: (aspect, questions)."""
    items = []
    _, values = read_json_or_lines(path, expected="JSON or JSONL of questions by video")
    for number, data in values:
        where = f"{path}, line {number}"
        if not isinstance(data, dict):
            raise UserError(f"{where}: got a {type(data).__name__}, expected {{video: [{{question, answer}}]}}")
        for video, pairs in data.items():
            questions = tuple(
                QuestionAnswer(question=_field(pair, "question", where), answer=_field(pair, "answer", where))
                for pair in _list(pairs, where=f"{where}, {video}")
            )
            sample = Sample(sample_id=str(video), video=str(video), prompt="")
            items.append(BenchmarkItem(sample=sample, about=(path.stem.replace("_", " "), questions)))
    return tuple(items)


def read_avscapbench(path: Path) -> tuple[BenchmarkItem, ...]:
    """OmniCaption.json -> items whose events have their class in their ids."""
    items = []
    for row in read_rows(path):
        event = row.data.get("event", row.data)
        if not isinstance(event, Mapping) or not {"visual_events", "audio_events", "synergistic_events"} & set(event):
            raise UserError(
                f"{row.where}: got the fields {', '.join(row.data)}, expected event with visual_events, audio_events "
                "and synergistic_events"
            )
        audio = event.get("audio_events") or {}
        # a list has no classes: their script counts it as speech
        audio = {"speech": audio} if isinstance(audio, list) else audio
        by_class = {
            "visual": event.get("visual_events"),
            "speech": audio.get("speech"),
            "music": audio.get("music"),
            "effects": audio.get("sfx"),
            "synergy": event.get("synergistic_events"),
        }
        events = tuple(
            _event(f"{name}-{number}", text, AVSCAP_CLASSES[name], where=row.where)
            for name, texts in by_class.items()
            for number, text in enumerate(_list(texts or [], where=row.where), 1)
        )
        items.append(BenchmarkItem(sample=_sample(row, events=events)))
    return tuple(items)


def read_omni_cloze(path: Path) -> tuple[BenchmarkItem, ...]:
    """omni_cloze.jsonl -> items; `about`: (passage, blanks)."""
    items = []
    for row in read_rows(path):
        cloze = row.data.get("cloze")
        cloze = parse_json(cloze) if isinstance(cloze, str) else cloze
        if not isinstance(cloze, dict) or "blanks" not in cloze:
            raise UserError(f"{row.where}: got no cloze with blanks, expected cloze: {{passage, blanks}}")
        blanks = tuple(_blank(one, where=row.where) for one in _list(cloze["blanks"], where=row.where))
        items.append(BenchmarkItem(sample=_sample(row), about=(_field(cloze, "passage", row.where), blanks)))
    return tuple(items)


def _blank(data: Any, *, where: str) -> Blank:
    """A blank -> its options in the order of their letters, and the right letter."""
    answer = _field(data, "answer_key", where).strip().upper()
    options = data.get("options", data.get("choices"))
    if isinstance(options, dict):
        options = [options[letter] for letter in CLOZE_LETTERS if letter in options]
    if options is None:  # the right one stands at its letter, the others around it
        options = list(_list(data.get("distractors", []), where=where))
        if answer in CLOZE_LETTERS[:-1] and isinstance(data.get("answer"), str):
            options.insert(CLOZE_LETTERS.index(answer), data["answer"])
    texts = tuple(_text(one, where=where) for one in _list(options, where=where))
    texts = texts[:-1] if len(texts) == len(CLOZE_LETTERS) else texts  # the last is "not given"
    if answer not in CLOZE_LETTERS or not texts or (answer != "E" and CLOZE_LETTERS.index(answer) >= len(texts)):
        raise UserError(f"{where}: got the answer {answer!r} to a blank of {len(texts)} options, expected one of them")
    return Blank(options=texts, answer=answer, modality=str(data.get("required_modality", "")))


def read_ugc(path: Path) -> tuple[BenchmarkItem, ...]:
    """final_caption_qa.json -> items with a reference caption, which their data calls `answer`."""
    items = []
    for row in read_rows(path):
        reference_caption = next(
            (row.data[name] for name in ("answer", *REFERENCE_CAPTION_NAMES) if isinstance(row.data.get(name), str)),
            None,
        )
        if reference_caption is None:
            raise UserError(f"{row.where}: got the fields {', '.join(row.data)}, expected answer: a reference caption")
        items.append(BenchmarkItem(sample=_sample(row, reference_caption=reference_caption)))
    return tuple(items)


def read_daily_omni(path: Path) -> tuple[BenchmarkItem, ...]:
    """Videos with their questions, or a question a row -> items; `about`: the questions."""
    by_video: dict[str, list[ChoiceQuestion]] = {}
    for row in read_rows(path):
        (video, *_) = names_of(row)
        for one in row.data.get("questions", [row.data]):
            options = _list(_any(one, ("Choice", "choices"), where=row.where), where=row.where)
            question = _question(
                text=_any(one, ("Question", "question"), where=row.where),
                options=options,
                answer=_any(one, ("Answer", "answer"), where=row.where),
                kind=str(one.get("Type", "")),
                where=row.where,
            )
            by_video.setdefault(video, []).append(question)
    return tuple(
        # their files are called ID_video.mp4
        BenchmarkItem(sample=Sample(sample_id=video, video=f"{video}_video.mp4", prompt=""), about=tuple(questions))
        for video, questions in by_video.items()
    )


def read_worldsense(path: Path) -> tuple[BenchmarkItem, ...]:
    """worldsense_qa.json -> items; `about`: the questions of its tasks."""
    data = read_json(path, expected="worldsense_qa.json: an object by video")
    if not isinstance(data, dict):
        raise UserError(f"{path}: got a {type(data).__name__}, expected an object by video")
    items = []
    for video, entry in data.items():
        where = f"{path}, {video}"
        tasks = [entry[name] for name in sorted(entry) if name.startswith("task") and isinstance(entry[name], dict)]
        questions = tuple(
            _question(
                text=_field(task, "question", where),
                options=_list(_any(task, ("candidates", "options"), where=where), where=where),
                answer=_field(task, "answer", where),
                kind=str(task.get("task_type", "")),
                where=where,
            )
            for task in tasks
        )
        items.append(BenchmarkItem(sample=Sample(sample_id=video, video=f"{video}.mp4", prompt=""), about=questions))
    return tuple(items)


# --- fields -----------------------------------------------------------------------------------------------------------


def _question(*, text: Any, options: list[Any], answer: Any, kind: str, where: str) -> ChoiceQuestion:
    plain = [_without_letter(_text(one, where=where), letter) for one, letter in zip(options, LETTERS, strict=False)]
    letter = str(answer).strip()[:1].upper()
    if letter not in LETTERS[: len(plain)] or not letter:
        raise UserError(f"{where}: got the answer {answer!r} to {len(plain)} options, expected the letter of one")
    return ChoiceQuestion(text=_text(text, where=where), options=tuple(plain), answer=letter, kind=kind)


def _without_letter(option: str, letter: str) -> str:
    """
    >>> _without_letter("B. a dog", "B"), _without_letter("B. a dog", "A")
    ('a dog', 'B. a dog')
    """
    head, _, rest = option.strip().partition(" ")
    return rest.strip() if head.strip("().:") == letter and head != letter else option.strip()


def _sample(row: Row, *, events: tuple[Event, ...] = (), reference_caption: str | None = None) -> Sample:
    names = names_of(row)
    video = row.data.get("video", row.data.get("video_path", row.data.get("video_file", names[0])))
    return Sample(
        sample_id=str(row.data.get("uuid", names[0])),
        video=str(video[0] if isinstance(video, list) else video),
        prompt="",
        reference_caption=reference_caption,
        events=events,
    )


def _event(event_id: str, item: Any, modality: Modality | None, *, where: str) -> Event:
    text = item.get("event", item.get("text", item.get("description"))) if isinstance(item, dict) else item
    return Event(event_id=event_id, text=_text(text, where=where), modality=modality)


def _listed(row: Row, name: str) -> list[Any]:
    return _list(row.data.get(name) or [], where=f"{row.where}, {name}")


def _list(value: Any, *, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{where}: got a {type(value).__name__}, expected a list")
    return value


def _text(value: Any, *, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: got {json.dumps(value, default=str)[:80]}, expected a text")
    return value.strip()


def _any(data: Any, names: tuple[str, ...], *, where: str) -> Any:
    found = [data[name] for name in names if isinstance(data, Mapping) and name in data]
    if not found:
        raise UserError(f"{where}: got no {names[0]!r}, expected the published form of the benchmark")
    return found[0]


def _field(data: Any, name: str, where: str) -> str:
    return _text(_any(data, (name,), where=where), where=f"{where}, {name}")
