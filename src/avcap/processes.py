"""What every pool of worker processes needs. Standard library only."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Ends this worker once the process that started it is gone: after a kill it would wait for work for ever.

    Give it to a pool as its `initializer`. Only for workers that may end at any moment: what they write is written
    aside and renamed.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in workers only"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
