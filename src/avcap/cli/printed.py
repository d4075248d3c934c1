"""Captions as text on stdout: which file, what was really seen of it, and what was written."""

from collections.abc import Iterable, Mapping

from avcap.cli.app import EXIT_SOME_FAILED, say, tell
from avcap.data.request import Request
from avcap.errors import visible_line
from avcap.records import Caption, CaptionError, Seen


def print_captions(rows: Iterable[Caption | CaptionError], request: Request, *, names: Mapping[str, str]) -> int:
    """Captions to stdout as text, with an empty line between two; errors to stderr -> exit code.

    `names`: path -> what to call the file, so that those of several folders are told apart.
    """
    num_captions, num_errors = 0, 0
    for row in rows:
        if isinstance(row, CaptionError):
            say(row.error)
            num_errors += 1
            continue
        ending = "" if row.finished else " [cut off: --max-new-tokens]"
        gap = "\n" if num_captions else ""
        notes = "".join(f"  ({note})\n" for note in row.seen.notes)
        tell(f"{gap}{_describe_seen(row, request, name=names[row.video])}\n{notes}{row.text}{ending}")
        num_captions += 1
    if num_errors and num_captions + num_errors > 1:
        say(f"{num_captions} captions, {num_errors} errors")
    return EXIT_SOME_FAILED if num_errors else 0


def show_captions(captions: Iterable[Caption], request: Request, *, names: Mapping[str, str]) -> None:
    """Captions to stdout as text: those of --sample, to be looked at."""
    print_captions(captions, request, names={**{caption.video: caption.video for caption in captions}, **names})


def _describe_seen(caption: Caption, request: Request, *, name: str) -> str:
    """A caption -> "two_bells.mp4  10.0 s: 10 frames, 10.0 s of sound": the file, and what was really seen of it."""
    seen = caption.seen
    length = f"{caption.duration_s:.1f} s"
    if caption.interval_s is not None:
        length = f"{caption.interval_s[0]:g} to {caption.interval_s[1]:g} s of {length}"
    no_video = "no picture" if request.use_video else "picture left out"
    no_audio = "no sound track" if request.use_audio else "sound left out"
    parts = [
        f"{seen.frames} frame{'s' if seen.frames > 1 else ''}" if seen.frames else no_video,
        _describe_audio(seen) or no_audio,
    ]
    if seen.bad_packets:
        parts.append(f"{seen.bad_packets} bad packets")
    return f"{visible_line(name)}  {length}: {', '.join(parts)}"


def _describe_audio(seen: Seen) -> str:
    """What was seen -> "10.0 s of sound", and of an engine whether it arrived; "" where there was none."""
    if seen.audio == "dropped":
        return "its sound was dropped"
    if not (seen.audio_tokens or seen.audio_seconds):
        return ""
    return f"{seen.audio_seconds:.1f} s of sound" + (f" ({seen.audio})" if seen.audio else "")
