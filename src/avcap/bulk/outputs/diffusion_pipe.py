"""tdrussell's diffusion-pipe: captions.json in each folder of clips, {"clip.mp4": ["caption"]}. No torch.

Its reader looks a clip's file name up in the captions.json of the folder, expects lists, and opens the file in the
encoding of the machine: only ASCII is written. A captions.json hides all side-cars of its folder.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from avcap.bulk.outputs.clips import CaptionedClip, Table, TableFiles, without_audio_files
from avcap.bulk.places import Root

READER = "diffusion-pipe"


def make_diffusion_pipe(clips: Sequence[CaptionedClip], out: Path, root: Root) -> TableFiles:
    """Clips -> a captions.json for each folder."""
    clips, left_out = without_audio_files(clips, reader=READER)
    folders: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
    for clip in clips:
        folder, _, file = clip.name.rpartition("/")
        folders[folder][file] = [clip.text]
    files: dict[str, bytes | Callable[[Path], None]] = {
        f"{folder}/captions.json" if folder else "captions.json": (json.dumps(rows, indent=1) + "\n").encode("ascii")
        for folder, rows in folders.items()
    }
    return TableFiles(files=files, left_out=left_out)


DIFFUSION_PIPE = Table(file="captions.json", make=make_diffusion_pipe, reader=READER, is_one_file=False)
