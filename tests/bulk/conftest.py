"""Captions without a model: what the forms are made of, and a folder of clips to name in them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.bulk_model import DECODING, Model

from avcap.bulk.folder import caption_folder
from avcap.bulk.job import FolderJob, Told
from avcap.bulk.places import find_root
from avcap.data.request import Request


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Four clips of two stems in three folders, one of them an audio file."""
    folder = tmp_path / "clips"
    for name in ("a/001.mp4", "b/001.mp4", "b/é 2.mov", "c.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video of " + name.encode())
    return folder


@pytest.fixture
def fill(clips: Path) -> Callable[..., Told]:
    """fill(out, model, forms=..., ...) -> what caption_folder told."""

    def fill(
        out: Path, model: Model | None = None, *, videos: list[str] | None = None, relative_to=None, **fields
    ) -> Told:
        paths = videos or sorted(str(path) for path in clips.rglob("*.*") if path.suffix in (".mp4", ".mov", ".wav"))
        job = FolderJob(
            out=out,
            root=find_root([str(clips)], paths, relative_to=relative_to),
            videos=tuple(paths),
            request=Request(decoding=DECODING),
            **{"forms": ("txt",), **fields},
        )
        return caption_folder(job, stream=model or Model(), check=lambda row: None)

    return fill
