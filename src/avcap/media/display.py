"""How a decoded frame is to be shown: turned and mirrored by its display matrix, its pixels made square.

H, W pixels  C = 3 colours (RGB)
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# Beyond these no camera and no disc goes: a header that says so is damaged, and would give frames of one line.
MIN_ASPECT, MAX_ASPECT = Fraction(1, 8), Fraction(8)


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """One of the eight ways to lay a rectangle down: first rows and columns change places, then lines are reversed."""

    is_transposed: bool = False
    is_flipped_down: bool = False
    """Whether the lowest row comes on top."""
    is_flipped_across: bool = False
    """Whether the rightmost column comes first."""

    @property
    def is_mirrored(self) -> bool:
        """Whether writing in the frame would be seen as in a mirror, compared with the frame as it is stored."""
        return (self.is_transposed + self.is_flipped_down + self.is_flipped_across) % 2 == 1

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Stored (height, width) -> as shown."""
        return (width, height) if self.is_transposed else (height, width)

    def apply(self, frame_HWC: np.ndarray) -> np.ndarray:
        """Stored frame -> as shown."""
        if self == UPRIGHT:
            return frame_HWC
        if self.is_transposed:
            frame_HWC = frame_HWC.swapaxes(0, 1)
        rows = slice(None, None, -1 if self.is_flipped_down else 1)
        columns = slice(None, None, -1 if self.is_flipped_across else 1)
        return np.ascontiguousarray(frame_HWC[rows, columns])


UPRIGHT = Orientation()


def orientation(matrix_33: np.ndarray) -> Orientation:
    """A file's display matrix (3, 3), in any unit -> the nearest of the eight orientations.

    Its first two rows are where a step to the right and a step down in the stored frame lead on the screen, so
    screen x = a * x + c * y and screen y = b * x + d * y. A matrix that leads nowhere leaves the frame as it is.
    """
    (a, b), (c, d) = matrix_33[:2, :2].astype(np.float64)
    straight = abs(a) + abs(d)
    crossed = abs(b) + abs(c)
    if straight == crossed == 0:
        return UPRIGHT
    if straight >= crossed:
        return Orientation(is_flipped_down=bool(d < 0), is_flipped_across=bool(a < 0))
    return Orientation(is_transposed=True, is_flipped_down=bool(b < 0), is_flipped_across=bool(c < 0))


def square_size(height: int, width: int, *, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Stored (height, width) and width / height of a pixel -> the size in square pixels, of which none is lost.

    >>> square_size(480, 720, pixel_aspect=Fraction(32, 27))  # 720 * 32 / 27 = 853.3
    (480, 853)
    """
    if not pixel_aspect or not MIN_ASPECT <= pixel_aspect <= MAX_ASPECT:
        return height, width
    if pixel_aspect > 1:
        return height, round(width * pixel_aspect)
    return round(height / pixel_aspect), width
