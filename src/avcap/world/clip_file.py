"""A Scene becomes a video file: pictures and sound, encoded and laid on one time axis.

Frame i shows the time i / fps, so the frame of a whole second is there as such; sample s is heard at s / 16000 s.

T frames  H height  W width  3 red, green, blue  S samples of sound
"""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avcap.files.write import replacing
from avcap.world.domains import Domain, get_domain
from avcap.world.render import render_frames
from avcap.world.scene import Scene
from avcap.world.sounds import render_audio
from avcap.world.speech import SAMPLE_RATE_HZ

FPS = 15
# AAC and Opus put their first 20 ms before time 0 and mp4 tells players to skip them. 48 kHz keeps that lead below a
# frame even for players that do not; at 16 kHz it would be 64 ms. It is also the only rate that both codecs know.
STORED_RATE_HZ = 48_000
AUDIO_BITS_PER_S = 48_000


def write_clip(path: str | Path, scene: Scene, *, fps: int = FPS) -> None:
    """Scene -> an mp4 file at `path`, coded as the scene's domain says. Whole or not at all; UserError if it cannot."""
    frames_THW3 = render_frames(scene, [index / fps for index in range(scene.duration_s * fps)])
    write_media(path, frames_THW3, waveform_S=render_audio(scene), fps=fps, domain=get_domain(scene.domain))


def write_media(path: str | Path, frames_THW3: np.ndarray, *, waveform_S: np.ndarray, fps: int, domain: Domain) -> None:
    """RGB frames uint8 (T, H, W, 3) and 16 kHz sound float32 (S,) in -1 to 1 -> an mp4 file. Written aside and renamed.

    Raises WriteError if the file cannot be written, and leaves none.
    """
    with replacing(path) as aside, av.open(str(aside), "w", format="mp4") as container:
        _encode(container, frames_THW3, waveform_S=waveform_S, fps=fps, domain=domain)


def _encode(
    container: av.container.OutputContainer,
    frames_THW3: np.ndarray,
    *,
    waveform_S: np.ndarray,
    fps: int,
    domain: Domain,
) -> None:
    video = container.add_stream(domain.video_codec, rate=fps, options=dict(domain.video_options))
    video.height, video.width = frames_THW3.shape[1:3]
    video.pix_fmt = "yuv420p"
    video.codec_context.thread_count = 1  # clips are made side by side, and the bytes must not depend on the machine
    audio = container.add_stream(domain.audio_codec, rate=STORED_RATE_HZ, layout="mono")
    audio.bit_rate = AUDIO_BITS_PER_S
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=STORED_RATE_HZ)
    # Second by second, so that pictures and sound lie beside each other in the file and a player need not seek.
    for second in range(-(-len(frames_THW3) // fps)):
        for index in range(second * fps, min((second + 1) * fps, len(frames_THW3))):
            frame = av.VideoFrame.from_ndarray(frames_THW3[index], format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        first_sample = second * SAMPLE_RATE_HZ
        samples_1S = waveform_S[None, first_sample : first_sample + SAMPLE_RATE_HZ]
        sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples_1S), format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE_HZ, first_sample, Fraction(1, SAMPLE_RATE_HZ)
        _mux_audio(container, audio, resampler.resample(sound))
    _mux_audio(container, audio, [*resampler.resample(None), None])
    container.mux(video.encode(None))


def _mux_audio(
    container: av.container.OutputContainer, audio: av.AudioStream, frames: Iterable[av.AudioFrame | None]
) -> None:
    """None ends the stream."""
    for frame in frames:
        container.mux(audio.encode(frame))
