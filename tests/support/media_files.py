"""Writes small real media files whose every frame carries its number, and reads the number back."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BLOCK = 16  # pixels: large enough to survive compression
STAMP_BITS = 16
HEIGHT, WIDTH = 2 * BLOCK, 8 * BLOCK
MILLISECOND = Fraction(1, 1000)


def stamped_frame(number: int) -> np.ndarray:
    """Number -> (32, 128, 3) picture of its 16 bits, white for 1, in two rows of eight."""
    bits = (number >> np.arange(STAMP_BITS)) & 1
    blocks = bits.reshape(2, 8).repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    return (blocks * 235 + 10).astype(np.uint8)[..., None].repeat(3, axis=2)


def read_stamp(frame_HWC: np.ndarray) -> int:
    """Upright picture of any size -> the number in it."""
    height, width = frame_HWC.shape[:2]
    rows = (np.arange(2) * 2 + 1) * height // 4
    columns = (np.arange(8) * 2 + 1) * width // 16
    bits = frame_HWC[rows][:, columns].mean(axis=2) > 127
    return int((bits.reshape(-1) << np.arange(STAMP_BITS)).sum())


def stamps(frames_THWC: np.ndarray) -> list[int]:
    """Frames -> their numbers."""
    return [read_stamp(frame_HWC) for frame_HWC in frames_THWC]


def tone(*, seconds: float, rate: int, hz: float = 440.0) -> np.ndarray:
    """-> float32 sine of amplitude 0.5 whose pitch rises, so that no two moments sound alike."""
    time_s = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (hz + 20 * time_s) * time_s)).astype(np.float32)


def write_media(
    path: Path,
    *,
    frame_times: Sequence[int] = (),
    time_base: Fraction = MILLISECOND,
    rate: Fraction | int = 25,
    video_codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    video_options: dict[str, str] | None = None,
    image: Callable[[int], np.ndarray] = stamped_frame,
    rotation: int = 0,
    waveform: np.ndarray | None = None,
    audio_start: Fraction | int = 0,
    audio_rate: int = 48000,
    audio_codec: str = "flac",
    layout: str = "stereo",
    gains: Sequence[float] | None = None,
    shift_s: Fraction | int = 0,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Frame k at `frame_times[k] * time_base`, sound from `audio_start` s on, all moved by `shift_s` when muxed.

    Every channel has the waveform times its gain: 1 unless `gains` says otherwise.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        packets = []
        video = audio = None
        if len(frame_times):
            video = container.add_stream(video_codec, rate=Fraction(rate), options=video_options or {})
            video.height, video.width = image(0).shape[:2]
            video.pix_fmt, video.codec_context.gop_size = pix_fmt, gop
            video.codec_context.time_base = time_base
            if rotation:
                video.set_display_rotation(rotation)
        if waveform is not None:
            audio = container.add_stream(audio_codec, rate=audio_rate, layout=layout)
        if video is not None:
            packets += _encode_video(video, frame_times=frame_times, time_base=time_base, image=image)
        if audio is not None:
            packets += _encode_audio(
                audio, waveform, start=Fraction(audio_start), rate=audio_rate, layout=layout, gains=gains
            )
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            shift = round(shift_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            container.mux(packet)
    return path


def _encode_video(video, *, frame_times, time_base, image):
    packets = []
    for index, time in enumerate(frame_times):
        frame = av.VideoFrame.from_ndarray(image(index), format="rgb24")
        frame.pts, frame.time_base = time, time_base
        packets += video.encode(frame)
    return packets + video.encode(None)


def _encode_audio(audio, waveform, *, start, rate, layout, gains):
    packets = []
    num_channels = av.AudioLayout(layout).nb_channels
    fmt = audio.codec_context.format.name
    block_size = audio.codec_context.frame_size or 1024
    for first in range(0, len(waveform), block_size):
        block = waveform[first : first + block_size]
        samples = np.stack([block * gain for gain in gains or [1] * num_channels]).astype(np.float32)
        if fmt.startswith("s16"):
            samples = (samples * 32767).round().astype(np.int16)
        elif fmt.startswith("s32"):
            samples = (samples * (2**31 - 1)).round().astype(np.int32)
        if not fmt.endswith("p"):
            samples = samples.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=fmt, layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = round(start * rate) + first
        packets += audio.encode(frame)
    return packets + audio.encode(None)


def steps(*, seconds: float, rate: int = 48000, first_hz: int = 400) -> np.ndarray:
    """-> float32 sine of amplitude 0.4 that is 200 Hz higher in every second: which second it is can be heard."""
    time_s = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (first_hz + 200 * np.floor(time_s)) * time_s)).astype(np.float32)


def tone_hz(waveform_S: np.ndarray, *, rate: int = 16000) -> list[int]:
    """Waveform -> the loudest frequency in the middle of every whole second, to 20 Hz; 0 where it is silent."""
    found = []
    for second in range(len(waveform_S) // rate):
        middle_S = waveform_S[second * rate + rate // 5 : (second + 1) * rate - rate // 5]
        spectrum = np.abs(np.fft.rfft(middle_S * np.hanning(len(middle_S))))
        hz = spectrum.argmax() * rate / len(middle_S)
        found.append(20 * round(hz / 20) if middle_S.std() > 1e-3 else 0)
    return found


def set_display_matrix(path: Path, matrix: Sequence[int]) -> Path:
    """mp4 file -> the same, its video shown by `matrix`: (a, b, c, d), where a stored pixel (x, y) comes to
    (a x + c y, b x + d y) on the screen."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (int(value * 65536) for value in matrix)
    place = data.find(b"tkhd")
    while place >= 0:
        start = place + 4 + 40  # version and flags, times, number, length, layer, group, volume
        if int.from_bytes(data[start + 36 : start + 40]):  # a track with a width
            data[start : start + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
        place = data.find(b"tkhd", place + 4)
    path.write_bytes(bytes(data))
    return path


def stored_for(shown_HWC: np.ndarray, matrix: Sequence[int]) -> np.ndarray:
    """What is to be seen, and the display matrix -> what has to be stored, pixel by pixel as the matrix is defined."""
    a, b, c, d = matrix
    height, width = shown_HWC.shape[:2] if a else shown_HWC.shape[1::-1]
    y_HW, x_HW = np.mgrid[:height, :width]
    screen_x_HW, screen_y_HW = a * x_HW + c * y_HW, b * x_HW + d * y_HW
    return np.ascontiguousarray(shown_HWC[screen_y_HW - screen_y_HW.min(), screen_x_HW - screen_x_HW.min()])
