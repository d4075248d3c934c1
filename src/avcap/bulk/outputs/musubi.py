"""kohya's musubi-tuner: musubi.jsonl with {"video_path", "caption"}, for `video_jsonl_file`. No torch.

Its reader opens paths as they stand, so they are absolute; with --relative-to they are seen from that folder, in which
the trainer is to be started. It names its caches by the stems of files: clips of one stem are put into files of their
own, each of which needs its own cache_directory.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from avcap.bulk.outputs.clips import CaptionedClip, Table, TableFiles, json_lines_bytes, without_audio_files
from avcap.bulk.places import Root


def make_musubi(clips: Sequence[CaptionedClip], out: Path, root: Root) -> TableFiles:
    """Clips -> musubi.jsonl, and musubi.2.jsonl and so on where stems come again in other folders."""
    clips, left_out = without_audio_files(clips, reader="musubi-tuner")
    rows: dict[int, list[dict[str, str]]] = {1: []}
    seen = Counter[str]()
    for clip in clips:
        stem = os.path.basename(clip.stem)
        seen[stem] += 1
        row = {"video_path": clip.name if root.is_given else clip.path, "caption": clip.text}
        rows.setdefault(seen[stem], []).append(row)
    names = {number: "musubi.jsonl" if number == 1 else f"musubi.{number}.jsonl" for number in rows}
    return TableFiles(files={names[number]: json_lines_bytes(some) for number, some in rows.items()}, left_out=left_out)


MUSUBI = Table(file="musubi.jsonl", make=make_musubi)
