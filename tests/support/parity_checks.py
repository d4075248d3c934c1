"""What the parity checks of both families share: one comparison, and how large a difference may be."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

# EXACT also where floats are compared: each is one correctly rounded operation, or integer arithmetic, on any CPU.
EXACT, SAME, CLOSE, LOGITS = 0.0, 1e-6, 1e-4, 1e-3
# A quiet bin is a small sum of large terms of the transform, and kernels add these in different orders: rounding in
# float32, which the logarithm magnifies. AVX-512 kernels of some CPUs differ by 1.3e-5 from those of the recording.
LOG_MEL = 5e-5
IGNORED = -100  # label of a position that is no target
SAMPLE_RATE_HZ = 16_000
REPETITION_PENALTY = 1.05
RECORDED_SCALE = 0.9  # the recorded reference policy: q, k and v weights of the language model times this

Row = tuple[str, str, float, float]
"""Row of the golden table, what is compared, difference, tolerance."""


@dataclass(frozen=True)
class Check:
    """One comparison: the largest absolute difference, and how large it may be."""

    case: str
    row: str
    what: str
    difference: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.difference <= self.tolerance


CaseT = TypeVar("CaseT")


def run_checks(name: str, case: CaseT, stages: Sequence[Callable[[CaseT], Iterable[Row]]]) -> list[Check]:
    """A case and its stages -> the comparisons of all of them, in order."""
    return [
        Check(name, row, what, float(got), tolerance) for stage in stages for row, what, got, tolerance in stage(case)
    ]


def difference(got: Tensor | Sequence | float, expected: Tensor) -> float:
    """Largest absolute difference; infinite if the shapes are not the same."""
    got = torch.as_tensor(got, dtype=torch.float64 if isinstance(got, float) else None)
    if got.shape != expected.shape:
        return float("inf")
    return (got.double() - expected.double()).abs().max().item() if expected.numel() else 0.0


def tiled_waveform(tile: Tensor, num_samples: int) -> Tensor:
    """Recorded 16-bit tile -> (S,) float32: repeated to the length, as numpy.resize does."""
    index = torch.arange(num_samples) % len(tile)
    return tile[index].float() / 32768
