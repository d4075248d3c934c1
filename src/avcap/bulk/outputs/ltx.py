"""Lightricks' LTX-2 trainer: dataset.json, a list of {"caption", "video"}; paths are seen from that file. No torch.

Its reader takes one paragraph for a caption, strips paths, refuses the whole file for one path that is no file, and
names what it computes by the path without its suffix. The trigger word is its own option. Audio comes from the videos.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from avcap.bulk.outputs.clips import CaptionedClip, LeftOut, Table, TableFiles, json_bytes, without_audio_files
from avcap.bulk.places import Root, relative_name
from avcap.bulk.wording import Wording
from avcap.errors import UserError


def _wording(wording: Wording) -> Wording:
    if wording.trigger is not None:
        raise UserError(
            f"got --trigger {wording.trigger} and --format ltx, whose trainer puts it there itself; leave it out, "
            f"and give process_dataset.py --lora-trigger {wording.trigger}"
        )
    return replace(wording, one_line=True)


def make_ltx(clips: Sequence[CaptionedClip], out: Path, root: Root) -> TableFiles:
    """Clips -> dataset.json; seen from --relative-to where that was given, because the file is to be put there."""
    clips, left_out = without_audio_files(clips, reader="LTX-2")
    folder = root.folder if root.is_given else str(out.absolute())
    rows, first_of = [], dict[str, str]()
    for clip in clips:
        if (first := first_of.setdefault(clip.stem, clip.name)) != clip.name:
            left_out.append(LeftOut(name=clip.name, reason=f"LTX-2 would give it the file names of {first}"))
            continue
        rows.append({"caption": clip.text, "video": video_path(clip.path, folder=folder)})
    return TableFiles(files={"dataset.json": json_bytes(rows)}, left_out=left_out)


def video_path(path: str, *, folder: str) -> str:
    """An absolute path -> as the file names it: below its folder, or absolute, because `..` would leave its outputs."""
    name = relative_name(path, folder)
    if name is None:
        return path
    return name if name == name.strip() else f"./{name}"


LTX = Table(file="dataset.json", make=make_ltx, wording=_wording)
