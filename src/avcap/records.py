"""Everything that avcap writes to disk, as frozen dataclasses with a JSON round trip; standard library only.

A record is one line of a JSONL file. Unknown fields and missing fields are errors that name the file and the line,
so a file of another version is never half understood. docs/data.md shows each record.
"""

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from avcap import v0_1
from avcap.errors import UserError
from avcap.files.journal import Journal, LineFormat
from avcap.files.write import replacing
from avcap.texts.json_text import parse_json, read_json, read_json_lines

Modality = Literal["visual", "audio", "both"]
EventLabel = Literal["correct", "missing", "incorrect"]
AudioArrival = Literal["confirmed", "sent, not confirmed", "dropped"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One atomic event: the smallest fact of a video that can be checked. `modality` None: nobody said."""

    event_id: str
    text: str
    modality: Modality | None
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about a video with its one right answer. `needs` names the modality without which it is a guess."""

    question_id: str
    kind: str
    text: str
    answer: str
    needs: Modality


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A video with a prompt and what is known about it. `interval_s` None: the whole video (a global caption)."""

    sample_id: str
    video: str
    prompt: str
    interval_s: tuple[float, float] | None = None
    reference_caption: str | None = None
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the model really saw of a video; counted where the tokens enter the language model.

    Of a model behind an engine: what was sent to it. Tokens are None where the engine does not tell them.
    """

    frames: int
    audio_seconds: float
    visual_tokens: int | None
    audio_tokens: int | None
    bad_packets: int = 0
    notes: tuple[str, ...] = ()
    """What of the file was corrected while it was read, or could not be: its clock, colours, channels, streams."""
    audio: AudioArrival | None = None
    """Whether audio that was sent to an engine reached the model; None: none was sent, or no engine was asked."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How a caption was decoded. Temperature 0 is greedy."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0
    """0: any token may be drawn."""
    repetition_penalty: float = 1.0
    loop_ngram: int = 0
    """A caption that has written the same so many tokens `loop_times` times is stopped, unfinished; 0: never."""
    loop_times: int = 4


@dataclass(frozen=True, kw_only=True)
class CaptionWindow:
    """What a model wrote of one window of a long video."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A model's text for a sample. `finished`: the model ended it itself, instead of running into the token limit.

    `in_world` and `world_score` are set only by models that know what they were trained on (the embedded ones):
    the score is how unlike that world the video looks and sounds, 1.0 being the border.

    `style`: the form that was asked for (--style); `broken_rules`: which of its rules the text breaks, also after the
    model was `asked_again`.
    """

    caption_id: str
    sample_id: str
    video: str
    prompt: str
    text: str
    checkpoint: str
    decoding: Decoding
    seen: Seen
    finished: bool
    duration_s: float
    interval_s: tuple[float, float] | None = None
    in_world: bool | None = None
    world_score: float | None = None
    style: str | None = None
    broken_rules: tuple[str, ...] = ()
    asked_again: bool = False
    windows: tuple[CaptionWindow, ...] = ()
    """Of a long video: what its text was made of. `text` is then none that the model wrote in one go."""
    made_by: str = ""
    """How it was made of them: "windows of 60 s, overlapping by 6 s, stitched"."""
    LEFT_OUT_IF_EMPTY: ClassVar[tuple[str, ...]] = ("windows", "made_by")


@dataclass(frozen=True, kw_only=True)
class CaptionError:
    """A video that gave no caption, with the reason: one row in the output, never a silent gap."""

    sample_id: str
    video: str
    error: str


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A file below an --out folder that avcap made, and the sha256 of what it wrote."""

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CutFile:
    """Into which intervals a file was cut: noted, so that a stopped run goes on with the same ones."""

    sample_id: str
    video: str
    cut: str
    """The way of cutting: "every 10 s", "scenes"."""
    duration_s: float
    has_audio: bool
    starts_s: tuple[float, ...]
    ends_s: tuple[float | None, ...]
    """None: the end of the file."""


@dataclass(frozen=True, kw_only=True)
class DroppedCaption:
    """A caption that a filter dropped, and why: each part of its condition that was not true."""

    sample_id: str
    video: str
    caption_id: str | None
    """None: the video had no caption."""
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EventVerdict:
    event_id: str
    label: EventLabel


@dataclass(frozen=True, kw_only=True)
class InventedClaim:
    """Something that a caption tells and that no event stands behind. Modality and time where the judge knows them."""

    text: str
    modality: Modality | None = None
    start_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A judge's labels for one caption. `invented`: claims with no event behind them; `repeated`: claims said again."""

    caption_id: str
    events: tuple[EventVerdict, ...]
    invented: tuple[InventedClaim, ...] = ()
    repeated: tuple[str, ...] = ()
    judge: str = ""
    prompt_version: str = ""
    dropped: tuple[str, ...] = ()
    """Optional parts of the requests that the judge's server refused, and was asked without: ("temperature",)."""
    judge_protocol: str = ""
    """How a language model was asked: "avcap-1" or "avcap-yesno-1"; "" for the oracle, and before there were two."""
    benchmark: str = ""
    """Whose data and rules the caption was judged for; "" for captions and truth of one's own."""


@dataclass(frozen=True, kw_only=True)
class Unscored:
    """A caption without a verdict, and why: counted, and kept out of every mean. `reply`: what the judge said last."""

    caption_id: str
    reason: str
    reply: str = ""


@dataclass(frozen=True, kw_only=True)
class ErrorCounts:
    """What a judge counted in one caption."""

    num_events: int
    missing: int
    incorrect: int
    invented: int
    repeated: int


@dataclass(frozen=True, kw_only=True)
class PreferencePair:
    """Two captions that one model wrote for one prompt; a judge found fewer errors in the chosen one.

    `margin`: by how much its total error is the lower. None, like the counts, in a pair that somebody else made.
    """

    sample_id: str
    video: str
    prompt: str
    chosen: str
    rejected: str
    interval_s: tuple[float, float] | None = None
    reference_caption: str | None = None
    margin: float | None = None
    chosen_errors: ErrorCounts | None = None
    rejected_errors: ErrorCounts | None = None
    chosen_id: str = ""
    rejected_id: str = ""
    checkpoint: str = ""
    judge: str = ""


@dataclass(frozen=True, kw_only=True)
class WorldTruth:
    """One line of a world's truth.jsonl: a rendered clip and all that is true of it."""

    clip_id: str
    video: str
    difficulty: str
    domain: str
    seed: int
    duration_s: float
    reference_caption: str
    events: tuple[Event, ...]
    intervals: tuple[Sample, ...] = ()
    questions: tuple[Question, ...] = ()
    scene: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a checkpoint comes from."""

    stage: str
    parent: str | None
    recipe: str
    data_hash: str
    seed: int
    commit: str
    round: int | None = None


RecordT = TypeVar("RecordT")


def to_json(record: Any) -> str:
    """A record -> one line of JSON (no newline)."""
    # not asdict: it copies every value first, which takes longer than all the rest
    return json.dumps(record, ensure_ascii=False, default=_fields)


def _fields(record: Any) -> dict[str, Any]:
    """A dataclass -> its fields by name, in order; TypeError for whatever else JSON does not know."""
    if not dataclasses.is_dataclass(record) or isinstance(record, type):
        raise TypeError(f"got {record!r}, expected a dataclass")
    data = vars(record)
    if optional := getattr(record, "LEFT_OUT_IF_EMPTY", ()):
        return {name: value for name, value in data.items() if value or name not in optional}
    return data


def from_json(text: str, record_type: type[RecordT]) -> RecordT:
    """One line of JSON -> a record. Raises UserError that names a field that is unknown, missing or of a wrong type."""
    return from_data(parse_json(text), record_type)


def from_data(data: Any, record_type: type[RecordT]) -> RecordT:
    """What a JSON reader made of a record -> the record; errors as `from_json`."""
    return _build(data, record_type, record_type.__name__)


def read_record(path: str | Path, record_type: type[RecordT], *, expected: str = "") -> RecordT:
    """JSON file of one record -> the record. UserError that names the file."""
    expected = expected or f"a {record_type.__name__} as JSON"
    data = read_json(path, expected=expected)
    try:
        return from_data(data, record_type)
    except UserError as error:
        raise UserError(f"{path}: {error}; expected {expected}") from None


def _build(value: Any, expected: Any, where: str) -> Any:
    """JSON value -> value of the annotated type; errors name the path `where`."""
    origin, args = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any:
        return value
    if origin is typing.Literal:
        if value not in args:
            raise UserError(f"{where}: got {value!r}, expected one of {', '.join(map(repr, args))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        inner = next(arg for arg in args if arg is not type(None))
        return _build(value, inner, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: got {type(value).__name__}, expected a list")
        kinds = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            raise UserError(f"{where}: got {len(value)} items, expected {len(kinds)}")
        pairs = enumerate(zip(value, kinds, strict=True))
        return tuple(_build(item, kind, f"{where}[{i}]") for i, (item, kind) in pairs)
    if dataclasses.is_dataclass(expected):
        return _build_dataclass(value, expected, where)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = origin or expected
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        raise UserError(f"{where}: got {value!r}, expected {plain.__name__}")
    return value


def _build_dataclass(value: Any, expected: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{where}: got {type(value).__name__}, expected an object")
    value = v0_1.record(value, expected.__name__)
    hints = _type_hints(expected)
    fields = {f.name: f for f in dataclasses.fields(expected)}
    if unknown := sorted(set(value) - set(fields)):
        raise UserError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(fields)}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise UserError(f"{where}: field {name!r} is missing")
    return expected(**{name: _build(item, hints[name], f"{where}.{name}") for name, item in value.items()})


@functools.cache
def _type_hints(record_type: Any) -> dict[str, Any]:
    """A dataclass -> the types of its fields; kept, because finding them takes longer than reading a record."""
    return typing.get_type_hints(record_type)


def read_jsonl(path: str | Path, record_type: type[RecordT]) -> Iterator[RecordT]:
    """JSONL file -> records, one at a time. Raises UserError with file and line for anything that is not one."""
    for number, data in read_json_lines(path, expected=f"a JSONL file of {record_type.__name__}"):
        try:
            yield from_data(data, record_type)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None


def write_jsonl(path: str | Path, records: Iterable[Any]) -> None:
    """Records -> a JSONL file: a reader sees the old file or the whole new one. WriteError if it cannot be written."""
    # JSON may hold lone surrogates, UTF-8 may not; backslashreplace writes them just as JSON does.
    with replacing(path) as aside, open(aside, "w", encoding="utf-8", errors="backslashreplace") as handle:
        handle.writelines(to_json(record) + "\n" for record in records)


def journal(path: str | Path, record_type: type[RecordT]) -> Journal[RecordT]:
    """JSONL file of records that a stopped run goes on with: `with journal(path, Verdict) as verdicts: ...`"""
    return Journal(path, line_format(record_type))


def line_format(record_type: type[RecordT]) -> LineFormat[RecordT]:
    """A record's type -> what a line of a journal of such records is."""
    first = dataclasses.fields(typing.cast(Any, record_type))[0].name
    return LineFormat(
        what=record_type.__name__,
        parse=functools.partial(from_json, record_type=record_type),
        dump=to_json,
        starts=(f'{{"{first}": ',),
    )
