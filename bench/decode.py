"""Decode cost side by side: avcap against torchcodec, decord and OpenCV, on files this script makes.

Every method gives the frames at 0, 1, 2, ... s as 384x384 RGB and the sound as 16 kHz mono; each run is a fresh process
with one decoding thread. Every frame of a file carries its number, so that wrong frames show.

    pip install av numpy pillow torch==2.13.0 torchcodec==0.13.0 eva-decord opencv-python-headless
    PYTHONPATH=src python bench/decode.py --repeats 5

A library that is not installed is reported as missing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 384
FPS = 1
STAMP_BITS = 16
AUDIO_RATE_HZ = 48000
# name: (height, width, seconds, whether frames come at uneven times)
FILES = {
    "60 s 360p": (360, 640, 60, False),
    "60 s 360p uneven": (360, 640, 60, True),
    "60 s 1080p": (1080, 1920, 60, False),
    "10 min 360p": (360, 640, 600, False),
}
Decoded = tuple[np.ndarray, int]  # frames (T, H, W, 3), number of sound samples; -1: the library reads no sound


def frame_times_ms(name: str) -> np.ndarray:
    """File -> when each of its frames is shown."""
    _, _, seconds, is_uneven = FILES[name]
    if not is_uneven:
        return np.arange(seconds * 30) * 1000 // 30
    steps_ms = np.random.default_rng(0).integers(10, 60, seconds * 1000)
    times_ms = np.cumsum(steps_ms) - steps_ms[0]
    return times_ms[times_ms < seconds * 1000]


def make_file(path: Path, *, name: str) -> None:
    """Write a H.264 + AAC file: a drifting texture with the frame number as 16 black or white blocks on it."""
    import av

    height, width, seconds, is_uneven = FILES[name]
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 255, (height // 8, width // 4, 3), dtype=np.uint8))
    texture = np.asarray(noise.resize((width * 2, height)))
    tone = (0.3 * np.sin(np.arange(seconds * AUDIO_RATE_HZ) * 0.05)).astype(np.float32)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"preset": "fast", "crf": "26"})
        video.height, video.width, video.pix_fmt = height, width, "yuv420p"
        audio = container.add_stream("aac", rate=AUDIO_RATE_HZ, layout="stereo")
        next_sample = 0
        time_base = Fraction(1, 1000) if is_uneven else Fraction(1, 30)
        video.codec_context.time_base = time_base
        for index, time_ms in enumerate(frame_times_ms(name)):
            shift = index * 2 % width
            image_HW3 = np.ascontiguousarray(texture[:, shift : shift + width])
            bits = np.repeat((index >> np.arange(STAMP_BITS)) & 1, width // STAMP_BITS)
            image_HW3[: height // 8] = (bits * 235 + 10).astype(np.uint8)[None, :, None]
            frame = av.VideoFrame.from_ndarray(image_HW3, format="rgb24")
            frame.pts, frame.time_base = int(time_ms) if is_uneven else index, time_base
            container.mux(video.encode(frame))
            while next_sample * 1000 <= time_ms * AUDIO_RATE_HZ:
                block = av.AudioFrame.from_ndarray(
                    np.stack([tone[next_sample : next_sample + 1024]] * 2), format="fltp", layout="stereo"
                )
                block.sample_rate, block.pts, block.time_base = AUDIO_RATE_HZ, next_sample, Fraction(1, AUDIO_RATE_HZ)
                container.mux(audio.encode(block))
                next_sample += 1024
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def squash(rgb_HWC: np.ndarray) -> np.ndarray:
    """Frame of any size -> (384, 384, 3)."""
    return np.asarray(Image.fromarray(rgb_HWC).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def avcap_read(path: str) -> Decoded:
    from avcap.media import read_clip

    clip = read_clip(path, fps=FPS, max_frames=10**6, frame_size=(SIDE, SIDE))
    return clip.frames_THWC, len(clip.waveform_S)


def avcap_worker(path: str) -> Decoded:
    from avcap.media import load_clip

    clip = load_clip(path, fps=FPS, max_frames=10**6, frame_size=(SIDE, SIDE), deadline_s=600)
    return clip.frames_THWC, len(clip.waveform_S)


def avcap_video(path: str) -> Decoded:
    from avcap.media import read_clip

    clip = read_clip(path, fps=FPS, max_frames=10**6, frame_size=(SIDE, SIDE), with_audio=False)
    return clip.frames_THWC, -1


def pyav_plain(path: str) -> Decoded:
    """What is usually written with PyAV: every frame decoded, the wanted ones converted."""
    import av

    frames: list[np.ndarray] = []
    num_samples = 0
    resampler = av.AudioResampler(format="s16", layout="mono", rate=16000)
    with av.open(path) as container:
        container.streams.video[0].thread_count = 1
        shown = None
        for frame in container.decode(video=0, audio=0):
            if isinstance(frame, av.AudioFrame):
                num_samples += sum(block.samples for block in resampler.resample(frame))
                continue
            while shown is not None and frame.time > len(frames) / FPS:
                frames.append(squash(shown.to_ndarray(format="rgb24")))
            shown = frame
    num_samples += sum(block.samples for block in resampler.resample(None))
    return np.stack(frames), num_samples


def torchcodec_exact(path: str) -> Decoded:
    import torch
    from torchcodec.decoders import AudioDecoder, VideoDecoder

    torch.set_num_threads(1)
    decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1)
    seconds = np.arange(0, decoder.metadata.end_stream_seconds, 1 / FPS).tolist()
    frames_THWC = decoder.get_frames_played_at(seconds=seconds).data.numpy()
    audio = AudioDecoder(path, sample_rate=16000, num_channels=1).get_all_samples()
    return np.stack([squash(rgb_HWC) for rgb_HWC in frames_THWC]), audio.data.shape[1]


def decord_batch(path: str) -> Decoded:
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    starts_s = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]
    seconds = np.arange(0, starts_s[-1], 1 / FPS)
    numbers = np.searchsorted(starts_s, seconds + 1e-6, side="right") - 1
    frames = [squash(reader[int(number)].asnumpy()) for number in numbers]
    audio = decord.AudioReader(path, sample_rate=16000, mono=True)
    return np.stack(frames), audio.shape[1]


def opencv_grab(path: str) -> Decoded:
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    rate = capture.get(cv2.CAP_PROP_FPS)
    frames: list[np.ndarray] = []
    number = 0
    while capture.grab():  # frame numbers over the average rate: it gives no reliable time of a frame
        if number / rate >= len(frames) / FPS:
            frames.append(squash(capture.retrieve()[1][..., ::-1]))
        number += 1
    return np.stack(frames), -1


METHODS: dict[str, Callable[[str], Decoded]] = {
    "avcap read_clip": avcap_read,
    "avcap load_clip (worker)": avcap_worker,
    "PyAV, every frame": pyav_plain,
    "torchcodec exact": torchcodec_exact,
    "decord": decord_batch,
    "avcap, video only": avcap_video,
    "OpenCV, video only": opencv_grab,
}


def share_right(frames_THWC: np.ndarray, *, name: str) -> float:
    """Frames -> how many of the wanted ones are the very frame shown at their second."""
    times_ms = frame_times_ms(name)
    expected = np.searchsorted(times_ms, np.arange(FILES[name][2] * FPS) * 1000 // FPS, side="right") - 1
    columns = (np.arange(STAMP_BITS) * 2 + 1) * SIDE // (STAMP_BITS * 2)
    bits = frames_THWC[:, SIDE // 16, columns].mean(axis=-1) > 127
    found = (bits << np.arange(STAMP_BITS)).sum(axis=1)
    return int((found[: len(expected)] == expected[: len(found)]).sum()) / len(expected)


def cpu_seconds() -> float:
    """-> CPU seconds of this process and of avcap's worker, if it has started one."""
    used_s = time.process_time()
    pool = sys.modules.get("avcap.media.pool")
    for worker in pool._idle_workers if pool else []:
        used_s += time.clock_gettime((~worker.process_id << 3) | 2)  # Linux's CPU clock of another process
    return used_s


def peak_memory_mb() -> float:
    """-> the most memory this process has used; getrusage would count the process it was started from as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def run_one(method: str, *, path: str, name: str) -> None:
    """Decode once and print what it cost and gave as one line of JSON."""
    try:
        METHODS[method](path)  # imports, and the file into the page cache
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    except Exception as error:
        print(json.dumps({"failed": f"{type(error).__name__}: {str(error)[:80]}"}))
        return
    before_s = cpu_seconds()
    frames_THWC, num_samples = METHODS[method](path)
    result = {
        "cpu_s": cpu_seconds() - before_s,
        "rss_mb": peak_memory_mb(),
        "right": share_right(frames_THWC, name=name),
        "samples": num_samples,
    }
    print(json.dumps(result))


def measure(method: str, *, path: Path, name: str) -> dict:
    """Method and file -> what a fresh process measured."""
    command = [sys.executable, __file__, "--method", method, "--path", str(path), "--name", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else {"failed": f"exit code {done.returncode}"}


def main() -> None:
    """Make the files, run every method on each of them in turn, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "avcap-bench-decode")
    parser.add_argument("--only", help="run only the files whose name contains this")
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.method:
        run_one(arguments.method, path=arguments.path, name=arguments.name)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if arguments.only and arguments.only not in name:
            continue
        path = arguments.folder / (name.replace(" ", "-") + ".mp4")
        if not path.exists():
            make_file(path.with_suffix(".part.mp4"), name=name)
            path.with_suffix(".part.mp4").rename(path)
        # The methods take turns, so that a machine that slows down slows all of them.
        runs = [{method: measure(method, path=path, name=name) for method in METHODS} for _ in range(arguments.repeats)]
        print_table(name, runs=runs)


def print_table(name: str, *, runs: list[dict[str, dict]]) -> None:
    """Runs of all methods on one file -> a table of medians on the screen."""
    print(f"\n{name}, median of {len(runs)}")
    print(f"{'method':26}{'CPU s':>8}{'/ avcap':>9}{'peak MB':>9}{'right':>7}{'audio':>10}")
    for method in METHODS:
        results = [run[method] for run in runs]
        broken = next((result for result in results if "cpu_s" not in result), None)
        if broken is not None:
            print(f"{method:26}{broken}")
            continue
        base = "avcap, video only" if "video only" in method else "avcap read_clip"
        base_s = statistics.median(run[base]["cpu_s"] for run in runs)
        cpu_s = statistics.median(result["cpu_s"] for result in results)
        rss_mb = max(result["rss_mb"] for result in results)
        last = results[-1]
        audio = "none" if last["samples"] < 0 else last["samples"]
        print(f"{method:26}{cpu_s:8.2f}{cpu_s / base_s:9.2f}{rss_mb:9.0f}{last['right']:7.0%}{audio:>10}", flush=True)


if __name__ == "__main__":
    main()
