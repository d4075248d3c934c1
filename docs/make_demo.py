"""Draws docs/demo.png: frames of a clip, its waveform and spectrogram, and the caption that a model gives it.

    avcap caption examples/two_bells.mp4 --out demo.jsonl
    python docs/make_demo.py demo.jsonl

The first caption of the file is drawn. Nothing in the picture comes from the clip's known truth.

T frames  S samples of sound  N samples of a window  K windows  F frequencies
"""

import argparse
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avcap.infer.caption_file import read_rows
from avcap.media.clip import Clip
from avcap.media.load import load_clip
from avcap.records import Caption

WIDTH_PX, MARGIN_PX, GAP_PX = 1200, 30, 6
WAVE_HEIGHT_PX, SPECTRUM_HEIGHT_PX, LABEL_HEIGHT_PX, LINE_HEIGHT_PX = 70, 120, 26, 32
WINDOW_S, MAX_HZ, RANGE_DB = 0.032, 5000, 60
PAPER, INK, FAINT, WAVE = (255, 255, 255), (25, 25, 30), (120, 120, 130), (45, 90, 160)


def draw(caption: Caption) -> Image.Image:
    """A caption -> the picture of its clip with it."""
    clip = load_clip(caption.video, interval_s=caption.interval_s)
    frame_px = (WIDTH_PX - 2 * MARGIN_PX + GAP_PX) // len(clip.frames_THWC) - GAP_PX
    width_px = len(clip.frames_THWC) * (frame_px + GAP_PX)
    lines = textwrap.wrap(caption.text, width=115)
    parts_px = [MARGIN_PX, LABEL_HEIGHT_PX, frame_px, WAVE_HEIGHT_PX, SPECTRUM_HEIGHT_PX]
    tops_px = [sum(parts_px[: i + 1]) + GAP_PX * i for i in range(len(parts_px))]
    text_top_px = tops_px[-1] + MARGIN_PX // 2
    image = Image.new("RGB", (WIDTH_PX, text_top_px + LINE_HEIGHT_PX * (len(lines) + 1) + MARGIN_PX // 2), PAPER)
    pen = ImageDraw.Draw(image)
    for index, (frame_HWC, time_s) in enumerate(zip(clip.frames_THWC, clip.frame_times_T, strict=True)):
        left_px = MARGIN_PX + index * (frame_px + GAP_PX)
        pen.text((left_px, tops_px[0]), f"{time_s:g}s", fill=FAINT, font=ImageFont.load_default(16))
        image.paste(Image.fromarray(frame_HWC).resize((frame_px, frame_px)), (left_px, tops_px[1]))
    if len(clip.waveform_S):
        image.paste(wave_image(clip, width_px), (MARGIN_PX, tops_px[2]))
        image.paste(spectrum_image(clip, width_px), (MARGIN_PX, tops_px[3]))
    seen = caption.seen
    what = f"{Path(caption.video).name}: {seen.frames} frames, {seen.audio_seconds:g} s of sound; {caption.checkpoint}"
    pen.text((MARGIN_PX, text_top_px), what, fill=FAINT, font=ImageFont.load_default(16))
    for index, line in enumerate(lines, start=1):
        pen.text((MARGIN_PX, text_top_px + LINE_HEIGHT_PX * index), line, fill=INK, font=ImageFont.load_default(22))
    return image


def columns_of(clip: Clip, width_px: int) -> np.ndarray:
    """Clip, one second of it as wide as one frame -> for every column of pixels, where in the waveform it starts."""
    num_samples = len(clip.frames_THWC) * clip.sample_rate_hz
    return np.linspace(0, num_samples, width_px, endpoint=False).astype(int)


def wave_image(clip: Clip, width_px: int) -> Image.Image:
    """Clip -> its waveform, the largest swing of every column."""
    image = Image.new("RGB", (width_px, WAVE_HEIGHT_PX), PAPER)
    pen = ImageDraw.Draw(image)
    starts = columns_of(clip, width_px)
    step = starts[1] - starts[0] + 1
    scale = WAVE_HEIGHT_PX / 2 / max(1e-3, float(np.abs(clip.waveform_S).max()))
    for column, start in enumerate(starts):
        part_S = clip.waveform_S[start : start + step]
        if len(part_S):
            low, high = float(part_S.min()) * scale, float(part_S.max()) * scale
            pen.line([(column, WAVE_HEIGHT_PX / 2 - high), (column, WAVE_HEIGHT_PX / 2 - low)], fill=WAVE)
    return image


def spectrum_image(clip: Clip, width_px: int) -> Image.Image:
    """Clip -> its spectrogram from 0 (below) to MAX_HZ (above); the louder, the darker."""
    num_window = round(WINDOW_S * clip.sample_rate_hz)
    starts = columns_of(clip, width_px)
    padded_S = np.pad(clip.waveform_S, (num_window // 2, num_window + int(starts[-1])))
    windows_KN = np.stack([padded_S[start : start + num_window] for start in starts]) * np.hanning(num_window)
    power_KF = np.abs(np.fft.rfft(windows_KN, axis=1)) ** 2
    num_shown = round(MAX_HZ * WINDOW_S)
    level_KF = 10 * np.log10(power_KF[:, :num_shown] + 1e-10)
    shade_KF = np.clip(1 - (level_KF - level_KF.max() + RANGE_DB) / RANGE_DB, 0, 1)
    grey = (255 * shade_KF.T[::-1]).astype(np.uint8)
    return Image.fromarray(grey).resize((width_px, SPECTRUM_HEIGHT_PX)).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws a clip with its caption.")
    parser.add_argument("captions", type=Path, help="JSONL file that avcap caption --out wrote")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("demo.png"))
    args = parser.parse_args()
    caption = next(row for row in read_rows(args.captions) if isinstance(row, Caption))
    draw(caption).save(args.out, optimize=True)
    print(args.out)


if __name__ == "__main__":
    main()
