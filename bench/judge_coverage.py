"""Do the estimates of a calibration cover the truth? 500 calibrations of judges whose noise is known, both protocols.

    python bench/judge_coverage.py [RUNS] [VIDEOS]

Each run flips the labels of captions with planted errors by chance (avcap-1), or draws a doubt for each event and
finds thresholds on the other half of the videos (avcap-yesno-1), and estimates sensitivity and specificity with
intervals over videos. Counted is how often an interval holds the true value: what the judge does on endless captions.
Labels of paraphrases have more noise, as real judges do. All runs of a judge are one array; no text is judged twice.

    Q runs  V videos  E events  R resamples
"""

import sys
import time

import numpy as np
from numpy.typing import NDArray

from avcap.judge.calibration.agreement import LABELS
from avcap.judge.calibration.cases import make_calibration_cases
from avcap.judge.calibration.thresholds import _best_split

NUM_RESAMPLES = 500
NOISE = {
    "plain": np.array([[0.95, 0.03, 0.02], [0.08, 0.88, 0.04], [0.12, 0.08, 0.80]]),
    "mixed": np.array([[0.88, 0.08, 0.04], [0.15, 0.78, 0.07], [0.25, 0.15, 0.60]]),
}
"""Style -> chance of each judged label (columns) for each true one (rows), in the order of LABELS."""
DOUBTS = {"plain": (-2.0, 2.0, 1.5), "mixed": (-1.5, 1.5, 2.0)}
"""Style -> mean doubt of right events, of wrong ones, and the spread of both."""
Floats = NDArray[np.float64]


def covered(hits_QV: Floats, of_QV: Floats, *, truth: Floats | float, rng: np.random.Generator) -> tuple[float, float]:
    """Hits and cases by run and video, and the true rate -> (share of runs whose interval holds it, mean estimate)."""
    num_videos = hits_QV.shape[1]
    weights_RV = rng.multinomial(num_videos, np.full(num_videos, 1 / num_videos), size=NUM_RESAMPLES).astype(float)
    drawn_QR = (hits_QV @ weights_RV.T) / np.maximum(of_QV @ weights_RV.T, 1e-9)
    low_Q, high_Q = np.percentile(drawn_QR, [2.5, 97.5], axis=1)
    estimate_Q = hits_QV.sum(axis=1) / of_QV.sum(axis=1)
    return float(((low_Q <= truth) & (truth <= high_Q)).mean()), float(estimate_Q.mean())


def by_video(values_QE: Floats, video_E: NDArray[np.int64], num_videos: int) -> Floats:
    member_EV = np.eye(num_videos)[video_E]
    return values_QE @ member_EV


def label_runs(
    true_E: NDArray[np.int64], video_E: NDArray[np.int64], *, noise: Floats, num_runs: int, seed: int
) -> None:
    """avcap-1: flipped labels -> how often sensitivity and specificity of each wrong label are covered."""
    rng = np.random.default_rng(seed)
    num_videos = int(video_E.max()) + 1
    cumulative_E3 = np.cumsum(noise, axis=1)[true_E]
    judged_QE = (rng.random((num_runs, len(true_E), 1)) > cumulative_E3).sum(axis=2)
    frequency = np.bincount(true_E, minlength=3) / len(true_E)
    for label in (1, 2):
        is_label_E = (true_E == label).astype(float)
        others = [index for index in range(3) if index != label]
        spared = float((frequency[others] * (1 - noise[others, label])).sum() / frequency[others].sum())
        for name, hit_QE, of_E, truth in (
            ("found", judged_QE == label, is_label_E, float(noise[label, label])),
            ("others spared", judged_QE != label, 1 - is_label_E, spared),
        ):
            hits_QV = by_video(hit_QE * of_E, video_E, num_videos)
            of_QV = by_video(np.broadcast_to(of_E, hit_QE.shape), video_E, num_videos)
            share, mean = covered(hits_QV, of_QV, truth=truth, rng=rng)
            told = f"true {truth:.3f}  mean {mean:.3f}  covered {share:.1%}"
            print(f"  avcap-1        {LABELS[label]:10} {name:14} {told}")


def doubt_runs(
    true_E: NDArray[np.int64],
    video_E: NDArray[np.int64],
    *,
    doubts: tuple[float, float, float],
    num_runs: int,
    seed: int,
) -> None:
    """avcap-yesno-1: doubts, thresholds of the other half -> how often what they do on endless captions is covered."""
    rng = np.random.default_rng(seed)
    num_videos = int(video_E.max()) + 1
    right, wrong, spread = doubts
    is_wrong_E = true_E != 0
    doubt_QE = np.where(is_wrong_E, wrong, right) + spread * rng.standard_normal((num_runs, len(true_E)))
    first_QV = rng.permuted(np.tile(np.arange(num_videos) < num_videos // 2, (num_runs, 1)), axis=1)
    threshold_QE = np.empty_like(doubt_QE)
    for run in range(num_runs):
        in_first_E = first_QV[run][video_E]
        for half_E in (in_first_E, ~in_first_E):
            scored = list(zip(doubt_QE[run, ~half_E].tolist(), is_wrong_E[~half_E].tolist(), strict=True))
            threshold_QE[run, half_E] = _best_split(scored)
    judged_QE = doubt_QE > threshold_QE
    for name, of_E, hit_QE, mean_doubt in (
        ("found", is_wrong_E.astype(float), judged_QE, wrong),
        ("right ones spared", (~is_wrong_E).astype(float), ~judged_QE, right),
    ):
        above_QE = 0.5 * (1 - _erf((threshold_QE - mean_doubt) / (spread * np.sqrt(2))))
        truth_QE = above_QE if name == "found" else 1 - above_QE
        truth_Q = (truth_QE * of_E).sum(axis=1) / of_E.sum()
        hits_QV = by_video(hit_QE * of_E, video_E, num_videos)
        of_QV = by_video(np.broadcast_to(of_E, hit_QE.shape), video_E, num_videos)
        share, mean = covered(hits_QV, of_QV, truth=truth_Q, rng=rng)
        print(f"  avcap-yesno-1  {'wrong':6} {name:18} true {truth_Q.mean():.3f}  mean {mean:.3f}  covered {share:.1%}")


def _erf(values: Floats) -> Floats:
    """Abramowitz and Stegun 7.1.26, to 1.5e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(values))
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(values) * (1 - poly * np.exp(-values * values))


def main() -> None:
    num_runs = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    num_videos = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    for style in ("plain", "mixed"):
        begun_s = time.process_time()
        cases = make_calibration_cases(num_videos=num_videos, seed=0, style=style)
        videos = {name: index for index, name in enumerate(dict.fromkeys(one.case.sample.video for one in cases))}
        true_E = np.array([LABELS.index(event.label) for one in cases for event in one.truth.events])
        video_E = np.array([videos[one.case.sample.video] for one in cases for _ in one.truth.events])
        print(f"{style}: {len(cases)} captions of {len(videos)} videos, {len(true_E)} events, {num_runs} runs")
        label_runs(true_E, video_E, noise=NOISE[style], num_runs=num_runs, seed=1)
        doubt_runs(true_E, video_E, doubts=DOUBTS[style], num_runs=num_runs, seed=2)
        print(f"  {time.process_time() - begun_s:.0f} CPU s")


if __name__ == "__main__":
    main()
