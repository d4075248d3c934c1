"""Jobs of many clients -> batches for one model: whatever has come while the last batch was written makes the next.

One thread works; jobs of one batch are alike in all that a batch has in common (`group`). No torch.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Protocol

logger = logging.getLogger("avcap")


class Stopping(Exception):
    """The queue takes no more jobs, and works on none but the last batch."""


class Job(Protocol):
    """Something to be worked on."""

    is_given_up: bool
    """Whether nobody waits for it any more."""

    @property
    def group(self) -> Hashable:
        """What it has in common with all of its batch."""

    @property
    def rows(self) -> int:
        """Answers that are written to it."""

    def fail(self, error: BaseException) -> None:
        """Tells whoever waits that there will be no result."""


class BatchQueue:
    """Collects jobs and works on them in batches. `work` is called on the queue's own thread, and never raises."""

    def __init__(
        self,
        work: Callable[[list[Job]], None],
        *,
        batch_size: int,
        gather_s: float = 0.0,
        idle_s: float | None = None,
        when_idle: Callable[[], None] = lambda: None,
    ) -> None:
        """`gather_s`: how long a batch that is not full waits; `when_idle` is called after `idle_s` without a job."""
        self._work, self._when_idle = work, when_idle
        self._batch_size, self._gather_s, self._idle_s = batch_size, gather_s, idle_s
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Takes a job; it fails where the queue has been stopped."""
        with self._changed:
            if not self._is_stopped:
                self._jobs.append(job)
                self._changed.notify()
                return
        job.fail(Stopping())

    def stop(self) -> None:
        """Lets the batch in work come to its end, fails the others, and waits for the thread."""
        with self._changed:
            self._is_stopped = True
            left = list(self._jobs)
            self._jobs.clear()
            self._changed.notify()
        for job in left:
            job.fail(Stopping())
        self._thread.join()

    @property
    def num_waiting(self) -> int:
        return len(self._jobs)

    def _run(self) -> None:
        is_idle = False
        while True:
            with self._changed:
                timeout = None if is_idle else self._idle_s
                if not self._changed.wait_for(lambda: self._jobs or self._is_stopped, timeout):
                    is_idle = True
                if self._is_stopped and not self._jobs:
                    return
            if is_idle and not self._jobs:
                self._safely(self._when_idle)
                continue
            is_idle = False
            self._gather()
            if batch := self._take():
                self._safely(lambda: self._work(batch), batch=batch)

    def _gather(self) -> None:
        """Waits a moment for jobs to come beside the first, unless a batch is full."""
        end = time.monotonic() + self._gather_s
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_stopped or sum(job.rows for job in self._jobs) >= self._batch_size,
                max(0.0, end - time.monotonic()),
            )

    def _take(self) -> list[Job]:
        """-> the oldest job and those that are like it, as many as fit; jobs that were given up are dropped."""
        with self._changed:
            waiting = [job for job in self._jobs if not job.is_given_up]
            batch: list[Job] = []
            rows = 0
            for job in waiting:
                fits = not batch or (job.group == batch[0].group and rows + job.rows <= self._batch_size)
                if fits:
                    batch.append(job)
                    rows += job.rows
            taken = set(map(id, batch))
            self._jobs = deque(job for job in waiting if id(job) not in taken)
        return batch

    def _safely(self, run: Callable[[], None], *, batch: list[Job] | None = None) -> None:
        """Runs what must not end the thread: of a failure that nobody foresaw the jobs are told."""
        try:
            run()
        except BaseException as error:
            logger.debug("unforeseen", exc_info=True)
            for job in batch or ():
                job.fail(error)
