"""Jobs become batches: alike, as many as fit, oldest first; a failure is told to its batch alone."""

import threading
import time
from dataclasses import dataclass, field

from avcap.web.server.queue import BatchQueue, Stopping


@dataclass(eq=False)
class Errand:
    name: str
    group: str = "a"
    rows: int = 1
    is_given_up: bool = False
    errors: list[BaseException] = field(default_factory=list)

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)


class Worker:
    """Notes batches; the first waits until `go`, so that what comes meanwhile is a matter of no time."""

    def __init__(self, **options):
        self.batches, self.go, self.begun = [], threading.Event(), threading.Event()
        self.done = threading.Semaphore(0)
        self.queue = BatchQueue(self.work, **{"batch_size": 3, **options})
        self.queue.start()

    def work(self, batch):
        self.begun.set()
        assert self.go.wait(20)
        self.batches.append([job.name for job in batch])
        self.done.release()
        if batch[0].name == "bad":
            raise ValueError("bad")

    def run(self, *jobs):
        """The first job alone, and all others while it is worked on -> the batches."""
        self.queue.submit(jobs[0])
        assert self.begun.wait(20)
        for job in jobs[1:]:
            self.queue.submit(job)
        self.go.set()


def test_what_comes_meanwhile_is_the_next_batch():
    worker = Worker()
    worker.run(*map(Errand, ("first", "b", "c", "d", "e")))
    for _ in range(3):
        assert worker.done.acquire(timeout=20)
    assert worker.batches == [["first"], ["b", "c", "d"], ["e"]]
    worker.queue.stop()


def test_a_batch_is_alike_and_counts_answers():
    worker = Worker()
    jobs = [Errand("b", "x"), Errand("c", "y"), Errand("d", "x", rows=2), Errand("e", "x"), Errand("f", rows=9)]
    worker.run(Errand("first"), *jobs)
    for _ in range(5):
        assert worker.done.acquire(timeout=20)
    # d fits beside b (1 + 2 = 3), e does not; what is larger than a batch is worked on alone
    assert worker.batches == [["first"], ["b", "d"], ["c"], ["e"], ["f"]]
    worker.queue.stop()


def test_jobs_that_nobody_waits_for_are_dropped():
    worker = Worker()
    given_up = Errand("b", is_given_up=True)
    worker.run(Errand("first"), given_up, Errand("c"))
    for _ in range(2):
        assert worker.done.acquire(timeout=20)
    assert worker.batches == [["first"], ["c"]]
    worker.queue.stop()


def test_a_failure_is_told_to_its_jobs_and_the_next_are_worked_on():
    worker = Worker()
    bad, good = Errand("bad"), Errand("good", "other")
    worker.run(bad, good)
    for _ in range(2):
        assert worker.done.acquire(timeout=20)
    worker.queue.stop()
    assert [str(error) for error in bad.errors] == ["bad"] and not good.errors


def test_a_stop_ends_the_batch_in_work_and_fails_the_others():
    worker = Worker()
    first, later, late = Errand("first"), Errand("later"), Errand("late")
    worker.queue.submit(first)
    assert worker.begun.wait(20)
    worker.queue.submit(later)
    stopping = threading.Thread(target=worker.queue.stop)
    stopping.start()
    while not later.errors:
        time.sleep(0.001)
    worker.go.set()
    stopping.join(20)
    worker.queue.submit(late)
    assert worker.batches == [["first"]] and not first.errors
    assert [type(error) for error in (*later.errors, *late.errors)] == [Stopping, Stopping]


def test_an_idle_queue_says_so_once_and_works_again():
    idle = threading.Semaphore(0)
    worker = Worker(idle_s=0.05, when_idle=idle.release)
    assert idle.acquire(timeout=20)
    assert not idle.acquire(timeout=0.3)
    worker.run(Errand("a"))
    assert worker.done.acquire(timeout=20) and worker.batches == [["a"]]
    assert idle.acquire(timeout=20)
    worker.queue.stop()
