"""Preference pairs in the formats of other trainers, there and back. Standard library only.

What a format has no place for (counts, margin, ids) travels as text in a column "avcap", which its trainer passes over;
a pair therefore comes back as it left. A pair that a format cannot tell is left out, and counted with the reason.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.files.claim import refuse_external
from avcap.files.write import write_text
from avcap.records import ErrorCounts, PreferencePair, from_data, to_json
from avcap.texts.json_text import parse_json, read_json, read_json_or_lines

EXTRAS = "avcap"
_EXTRA_FIELDS = (
    "sample_id",
    "interval_s",
    "reference_caption",
    "margin",
    "chosen_errors",
    "rejected_errors",
    "chosen_id",
    "rejected_id",
    "checkpoint",
    "judge",
)
_TAG = re.compile(r"<(?:video|image|audio)>")
DATASET_INFO = "dataset_info.json"

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Exported:
    files: tuple[Path, ...]
    num_pairs: int
    left_out: dict[str, int]
    """Why -> pairs that the format cannot tell."""
    remark: str
    """What is still to be done before training; "" if nothing."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    pairs: tuple[PreferencePair, ...]
    left_out: dict[str, int]
    """Why -> rows that are no pair about one video and one question."""
    num_audio_files: int
    """Rows that name a sound file of their own; a pair has the sound of its video."""


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """A file format for preference pairs."""

    is_list: bool
    """One JSON list, rather than JSON lines."""
    to_row: Callable[[PreferencePair], Row]
    from_row: Callable[[Mapping[str, Any]], Row]
    """-> the fields of a PreferencePair that the row tells. Raises _LeftOut, or KeyError and the like if malformed."""
    has_tags: bool = True
    """Media stand in the text as <video>, so no text may hold such a word."""
    has_intervals: bool = False
    needs_reference_caption: bool = False
    remark: str = ""


class _LeftOut(Exception):
    """A row that is not one pair about one video."""


def export_pairs(pairs: Iterable[PreferencePair], path: str | Path, *, flavour: str) -> Exported:
    """Pairs -> a file that the trainer of that flavour reads. Raises UserError if it can tell none of them."""
    form, path = flavour_of(flavour), Path(path)
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    for pair in pairs:
        if reason := _why_not(pair, form):
            left_out[reason] += 1
        else:
            rows.append(form.to_row(pair) | {EXTRAS: _extras(pair)})
    if not rows:
        raise UserError(f"got no pair that {flavour} can tell ({_listed(left_out) or 'there was none'}), expected some")
    info = _registration(path) if flavour == "llama-factory" else None
    refuse_external(path, is_ours=_is_exported, expected="a file of pairs that avcap exported")
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    write_text(path, "[\n" + ",\n".join(lines) + "\n]\n" if form.is_list else "".join(f"{line}\n" for line in lines))
    if info is not None:
        write_text(path.with_name(DATASET_INFO), info)
    files = (path,) if info is None else (path, path.with_name(DATASET_INFO))
    return Exported(files=files, num_pairs=len(rows), left_out=dict(left_out), remark=form.remark)


def import_pairs(path: str | Path, *, flavour: str | None) -> Imported:
    """File of a flavour -> its pairs. The flavour is never guessed: UserError if it is None, or the rows are others."""
    if flavour is None:
        raise UserError(
            f"{path}: got no flavour, expected one of {', '.join(FLAVOURS)}; it cannot be guessed: the turn gpt is the "
            "chosen caption in salmonn2, and the ground truth in salmonn2-plus"
        )
    form = flavour_of(flavour)
    pairs: list[PreferencePair] = []
    left_out: Counter[str] = Counter()
    num_audio_files = 0
    for where, row in _read_rows(Path(path)):
        try:
            fields = form.from_row(row)
        except _LeftOut as reason:
            left_out[str(reason)] += 1
            continue
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            said = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"{where}: got the fields {', '.join(row)} ({said}), expected a row of {flavour}; name another "
                "flavour, or mend the row"
            ) from None
        num_audio_files += bool(row.get("audios") or row.get("audio"))
        pairs.append(_pair(fields, row=row, where=where))
    if not pairs:
        raise UserError(f"{path}: got no pair ({_listed(left_out) or 'the file is empty'}), expected some of {flavour}")
    return Imported(pairs=tuple(pairs), left_out=dict(left_out), num_audio_files=num_audio_files)


def flavour_of(name: str) -> Flavour:
    """ "trl" -> Flavour. Raises UserError for a name that is none."""
    if name not in FLAVOURS:
        raise UserError(f"got the flavour {name!r}, expected one of {', '.join(FLAVOURS)}")
    return FLAVOURS[name]


def _why_not(pair: PreferencePair, form: Flavour) -> str | None:
    """Why a format cannot tell a pair, or None."""
    texts = (pair.prompt, pair.chosen, pair.rejected, pair.reference_caption or "")
    if form.has_tags and any(_TAG.search(text) for text in texts):
        return "its text holds <video>, <image> or <audio>, where the format would look for a file"
    if form.needs_reference_caption and pair.reference_caption is None:
        return "it has no reference caption, which the format needs"
    if not form.has_intervals and pair.interval_s is not None and not _prompt_tells(pair.interval_s, pair.prompt):
        return "it is about an interval, which neither the format nor the prompt tells"
    return None


def _prompt_tells(interval_s: tuple[float, float], prompt: str) -> bool:
    numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", prompt)}
    return set(interval_s) <= numbers


def _extras(pair: PreferencePair) -> str:
    """As text, not as an object: tables of such rows keep one type for the column, whatever is None in it."""
    data = json.loads(to_json(pair))
    return json.dumps({name: data[name] for name in _EXTRA_FIELDS}, ensure_ascii=False)


def _pair(fields: Row, *, row: Mapping[str, Any], where: str) -> PreferencePair:
    extras = parse_json(str(row[EXTRAS]), where=where) if row.get(EXTRAS) else {}
    if not isinstance(extras, dict):
        raise UserError(f"{where}: got {EXTRAS} as a {type(extras).__name__}, expected an object as text")
    interval_s = fields.get("interval_s")
    name = fields["video"] if interval_s is None else f"{fields['video']}#t={interval_s[0]:g},{interval_s[1]:g}"
    try:
        return from_data({"sample_id": name} | extras | fields, PreferencePair)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _listed(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{count}: {reason}" for reason, count in reasons.items())


def _one_video(value: Any) -> str:
    """A path, or a list of one -> the path."""
    videos = [value] if isinstance(value, str) else value or []
    if len(videos) != 1 or not isinstance(videos[0], str):
        raise _LeftOut("not about one video file" if videos else "no video")
    return videos[0]


def _untagged(text: str, *, opening: str) -> str:
    """A question -> the same without its places of media."""
    return text.removeprefix(opening) if text.startswith(opening) else _TAG.sub("", text).strip()


def _one_question(messages: Sequence[Mapping[str, Any]], *, role: str, content: str, user: str) -> Any:
    """Messages before the answer -> what the user asks, if that is all there is."""
    if len(messages) != 1 or messages[0][role] != user:
        raise _LeftOut("more than one question, or a system message")
    return messages[0][content]


# --- TRL --------------------------------------------------------------------------------------------------------------


def _trl_row(pair: PreferencePair) -> Row:
    def answer(text: str) -> list[Row]:
        return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]

    parts = [{"type": "video"}, {"type": "text", "text": pair.prompt}]
    row: Row = {"id": pair.sample_id, "prompt": [{"role": "user", "content": parts}], "chosen": answer(pair.chosen)}
    row |= {"rejected": answer(pair.rejected), "videos": [pair.video], "reference": pair.reference_caption or ""}
    if pair.chosen_errors and pair.rejected_errors:
        row |= {"score_chosen": _score(pair.chosen_errors), "score_rejected": _score(pair.rejected_errors)}
    return row | {"judge": pair.judge}


def _score(errors: ErrorCounts) -> float:
    """Errors -> 1 - total error: the more the better, as scores are read elsewhere."""
    return round(1 - (errors.missing + errors.incorrect + errors.invented) / max(errors.num_events, 1), 6)


def _from_trl(row: Mapping[str, Any]) -> Row:
    """Standard rows (three strings), conversations with an explicit prompt, and those that repeat it in the answers."""
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    if prompt is None:
        prompt, chosen, rejected = chosen[:-1], chosen[-1:], rejected[-1:]
    if not isinstance(prompt, str):
        prompt = _parts_text(_one_question(prompt, role="role", content="content", user="user"))
        chosen, rejected = (_parts_text(_last_answer(messages)) for messages in (chosen, rejected))
    fields = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    fields["video"] = _one_video(row.get("videos", row.get("video")))
    names = {"id": "sample_id", "reference": "reference_caption", "judge": "judge"}
    return fields | {field: row[name] for name, field in names.items() if row.get(name)}


def _last_answer(messages: Sequence[Mapping[str, Any]]) -> Any:
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise _LeftOut("more than one answer")
    return messages[0]["content"]


def _parts_text(content: Any) -> str:
    """Content of a message, text or a list of parts -> its text."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


# --- ms-swift ---------------------------------------------------------------------------------------------------------


def _swift_row(pair: PreferencePair) -> Row:
    messages = [{"role": "user", "content": f"<video>{pair.prompt}"}, {"role": "assistant", "content": pair.chosen}]
    row: Row = {"messages": messages, "rejected_response": pair.rejected, "videos": [pair.video]}
    return row if pair.margin is None else row | {"margin": pair.margin}


def _from_swift(row: Mapping[str, Any]) -> Row:
    *before, answer = row["messages"]
    if answer["role"] != "assistant":
        raise ValueError(f"the last message is by {answer['role']!r}")
    rejected = row["rejected_response"]
    if not isinstance(rejected, str):
        rejected = _last_answer(rejected)
    prompt = _untagged(_one_question(before, role="role", content="content", user="user"), opening="<video>")
    video = _one_video(row.get("videos", row.get("video")))
    return {"prompt": prompt, "chosen": answer["content"], "rejected": rejected, "video": video}


# --- LLaMA-Factory ----------------------------------------------------------------------------------------------------


def _factory_row(pair: PreferencePair) -> Row:
    return {
        "conversations": [{"from": "human", "value": f"<video>{pair.prompt}"}],
        "chosen": {"from": "gpt", "value": pair.chosen},
        "rejected": {"from": "gpt", "value": pair.rejected},
        "videos": [pair.video],
    }


def _from_factory(row: Mapping[str, Any]) -> Row:
    question = _one_question(row["conversations"], role="from", content="value", user="human")
    return {
        "prompt": _untagged(question, opening="<video>"),
        "chosen": row["chosen"]["value"],
        "rejected": row["rejected"]["value"],
        "video": _one_video(row.get("videos")),
    }


def _registration(path: Path) -> str:
    """File of rows -> what the dataset_info.json beside it will hold: it stands there under its stem; others stay."""
    info = path.with_name(DATASET_INFO)
    entries = read_json(info, expected="a JSON object; mend it or move it away") if info.exists() else {}
    if not isinstance(entries, dict):
        raise UserError(f"{info}: got a {type(entries).__name__}, expected a JSON object; mend it or move it away")
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "videos": "videos"}
    entry = {"file_name": path.name, "formatting": "sharegpt", "ranking": True, "columns": columns}
    if entries.get(path.stem, entry) != entry:
        raise UserError(f"{info}: has another data set called {path.stem!r}, which stays; choose another --out")
    entries[path.stem] = entry
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


# --- video-SALMONN 2 and 2+ -------------------------------------------------------------------------------------------


def _salmonn2_row(pair: PreferencePair) -> Row:
    # its loader takes the sound from a file of its own
    row: Row = {"video": pair.video, "audio": os.path.splitext(pair.video)[0] + ".wav"}
    if pair.interval_s is not None:
        row["timestamps"] = list(pair.interval_s)
    answers = {"gpt": pair.chosen, "reject_gpt": pair.rejected, "gt": pair.reference_caption}
    return row | {"conversations": _turns({"human": f"<image>\n{pair.prompt}"} | answers)}


def _from_salmonn2(row: Mapping[str, Any]) -> Row:
    said = _by_speaker(row["conversations"], expected=("human", "gpt", "reject_gpt"), optional=("gt",))
    fields = {"prompt": _untagged(said["human"], opening="<image>\n"), "chosen": said["gpt"]}
    fields |= {"rejected": said["reject_gpt"], "video": _one_video(row.get("video"))}
    if row.get("timestamps"):
        fields["interval_s"] = row["timestamps"]
    return fields | ({"reference_caption": said["gt"]} if "gt" in said else {})


def _plus_row(pair: PreferencePair) -> Row:
    answers = {"gpt": pair.reference_caption, "chosen": pair.chosen, "reject": pair.rejected}
    turns = _turns({"human": f"<video>\n{pair.prompt}"} | answers)
    return {"video": pair.video, "use_audio": True, "conversations": turns}


def _from_plus(row: Mapping[str, Any]) -> Row:
    said = _by_speaker(row["conversations"], expected=("human", "gpt", "chosen", "reject"))
    return {
        "prompt": _untagged(said["human"], opening="<video>\n"),
        "chosen": said["chosen"],
        "rejected": said["reject"],
        "reference_caption": said["gpt"],
        "video": _one_video(row.get("video")),
    }


def _turns(said: Mapping[str, str | None]) -> list[Row]:
    return [{"from": speaker, "value": text} for speaker, text in said.items()]


def _by_speaker(
    turns: Sequence[Mapping[str, Any]], *, expected: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, str]:
    """Turns -> what each speaker says. ValueError for other speakers: then it is the other of the two formats."""
    speakers = [turn["from"] for turn in turns]
    if speakers.count("human") > 1:
        raise _LeftOut("more than one question, or a system message")
    if not set(expected) <= set(speakers) <= {*expected, *optional}:
        raise ValueError(f"turns by {', '.join(speakers)}, not by {', '.join(expected)}")
    return {turn["from"]: turn["value"] for turn in turns}


FLAVOURS = {
    "trl": Flavour(is_list=False, to_row=_trl_row, from_row=_from_trl, has_tags=False),
    "ms-swift": Flavour(is_list=False, to_row=_swift_row, from_row=_from_swift),
    "llama-factory": Flavour(is_list=True, to_row=_factory_row, from_row=_from_factory),
    "salmonn2": Flavour(
        is_list=True,
        to_row=_salmonn2_row,
        from_row=_from_salmonn2,
        has_intervals=True,
        needs_reference_caption=True,
        remark="its loader reads the sound from 16 kHz WAV files beside the videos: ffmpeg -i a.mp4 -ar 16000 a.wav",
    ),
    "salmonn2-plus": Flavour(is_list=True, to_row=_plus_row, from_row=_from_plus, needs_reference_caption=True),
}


# --- files ------------------------------------------------------------------------------------------------------------


def _is_exported(path: Path) -> bool:
    """Whether all rows of a file are of `export_pairs`: another trainer's carry no margin under our name."""
    return all(EXTRAS in row for _, row in _read_rows(path))


def _read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """A JSON list or JSON lines -> (where it stands, row)."""
    is_lines, values = read_json_or_lines(path, expected="a JSON list or JSON lines")
    for number, data in values:
        if isinstance(data, list) and not is_lines:
            for row_number, row in enumerate(data, start=1):
                yield _object(row, where=f"{path}, row {row_number}")
        else:
            yield _object(data, where=f"{path}, line {number}")


def _object(row: Any, *, where: str) -> tuple[str, Row]:
    if not isinstance(row, dict):
        raise UserError(f"{where}: got a {type(row).__name__}, expected an object")
    return where, row
