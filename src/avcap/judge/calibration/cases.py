"""Captions with planted errors, whose true verdicts the oracle of the world knows: what judges are calibrated on."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from avcap.judge.metrics.error_counts import total_error
from avcap.judge.types import Case
from avcap.records import Sample, Verdict
from avcap.world import describe
from avcap.world.oracle import PlantedError, corrupt, judge_caption
from avcap.world.paraphrase import PLAIN, paraphrase
from avcap.world.scene import DIFFICULTIES, Scene, make_scene

MAX_ERRORS = 5
MAX_SHUFFLED = 40
_TRIES = 40


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A caption whose true verdict is known: from the oracle, with the errors planted in it, or from a person."""

    case: Case
    truth: Verdict
    planted: tuple[PlantedError, ...] = ()
    scene: Scene | None = None
    """What was rendered, of captions with planted errors."""


def make_calibration_cases(
    *, num_videos: int = 200, seed: int = 0, max_errors: int = MAX_ERRORS, style: str = PLAIN
) -> tuple[Labelled, ...]:
    """Captions of scenes of every difficulty, long ones and those of an interval, with 0 to `max_errors` errors.

    Two captions of each video where possible, with different errors and the same true total error. `style`: how they
    are worded (world/paraphrase.py); scenes and errors are those of the plain captions.
    """
    rng = random.Random(f"calibrate/{seed}")
    difficulties = sorted(DIFFICULTIES)
    labelled: list[Labelled] = []
    for i in range(num_videos):
        scene = make_scene(rng.randrange(10**9), difficulty=difficulties[i % len(difficulties)])
        labelled += _plant_twice(scene, video=f"planted-{i}", rng=rng, max_errors=max_errors)
    return tuple(_worded(one, style=style) for one in labelled)


def _worded(one: Labelled, *, style: str) -> Labelled:
    """A caption with planted errors -> the same in a style; what the oracle says of it is asked anew."""
    if style == PLAIN:
        return one
    assert one.scene is not None
    case = replace(one.case, text=paraphrase(one.case.text, style=style, rng=random.Random(one.case.caption_id)))
    truth = judge_caption(case.text, truth=one.scene, interval_s=case.sample.interval_s, caption_id=case.caption_id)
    assert truth.events == one.truth.events, f"the oracle judges {case.text!r} otherwise than the plain caption"
    return replace(one, case=case, truth=truth)


def _plant_twice(scene: Scene, *, video: str, rng: random.Random, max_errors: int) -> list[Labelled]:
    """Scene -> a caption with planted errors, and a second that is exactly as good if one can be made."""
    sample = _draw_sample(scene, video=video, rng=rng)
    assert sample.reference_caption is not None
    num_seconds = len(describe.sentences_of(scene, interval_s=sample.interval_s))

    def plant(name: str) -> Labelled:
        num_errors = rng.randint(0, min(max_errors, num_seconds))
        text, planted = corrupt(sample.reference_caption or "", num_errors, rng=rng)
        case = Case(caption_id=f"{video}-{name}", sample=sample, text=text, finished=True)
        truth = judge_caption(text, truth=scene, interval_s=sample.interval_s, caption_id=case.caption_id)
        return Labelled(case=case, truth=truth, planted=planted, scene=scene)

    first = plant("a")
    for _ in range(_TRIES):
        second = plant("b")
        if second.case.text != first.case.text and total_error([second.truth]) == total_error([first.truth]):
            return [first, second]
    return [first]


def _draw_sample(scene: Scene, *, video: str, rng: random.Random) -> Sample:
    """Scene -> the sample of the whole clip or, one time in three, of an interval in which something happens."""
    intervals = describe.interval_samples(scene, clip_id=video, video=f"{video}.mp4", rng=rng)
    told = [sample for sample in intervals if sample.events]
    if told and rng.random() < 1 / 3:
        return told[0]
    return Sample(
        sample_id=video,
        video=f"{video}.mp4",
        prompt=describe.GLOBAL_PROMPTS[0],
        reference_caption=describe.reference_caption(scene),
        events=describe.scene_events(scene),
    )


def shuffled_cases(cases: Sequence[Labelled]) -> tuple[Labelled, ...]:
    """Labelled captions -> the same samples with the captions of other videos, and the truth about these.

    At most one of each video and `MAX_SHUFFLED` in all; whole videos get captions of whole videos, intervals those of
    intervals.
    """
    firsts = list({one.case.sample.sample_id: one for one in reversed(cases) if one.scene is not None}.values())[::-1]
    found: list[Labelled] = []
    for is_whole in (True, False):
        alike = [one for one in firsts if (one.case.sample.interval_s is None) == is_whole]
        found += _with_the_next_text(alike) if len(alike) > 1 else []
    return tuple(found[:MAX_SHUFFLED])


def _with_the_next_text(some: Sequence[Labelled]) -> Iterator[Labelled]:
    for one, other in zip(some, [*some[1:], some[0]], strict=True):
        case = replace(one.case, caption_id=f"{one.case.caption_id}-shuffled", text=other.case.text)
        assert one.scene is not None
        truth = judge_caption(case.text, truth=one.scene, interval_s=case.sample.interval_s, caption_id=case.caption_id)
        yield Labelled(case=case, truth=truth, scene=one.scene)
