"""Captions without a model, for what is made of them."""

from collections.abc import Iterator
from pathlib import Path

from avcap.records import Caption, CaptionError, Decoding, Sample, Seen

DECODING = Decoding(max_new_tokens=9)
MODEL = "model@1"


def caption_of(video: str, text: str, **fields) -> Caption:
    sample_id = fields.pop("sample_id", video)
    values = {
        "caption_id": f"id of {sample_id}",
        "prompt": "Describe.",
        "checkpoint": MODEL,
        "decoding": DECODING,
        "seen": Seen(frames=3, audio_seconds=3.0, visual_tokens=9, audio_tokens=6),
        "finished": True,
        "duration_s": 10.0,
    }
    return Caption(sample_id=sample_id, video=video, text=text, **{**values, **fields})


class Model:
    """Says what it was given for a file's name, "The NAME." else; `asked` are the samples it was asked about."""

    def __init__(self, texts: dict[str, str] | None = None, bad: tuple[str, ...] = ()) -> None:
        self.texts, self.bad, self.asked = texts or {}, bad, []

    def __call__(self, videos: list) -> Iterator[Caption | CaptionError]:
        for video in videos:
            sample = video if isinstance(video, Sample) else Sample(sample_id=str(video), video=str(video), prompt="")
            name = Path(sample.video).name
            self.asked.append(name)
            if name in self.bad:
                yield CaptionError(sample_id=sample.sample_id, video=sample.video, error=f"{name}: is no video")
            else:
                yield caption_of(sample.video, self.texts.get(name, f"The {name}."), sample_id=sample.sample_id)


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder but the notes and records of avcap."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().decode()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".avcap" not in path.parts and path.suffix not in (".mp4", ".mov", ".wav")
    }
