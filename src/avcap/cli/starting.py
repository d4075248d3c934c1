"""Ctrl-C while the commands are being loaded: one line, instead of a traceback of wherever Python just was.

Imported first; `loaded` gives Ctrl-C back to Python. Standard library only.
"""

import os
import signal
import threading
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"avcap: interrupted\n")
    os._exit(128 + number)  # nothing has been opened yet


_is_main = threading.current_thread() is threading.main_thread()  # no other thread may set handlers
_before = signal.signal(signal.SIGINT, _leave) if _is_main else None


def loaded() -> None:
    if _is_main:
        signal.signal(signal.SIGINT, _before)
