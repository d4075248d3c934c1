"""How long one file may take, from opening it to its features."""

import time
from collections.abc import Callable

from avcap.errors import MediaError

Check = Callable[[], None]


def no_check() -> None:
    """Lets everything take its time."""


def deadline_check(path: str, *, seconds: float, spent_s: float) -> Check:
    """File, what it may take and what decoding has taken of it -> what is to be called between pieces of the rest.

    It raises MediaError once the time is over.
    """
    end = time.monotonic() + seconds - spent_s

    def check() -> None:
        if time.monotonic() > end:
            raise MediaError(
                f"{path}: got no features after {seconds:g} s of decoding and encoding, so it was stopped; ask for a "
                "shorter interval or give it a longer deadline_s (--deadline)"
            )

    return check
