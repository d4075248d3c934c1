"""The samples of a SoundFont: name -> recorded waveform with its loop. The one door to the .sf2 file."""

import importlib.util
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from avcap.errors import UserError

SAMPLE_HEADER = struct.Struct("<20s5IBbHH")  # name, start, end, loop start, loop end, Hz, key, cents, link, type


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recorded note: float32 samples in [-1, 1]; while it is held, [loop_start, loop_end) repeats."""

    waveform_S: np.ndarray
    sample_rate_hz: int
    loop_start: int
    loop_end: int

    def hold(self, duration_s: float) -> np.ndarray:
        """Seconds -> the note's start and then its loop, (duration_s * sample_rate_hz,), at the recorded pitch."""
        num_needed = round(duration_s * self.sample_rate_hz)
        loop_L = self.waveform_S[self.loop_start : self.loop_end]
        num_loops = max(0, -(-(num_needed - self.loop_end) // len(loop_L)))
        return np.concatenate([self.waveform_S[: self.loop_end], *[loop_L] * num_loops])[:num_needed]


@cache
def load_recordings() -> dict[str, Recording]:
    """-> name -> Recording for every sample of the General MIDI SoundFont that comes with pretty_midi (TimGM6mb)."""
    data = _soundfont_path().read_bytes()
    chunks = dict(_chunks(data, start=12, end=len(data)))
    samples_S = np.frombuffer(chunks[b"smpl"], dtype="<i2").astype(np.float32) / 32768
    recordings = {}
    for name, start, end, loop_start, loop_end, rate, *_ in SAMPLE_HEADER.iter_unpack(chunks[b"shdr"]):
        if end > start:  # the table ends with an empty entry
            recordings[name.split(b"\0")[0].decode("latin-1")] = Recording(
                waveform_S=samples_S[start:end],
                sample_rate_hz=rate,
                loop_start=loop_start - start,
                loop_end=loop_end - start,
            )
    return recordings


def _soundfont_path() -> Path:
    # Looked up, not imported: the package's code is of no use here and importing it takes half a second.
    spec = importlib.util.find_spec("pretty_midi")
    if spec is None or spec.origin is None:
        raise UserError("no SoundFont: pretty_midi is not installed; run pip install 'avcap[world]'")
    path = Path(spec.origin).with_name("TimGM6mb.sf2")
    if not path.exists():
        raise UserError(f"{path}: not there; it comes with pretty_midi 0.2.11: pip install -U 'avcap[world]'")
    return path


def _chunks(data: bytes, *, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """RIFF bytes -> (id, content) of every chunk, those inside LIST chunks too."""
    while start < end:
        name, size = struct.unpack_from("<4sI", data, start)
        body = start + 8
        if name == b"LIST":
            yield from _chunks(data, start=body + 4, end=body + size)
        else:
            yield name, data[body : body + size]
        start = body + size + size % 2
