"""Captions by Ray Data: batches of samples to actors on one machine or many, rows back to the one process that keeps
the record. No torch by itself, and Ray only when it is started.

An actor that dies (a machine taken away, memory that ran out) is started again, and what it was at is given to it or to
another one; a batch that killed its actor several times becomes rows that say so. Rows come as they are finished.
"""

import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from avcap.bulk.workers import Batch, Captions, as_utf8
from avcap.captioners import Source
from avcap.data.request import Request, Video
from avcap.errors import RunError, UserError
from avcap.infer.caption_file import Row, read_row
from avcap.records import CaptionError, Sample, to_json

LOCAL = "local"
MOST_BATCHES = 10_000
"""More blocks than this cost Ray more than they save; batches of one block are lost together with their actor."""
BATCHES_PER_WORKER = 4
TRIES = 5
CONNECT_S = 10.0
CPUS_PER_WORKER = 4
"""An actor decodes in processes of its own."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where Ray runs, and what an actor of it takes."""

    address: str = LOCAL
    """ "local" starts Ray here; "auto" joins the one that runs; else the address of a cluster."""
    num_workers: int | None = None
    """None: one for each GPU if the model runs in the workers, else one for every four CPUs."""
    batch_size: int = 32
    """At most; of few files less, so that each worker has several."""

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise UserError(f"got --workers {self.num_workers}, expected at least 1")


class _Worker:
    """What runs in an actor: `Captions` that is opened by its first batch, and tells what ends the run as a row."""

    def __init__(self, make: Callable[[], Captions]) -> None:
        self._make = make
        self._captions: Captions | None = None

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        try:
            if self._captions is None:
                self._captions = self._make()
            records = self._captions(batch)["record"]
        except UserError as error:  # raised, it would cost every batch three tries
            return {"record": [""], "fatal": [as_utf8(str(error))]}
        return {"record": records, "fatal": [""] * len(records)}


def ray_rows(
    videos: Sequence[Video], request: Request, *, make: Callable[[], Captions], source: Source, options: RayOptions
) -> Iterator[Row]:
    """Videos -> a row for each, as they are finished.

    Args:
        videos: Paths or samples.
        request: What is asked.
        make: Makes the captions in an actor; it is pickled.
        source: What `make` opens: whether an actor needs a GPU.
        options: Where Ray runs.

    Raises:
        UserError: Ray is not installed, or does not start.
        RunError: What every file would meet, as `Captions` raises it.
    """
    ray = _started(options)
    samples = [request.sample(video) for video in videos]
    left = {sample.sample_id: sample for sample in samples}
    num_gpus = int(ray.cluster_resources().get("GPU", 0)) if source.engine is None else 0
    num_cpus = int(ray.cluster_resources().get("CPU", 1))
    size = options.num_workers or num_gpus or max(1, num_cpus // CPUS_PER_WORKER)
    # of few files each worker gets some
    batch_size = max(1, min(options.batch_size, -(-len(samples) // (BATCHES_PER_WORKER * size))))
    size = min(size, -(-len(samples) // batch_size))
    dataset = ray.data.from_items(
        [{"sample": as_utf8(to_json(sample))} for sample in samples],
        override_num_blocks=min(MOST_BATCHES, -(-len(samples) // batch_size)),
    )
    with warnings.catch_warnings():
        # Ray 2.64 will take the tries away; until then nothing else ends a batch that kills every actor
        warnings.simplefilter("ignore", DeprecationWarning)
        done = dataset.map_batches(
            _Worker,
            fn_constructor_args=(make,),
            batch_size=batch_size,
            # what waits at an actor that dies loses a try, too: little does
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
            num_gpus=1 if num_gpus else None,
            # here all workers have to find room at once; a cluster may grow, or let some of them wait
            num_cpus=None if num_gpus else min(1, num_cpus / size // 1e-4 * 1e-4) if options.address == LOCAL else 1,
            max_task_retries=TRIES - 1,
        )
    for found in done.iter_rows():
        if found["fatal"]:
            raise RunError(found["fatal"])
        row = read_row(found["record"], where="a row of Ray")
        if left.pop(row.sample_id, None) is not None:
            yield row
    yield from (_lost(sample) for sample in left.values())


def _lost(sample: Sample) -> CaptionError:
    why = f"{sample.video}: got no row: its worker died {TRIES} times; caption it alone, or try again (--retry-failed)"
    return CaptionError(sample_id=sample.sample_id, video=sample.video, error=why)


def _started(options: RayOptions) -> Any:
    """Options -> the module of Ray, which runs. UserError where it is not installed or does not start."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if options.address == LOCAL:  # it would warn of what is meant: actors that are started again
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("got --ray and no Ray, expected it installed: pip install 'avcap[ray]'") from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # what is missing in the end is told, row by row
    if ray.is_initialized():
        return ray
    _check_reachable(options.address)
    is_local = options.address == LOCAL
    fields: dict[str, Any] = {"include_dashboard": False} if is_local else {}
    try:
        ray.init(address=options.address, log_to_driver=False, logging_level="error", **fields)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"got --ray {options.address}, and Ray does not start ({' '.join(str(error).split())[:200]}); take --ray "
            "local, or start a cluster with `ray start --head`"
        ) from None
    return ray


def _check_reachable(address: str) -> None:
    """UserError where nobody listens at "HOST:PORT": Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"got --ray {address}, and nobody answers there ({error}), expected the head of a cluster; start one with "
            "`ray start --head`, or take --ray local"
        ) from None
