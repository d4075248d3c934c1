"""Writes small mp4 files of noise: no frame and no sound of one is like those of another seed."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FPS = 5
AUDIO_RATE_HZ = 48_000


def write_video(path: Path, *, seconds: float, audio_s: float | None = None, seed: int = 0, video: bool = True) -> Path:
    """-> an mp4 file of moving random blocks, with noise for `audio_s` seconds (None: as the picture; 0: none)."""
    rng = np.random.default_rng(seed)
    audio_s = seconds if audio_s is None else audio_s
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "30"}) if video else None
        audio = container.add_stream("aac", rate=AUDIO_RATE_HZ, layout="mono") if audio_s else None
        if video:
            video.height = video.width = 64
            video.pix_fmt = "yuv420p"
            for index in range(round(seconds * FPS)):
                blocks = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
                frame = av.VideoFrame.from_ndarray(blocks, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, FPS)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio:
            waveform_S = rng.normal(0, 0.1, round(audio_s * AUDIO_RATE_HZ)).astype(np.float32)
            for first in range(0, len(waveform_S), 1024):
                block_1S = np.ascontiguousarray(waveform_S[None, first : first + 1024])
                block = av.AudioFrame.from_ndarray(block_1S, format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = AUDIO_RATE_HZ, first, Fraction(1, AUDIO_RATE_HZ)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path
