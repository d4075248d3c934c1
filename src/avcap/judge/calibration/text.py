"""A calibration in words: what `avcap judge calibrate` prints."""

from avcap.judge.calibration.calibrate import Calibration
from avcap.judge.calibration.dependence import CaptionDependence
from avcap.judge.metrics.bootstrap import Rate


def calibration_text(calibration: Calibration) -> str:
    """Calibration -> a summary of some 20 lines."""
    oracle, margin = calibration.oracle, calibration.noise_margin
    lines = [
        f"judge {calibration.judge} by {calibration.judge_protocol}: {oracle.num_captions} captions with planted "
        f"errors ({calibration.style}), {oracle.num_events} events, {calibration.num_unscored} unscored",
        f"agreement with the oracle   accuracy {_percent(oracle.accuracy)}   kappa {_number(oracle.kappa)}",
        f'a judge that calls every event "correct"   accuracy {100 * calibration.share_correct:.1f} %',
        f"missing events     found {_percent(oracle.missing_sensitivity)}   "
        f"others spared {_percent(oracle.missing_specificity)}",
        f"incorrect events   found {_percent(oracle.incorrect_sensitivity)}   "
        f"others spared {_percent(oracle.incorrect_specificity)}",
        f"invented claims    found {_percent(oracle.invented_recall)}   "
        f"of those called so, true {_percent(oracle.invented_precision)}",
        *(
            f"  planted {finding.kind:8} x {finding.num_planted:<4} found {_percent(finding.found)}   "
            f"noticed {_percent(finding.noticed)}"
            for finding in calibration.by_kind
        ),
        *(
            f"  {part.name:15} accuracy {_percent(part.agreement.accuracy)}   kappa {_number(part.agreement.kappa)}"
            for part in (*calibration.by_modality, *calibration.by_length)
        ),
    ]
    if calibration.retest is not None:
        lines.append(f"asked twice, the same label {_percent(calibration.retest.accuracy)}")
    if calibration.person is not None:
        person = calibration.person
        lines.append(
            f"agreement with the person   accuracy {_percent(person.accuracy)}   kappa {_number(person.kappa)}"
        )
    if calibration.dependence is not None:
        lines += _dependence_lines(calibration.dependence)
    if calibration.thresholds is not None:
        lines.append(
            f"thresholds of its doubts {calibration.thresholds}; the labels above are by those of the other half"
        )
    if margin.margin is None:
        lines.append(
            f"noise margin unknown: {margin.num_retest_pairs} captions asked twice and {margin.num_equal_pairs} equal "
            "pairs, expected at least 20 of each"
        )
    else:
        lines.append(
            f"two captions of a video differ beyond the noise if their total errors differ by > {margin.margin:.3f}"
        )
    return "\n".join(lines)


def _dependence_lines(dependence: CaptionDependence) -> list[str]:
    """How far the labels follow the caption, and what to do where they hardly do."""
    lines = [
        f'called "correct"   of events told right {_percent(dependence.own)}   with the caption of another video '
        f"{_percent(dependence.shuffled)}"
    ]
    if dependence.is_blind:
        lines.append(
            f"its labels hardly depend on the caption (difference {_percent(dependence.difference)}): do not use this "
            "judge; try --judge-protocol avcap-yesno-1, or a larger model"
        )
    return lines


def _percent(rate: Rate) -> str:
    if rate.value is None:
        return "-"
    interval = "" if rate.low is None or rate.high is None else f" [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
    return f"{100 * rate.value:.1f} %{interval}"


def _number(rate: Rate) -> str:
    if rate.value is None:
        return "-"
    interval = "" if rate.low is None or rate.high is None else f" [{rate.low:.2f}, {rate.high:.2f}]"
    return f"{rate.value:.2f}{interval}"
