"""`make_world`: a folder of rendered clips and, in truth.jsonl, all that is true of each.

    OUT/world.json        the settings; a folder is only ever continued with the same ones
    OUT/clips/NAME.mp4
    OUT/truth.jsonl       one WorldTruth per clip; there when all clips are

Every file is written aside and renamed. A run that was stopped, however hard, goes on with the first missing clip.
"""

import dataclasses
import json
import multiprocessing
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from avcap.errors import UserError
from avcap.files.claim import claim
from avcap.files.lock import lock_folder
from avcap.files.write import clear_leftovers
from avcap.processes import end_with_parent
from avcap.records import WorldTruth, from_json, write_jsonl
from avcap.world.clip_file import write_clip
from avcap.world.describe import interval_samples, reference_caption, scene_events
from avcap.world.domains import get_domain
from avcap.world.questions import make_questions
from avcap.world.scene import DIFFICULTIES, Scene, make_scene

SETTINGS = "world.json"
# Raise it whenever the same seed begins to give another clip: a folder must not be half of one world, half of another.
WORLD_VERSION = 1
# Training draws scene seeds below this, `make_world` from it on: no clip of a made world was ever trained on.
FIRST_WORLD_SEED = 10**9
MAX_CLIPS = 10**6


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """All that a world's clips depend on."""

    num_clips: int
    seed: int
    difficulty: str
    domain: str
    version: int = WORLD_VERSION


def make_world(
    out_dir: str | Path,
    *,
    num_clips: int,
    seed: int,
    difficulty: str = "standard",
    domain: str = "default",
    num_workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Renders `num_clips` clips into `out_dir`, or those that are still missing there -> the path of its truth.jsonl.

    Worlds of different seeds share no scene; worlds of one seed in different domains show the same scenes.
    `num_workers`: processes, as many as there are cores if None. `progress`: a bar on stderr.
    """
    settings = WorldSettings(num_clips=num_clips, seed=seed, difficulty=difficulty, domain=domain)
    _check(settings)
    out_dir = Path(out_dir)
    truth_path = out_dir / "truth.jsonl"
    num_workers = min(num_workers or os.cpu_count() or 1, num_clips)
    try:
        with lock_folder(out_dir):
            claim(out_dir, SETTINGS, dataclasses.asdict(settings))
            (out_dir / "clips").mkdir(exist_ok=True)
            truths = _make_clips(out_dir, settings, num_workers=num_workers)
            console = Console(stderr=True)
            write_jsonl(
                truth_path,
                track(truths, total=num_clips, description="making clips", console=console, disable=not progress),
            )
            # Workers of a run that was killed may have lived on for a moment, and left what they were writing.
            clear_leftovers(out_dir / "clips", again=True)
    except BrokenProcessPool as error:
        raise UserError(
            f"{out_dir}: a worker process was ended from outside, perhaps for want of memory; run the same command "
            f"again with fewer workers than {num_workers}: clips already made are kept"
        ) from error
    return truth_path


def clip_seed(world_seed: int, index: int) -> int:
    """World seed and number of a clip -> its scene's seed: ranges of MAX_CLIPS that neither meet nor touch training."""
    assert world_seed >= 0 and 0 <= index < MAX_CLIPS, f"clip {index} of world {world_seed}"
    return FIRST_WORLD_SEED + world_seed * MAX_CLIPS + index


def scene_from_dict(data: dict[str, Any]) -> Scene:
    """What `dataclasses.asdict` made of a Scene, also after a trip through JSON -> the Scene."""
    return from_json(json.dumps(data), Scene)


def _check(settings: WorldSettings) -> None:
    get_domain(settings.domain)
    if settings.difficulty not in DIFFICULTIES:
        raise UserError(f"difficulty {settings.difficulty!r} is not known; expected one of {', '.join(DIFFICULTIES)}")
    if not 1 <= settings.num_clips <= MAX_CLIPS:
        raise UserError(
            f"got {settings.num_clips} clips, expected 1 to {MAX_CLIPS}; use several worlds with other seeds"
        )
    if settings.seed < 0:
        raise UserError(f"got seed {settings.seed}, expected 0 or more")


def _make_clips(out_dir: Path, settings: WorldSettings, *, num_workers: int) -> Iterator[WorldTruth]:
    """Makes the missing clips and yields the truth of all of them, in order."""
    make = partial(_make_clip, out_dir=out_dir, settings=settings)
    if num_workers == 1:
        yield from map(make, range(settings.num_clips))
        return
    # spawn: forking a process in which torch or a decoder has threads can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=end_with_parent)
    try:
        yield from pool.map(make, range(settings.num_clips))
    finally:
        pool.shutdown(cancel_futures=True)


def _make_clip(index: int, *, out_dir: Path, settings: WorldSettings) -> WorldTruth:
    """Renders clip `index` unless its file is there, and returns its truth."""
    seed = clip_seed(settings.seed, index)
    scene = make_scene(seed, difficulty=settings.difficulty, domain=settings.domain)
    clip_id = f"{settings.domain}-{settings.difficulty}-{seed}"
    video = f"clips/{clip_id}.mp4"
    if not (out_dir / video).exists():
        write_clip(out_dir / video, scene)
    return clip_truth(scene, clip_id=clip_id, video=video)


def clip_truth(scene: Scene, *, clip_id: str, video: str) -> WorldTruth:
    """Scene -> all that is true of its clip. `video` is seen from the folder of truth.jsonl: a world can be moved."""
    rng = random.Random(f"truth/{scene.seed}")
    return WorldTruth(
        clip_id=clip_id,
        video=video,
        difficulty=scene.difficulty,
        domain=scene.domain,
        seed=scene.seed,
        duration_s=float(scene.duration_s),
        reference_caption=reference_caption(scene),
        events=scene_events(scene),
        intervals=interval_samples(scene, clip_id=clip_id, video=video, rng=rng),
        questions=make_questions(scene, clip_id=clip_id, rng=rng),
        scene=dataclasses.asdict(scene),
    )
