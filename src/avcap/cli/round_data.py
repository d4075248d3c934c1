"""Where the videos of rounds and of rebirth come from: a world rendered for them, or files."""

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avcap import v0_1
from avcap.cli.caption import tell_not_taken
from avcap.cli.evaluate import TRUTH_FILE
from avcap.data.qa_files import VideoQuestion, read_questions
from avcap.errors import UserError
from avcap.files.claim import claim
from avcap.infer.inputs import find_media
from avcap.judge.inputs.ingest import Truth, read_truth
from avcap.preference.clauses import ReadClauses, read_clauses
from avcap.preference.world_clauses import read_world_clauses
from avcap.records import Sample
from avcap.world.describe import Annotator, imperfect_caption

if TYPE_CHECKING:
    from avcap.preference.round_data import WorldConfig

BEFORE = ("world", "features", "replies.sqlite*", "round-*", "set-aside")
"""What may stand in a folder before the claim: the world that was rendered for it, and what --from-round left."""


def read_truths(
    data: Path | None, held_out: Path | None, *, world: "WorldConfig | None", out_dir: Path
) -> tuple[Truth, Truth]:
    """Where the videos are -> what is true of those to learn on, and of those to measure on."""
    if (data is None) != (held_out is None):
        raise UserError("got --data without --held-out, or --held-out without --data; expected both or neither")
    if data is not None and held_out is not None:
        return read_one(data), read_one(held_out)
    if world is None:
        raise UserError("got a recipe without a world and no videos; give --data and --held-out")
    from avcap.world.make import make_world  # here: it loads PyAV, which most commands do not need

    numbers = (("learn", world.num_clips, world.seed), ("held-out", world.num_held_out, world.seed + 1))
    paths = [
        make_world(
            out_dir / "world" / name,
            num_clips=num_clips,
            seed=seed,
            difficulty=world.difficulty,
            progress=sys.stderr.isatty(),
        )
        for name, num_clips, seed in numbers
    ]
    learn, measure = map(read_one, paths)
    return learn, measure


def read_one(path: Path) -> Truth:
    return read_truth(path / TRUTH_FILE if path.is_dir() else path)


def questions_of(truth: Truth | None, path: Path | None) -> Sequence[VideoQuestion]:
    """The questions of a file, or those that a world's truth holds. UserError for any that cannot be asked."""
    if path is None:
        if truth is None:
            return []
        return [
            VideoQuestion(
                question_id=question.question_id,
                video=str(truth.folder / world.video),
                kind=question.kind,
                text=question.text,
                answer=question.answer,
                needs=question.needs,
            )
            for world in truth.worlds.values()
            for question in world.questions
        ]
    found = read_questions(path)
    if found.problems:
        first = found.problems[0]
        raise UserError(f"{path}: {len(found.problems)} questions cannot be asked, the first: {first.reason}")
    return found.questions


def clause_reader(truth: Truth | None) -> ReadClauses:
    """What is true of videos -> how captions of them are read as clauses: a world's by its grammar."""
    return read_world_clauses if truth is not None and truth.worlds else read_clauses


def samples_of(truth: Truth) -> Sequence[Sample]:
    """Truth -> its samples, with paths that lead to the videos.

    The reference captions of a world are perfect, which in life nobody has: the imperfect annotator's stand for them.
    """
    samples = []
    for sample in truth.samples:
        if not sample.events:
            continue  # an interval in which nothing happens: there is nothing to judge
        world = truth.worlds.get(sample.video)
        label = sample.reference_caption
        if world is not None:
            from avcap.world.make import scene_from_dict

            rng = random.Random(f"label/{sample.sample_id}")
            label = imperfect_caption(
                scene_from_dict(world.scene), annotator=Annotator(), rng=rng, interval_s=sample.interval_s
            )
        samples.append(replace(sample, video=truth.video_path(sample), reference_caption=label or None))
    return samples


def is_video_folder(path: Path) -> bool:
    """A folder of videos of which nothing is known, and no world."""
    return path.is_dir() and not (path / TRUTH_FILE).exists()


def pool_of(data: Path) -> Sequence[Sample]:
    """--data of rebirth -> videos to be captioned: a world's samples, a file of samples, or a folder of videos."""
    if is_video_folder(data):
        found = find_media([str(data)])
        tell_not_taken(found)
        return [Sample(sample_id=path, video=path, prompt="") for path in found.paths]
    truth = read_one(data)
    return [replace(sample, video=truth.video_path(sample), prompt="") for sample in truth.samples]


def claim_run(out_dir: Path, recipe: str, config: Any, *, models: Sequence[Path]) -> None:
    """Makes the folder one of this configuration and these models. UserError if it is another's."""
    from avcap.config import to_dict
    from avcap.infer.settings import checkpoint_name, read_settings

    names = [checkpoint_name(model, read_settings(model)) for model in models]
    known = {"recipe": recipe, "model": names[0] if len(names) == 1 else names, **to_dict(config)}
    v0_1.take_over(out_dir, known)
    claim(out_dir, "config.yaml", known, ours=BEFORE)
