"""`--ray`: where captions are made by the actors of Ray Data, and how each of them opens its model."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avcap.bulk.ray_data import RayOptions, ray_rows
from avcap.bulk.workers import Ask, Captions, Opening
from avcap.captioners import Source
from avcap.cli.engines import EngineFlags, findings_folder, key_of
from avcap.errors import UserError
from avcap.llm.budget import PRICES, read_prices

if TYPE_CHECKING:
    from avcap.bulk.folder import Stream
    from avcap.data.request import Request
    from avcap.engines.engine import EngineOptions

PANEL = "On many processes or machines (pip install 'avcap[ray]')"
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Caption in actors of Ray: local starts it here, auto joins the one that runs, or a cluster's address.",
        rich_help_panel=PANEL,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", help="Number of actors; one a GPU, or one for four CPUs.", rich_help_panel=PANEL
    ),
]


def ray_options(address: str | None, workers: int | None, *, flags: EngineFlags, batch_size: int) -> RayOptions | None:
    """--ray and --workers -> where Ray runs; None: captions are made in this process."""
    if address is None:
        if workers is not None:
            raise UserError(f"got --workers {workers} without --ray, whose actors they are; add --ray local")
        return None
    if flags.budget is not None:
        raise UserError(
            "got --ray and --budget, which one process counts; caption shards (--shard) with a budget each, or leave "
            "it out"
        )
    return RayOptions(address=address, num_workers=workers, batch_size=max(32, 4 * batch_size))


def ray_stream(
    options: RayOptions,
    *,
    model: str,
    source: Source,
    request: "Request",
    ask: Ask,
    flags: EngineFlags,
    deadline_s: float,
    weights: Mapping[str, Any],
) -> "Stream":
    """The command line -> what captions videos by Ray."""
    opening = Opening(
        model=model if source.folder is None or not Path(model).is_dir() else str(Path(model).resolve()),
        weights=weights if source.engine is None else {},
        engine=_engine_options(source, flags),
        cache=flags.cache,
        deadline_s=deadline_s,
    )
    make = partial(Captions, request=request, opening=opening, ask=ask)
    return lambda videos: ray_rows(videos, request, make=make, source=source, options=options)


def _engine_options(source: Source, flags: EngineFlags) -> "EngineOptions | None":
    if source.engine is None:
        return None
    from avcap.engines.engine import EngineOptions

    return EngineOptions(
        key=key_of(source.engine),
        concurrency=flags.concurrency,
        timeout_s=flags.timeout_s,
        prices=PRICES if flags.prices is None else read_prices(flags.prices),
        findings=findings_folder(),
        allow_dropped_audio=flags.allow_dropped_audio,
    )
