"""Files are cut where their scenes change, as PySceneDetect finds it: in a process of its own, which reads with PyAV.

    film.mp4 -> detect.py in another process -> seconds of cuts -> intervals

No torch.
"""

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise

from avcap.bulk.cuts.cutter import between
from avcap.bulk.cuts.measure import Measured
from avcap.data.request import Interval
from avcap.errors import MediaError, UserError
from avcap.texts.json_text import parse_json

SHORTEST_SCENE_S = 1.0
"""A shorter scene is of the clip before: a flash, or the frames of a dissolve."""
CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from avcap.bulk.cuts.detect import main; main()"


def check_detector() -> None:
    """Raises UserError where no scene detector is installed, and says which."""
    try:
        is_there = importlib.util.find_spec("scenedetect") is not None
    except ValueError:
        is_there = False
    if not is_there:
        raise UserError(
            "got --split scenes, which needs PySceneDetect; pip install 'avcap[scenes]', or give seconds: --split 10"
        )


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """One interval for each scene."""

    shortest_s: float = SHORTEST_SCENE_S

    @property
    def name(self) -> str:
        return "scenes"

    def intervals(self, path: str, measured: Measured, *, deadline_s: float) -> list[Interval]:
        if not measured.has_video:
            return between([0.0])
        cuts_s = detect(path, deadline_s=deadline_s)
        return between(without_short(cuts_s, duration_s=measured.duration_s, shortest_s=self.shortest_s))


def without_short(cuts_s: list[float], *, duration_s: float, shortest_s: float) -> list[float]:
    """Cuts in order -> where clips begin, none of them shorter than `shortest_s` but a whole file.

    >>> without_short([2.0, 2.4, 9.8], duration_s=10.0, shortest_s=1.0)
    [0.0, 2.0]
    """
    starts = [0.0]
    for cut_s in cuts_s:
        if cut_s - starts[-1] >= shortest_s and duration_s - cut_s >= shortest_s:
            starts.append(round(cut_s, 3))
    return starts


def detect(path: str, *, deadline_s: float) -> list[float]:
    """A file -> the seconds at which its scenes change, in order. MediaError if it cannot be looked at in time."""
    command = [sys.executable, "-c", CODE, json.dumps(sys.path), path]
    try:
        done = subprocess.run(command, capture_output=True, timeout=deadline_s)
    except subprocess.TimeoutExpired:
        raise MediaError(
            f"{path}: got no scenes after {deadline_s:g} s, so it was stopped; raise --deadline, or give seconds: "
            "--split 10"
        ) from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {done.returncode}"]
        raise MediaError(f"{path}: its scenes cannot be found ({lines[-1][:200]}); give seconds: --split 10")
    cuts_s = [float(cut_s) for cut_s in parse_json(done.stdout.decode().splitlines()[-1])]
    assert all(before < after for before, after in pairwise(cuts_s)), "cuts in order"
    return cuts_s
