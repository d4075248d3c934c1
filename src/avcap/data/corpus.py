"""Files that list videos with captions become Samples: our own JSONL, and the JSON that the released code trains on.

The released "v1" flavour (facts of its format: docs/data.md): a JSON list of
    {"video": PATH, "timestamps": [start, end]?, "conversations": [{"from": "human", "value": "<image>\\nPROMPT"},
                                                                    {"from": "gpt", "value": CAPTION}]}
"""

from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.records import Sample, read_jsonl
from avcap.texts.json_text import read_json

MEDIA_TAGS = ("<image>", "<video>", "<audio>")


def read_corpus(path: Path) -> list[Sample]:
    """File of samples -> Samples with a reference caption each; relative video paths are relative to the file.

    Raises UserError that names the file and the row for anything else, and where two rows have one sample id.
    """
    samples = list(read_jsonl(path, Sample)) if path.suffix == ".jsonl" else _read_released(path)
    seen: set[str] = set()
    for sample in samples:
        if not sample.reference_caption:
            raise UserError(f"{path}: sample {sample.sample_id!r} has no reference caption, expected one to learn from")
        if sample.sample_id in seen:
            raise UserError(f"{path}: two samples are called {sample.sample_id!r}, expected each name once")
        seen.add(sample.sample_id)
    if not samples:
        raise UserError(f"{path}: got no samples, expected at least one")
    return samples


def _read_released(path: Path) -> list[Sample]:
    rows = read_json(path, expected=".jsonl of samples or a JSON list")
    if not isinstance(rows, list):
        raise UserError(f"{path}: got {type(rows).__name__}, expected a list of rows with video and conversations")
    return [_released_sample(path, index, row) for index, row in enumerate(rows)]


def _released_sample(path: Path, number: int, row: Any) -> Sample:
    try:
        video = str(row["video"])
        turns = {turn["from"]: str(turn["value"]) for turn in row["conversations"]}
        prompt, caption = turns["human"], turns["gpt"]
        interval = tuple(float(second) for second in row["timestamps"]) if row.get("timestamps") else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        got = f"{type(error).__name__} {error}"
        raise UserError(f"{path}, row {number}: {got}; expected video and conversations") from None
    if len(turns) != len(row["conversations"]):
        raise UserError(f"{path}, row {number}: got several turns of one speaker, expected one question and one answer")
    if interval is not None and len(interval) != 2:
        raise UserError(f"{path}, row {number}: got timestamps {interval}, expected [start, end] in seconds")
    for tag in MEDIA_TAGS:
        prompt = prompt.replace(tag, "")
    return Sample(
        sample_id=str(row.get("id", number)),
        video=video,
        prompt=prompt.strip(),
        interval_s=interval,
        reference_caption=caption,
    )
