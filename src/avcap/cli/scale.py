"""`--ray`: where captions are made by the actors of Ray Data, and how each of them opens its model."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avcap.bulk.inputs.items import Item
from avcap.bulk.ray_data import RayOptions, ray_rows
from avcap.bulk.workers import Ask, Captions, Opening
from avcap.captioners import Source
from avcap.cli.engines import EngineFlags, findings_folder, key_of
from avcap.errors import UserError
from avcap.infer.caption_file import Row
from avcap.llm.budget import PRICES, read_prices

if TYPE_CHECKING:
    from avcap.data.request import Request, Video
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


class RayCaptioner:
    """A captioner whose work is done by actors of Ray, each with the model that the command line names."""

    def __init__(
        self,
        options: RayOptions,
        *,
        model: str,
        source: Source,
        ask: Ask,
        flags: EngineFlags,
        deadline_s: float,
        weights: Mapping[str, Any],
    ) -> None:
        self._options, self._source, self._ask = options, source, ask
        self._opening = Opening(
            model=model if source.folder is None or not Path(model).is_dir() else str(Path(model).resolve()),
            weights=weights if source.engine is None else {},
            engine=_engine_options(source, flags),
            cache=flags.cache,
            deadline_s=deadline_s,
        )

    def stream(self, videos: "Iterable[Video]", request: "Request") -> Iterator[Row]:
        """Videos -> a row for each, as they are finished."""
        make = partial(Captions, request=request, opening=self._opening, ask=self._ask)
        return ray_rows(list(videos), request, make=make, source=self._source, options=self._options)


def refuse_packed(items: Iterable[Item]) -> None:
    """UserError for members of shards and tables, which actors on other machines cannot open by a path."""
    packed = next((item for item in items if item.packed is not None), None)
    if packed is not None:
        raise UserError(
            f"{packed.video}: got a member of a shard with --ray, expected files that every machine can open; unpack "
            "it, or take --shard i/n instead of --ray"
        )


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
