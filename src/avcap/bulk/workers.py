"""Captions as one function of a batch, for engines that spread batches over processes and machines. No torch by itself.

    Dataset.map_batches(Captions, fn_constructor_kwargs={"model": "tiny"}, compute=ActorPoolStrategy(size=2))

In: a batch of paths. Out: a batch of our records, one for each path. A file that cannot be captioned is a row that says
why: whatever is wrong with one file, the process goes on with the next.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from avcap.captioners import Captioner, Source, find_source, open_engine_captioner
from avcap.data.request import Request, Video
from avcap.errors import RunError
from avcap.infer.caption_file import Row
from avcap.llm.cache import ReplyCache
from avcap.records import Caption, CaptionError, Decoding, Sample, from_json, to_json

if TYPE_CHECKING:
    from avcap.engines.engine import EngineOptions

Batch = Mapping[str, Sequence[Any]]


class Streamer(Protocol):
    """What captions one video after the other: any captioner, or actors that have one each."""

    def stream(self, videos: Iterable[Video], request: Request) -> Iterator[Row]:
        """Videos -> a row for each."""


Ask = Callable[[Streamer, Iterable[Sample], Request], Iterator[Row]]


def ask_once(captioner: Streamer, samples: Iterable[Sample], request: Request) -> Iterator[Row]:
    """Samples -> their rows, in order."""
    return captioner.stream(samples, request)


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a process opens its captioner; it is sent to every worker, the key of an engine with it."""

    model: str
    weights: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of `avcap.Captioner`, for a model that runs in the worker; a dtype by its name."""
    engine: "EngineOptions | None" = None
    """For a model behind an engine; without a cache and a budget, which are of one process."""
    cache: Path | None = None
    """File of an engine's replies, on the worker's own disk."""
    deadline_s: float = 600.0

    def open(self, source: Source) -> Captioner:
        """What `model` names -> its captioner, open until the process ends."""
        if source.engine is not None:
            from avcap.engines.engine import EngineOptions

            cache = None if self.cache is None else ReplyCache(self.cache)
            asked = replace(self.engine or EngineOptions(), cache=cache)
            return open_engine_captioner(source.engine, asked, deadline_s=self.deadline_s)
        import torch

        from avcap.infer.captioner import Captioner as LocalCaptioner

        dtype = self.weights.get("dtype")
        options = {**self.weights, "dtype": dtype and getattr(torch, dtype), "deadline_s": self.deadline_s}
        return LocalCaptioner(source.weights, **options)


class Captions:
    """Captions batches of files: the class that `Dataset.map_batches` takes, with one captioner in each actor."""

    def __init__(
        self,
        model: str = "tiny",
        *,
        request: Request | None = None,
        opening: Opening | None = None,
        ask: Ask = ask_once,
    ) -> None:
        """
        Args:
            model: What captions, as --model takes it.
            request: What is asked; None: the model's own prompt, greedily.
            opening: How the captioner is opened, where its defaults do not do; its model counts then.
            ask: How samples are asked about; `avcap.bulk.style` has another.

        Raises:
            UserError: `model` names nothing, or what it names cannot be opened.
        """
        opening = opening or Opening(model=model)
        source = find_source(opening.model)
        self.request = request or Request(decoding=Decoding(max_new_tokens=source.max_new_tokens))
        self._captioner, self._ask = opening.open(source), ask

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """A batch of files -> a batch of as many rows, in order.

        Args:
            batch: Column `path` with N paths, or column `sample` with N lines of JSON of `Sample`.

        Returns:
            Columns of N: `path`; `text` and `error`, one of which is empty; `record`, the Caption or CaptionError as a
            line of JSON (docs/data.md).

        Raises:
            RunError: No file would fare better: a model that cannot be run, an engine that is not there.
        """
        if "sample" in batch:
            samples = [from_json(str(line), Sample) for line in batch["sample"]]
        else:
            samples = [self.request.sample(str(path)) for path in batch["path"]]
        rows = self.rows(samples)
        return {
            "path": [as_utf8(row.video) for row in rows],
            "text": [as_utf8(row.text) if isinstance(row, Caption) else "" for row in rows],
            "error": [as_utf8(row.error) if isinstance(row, CaptionError) else "" for row in rows],
            "record": [as_utf8(to_json(row)) for row in rows],
        }

    def rows(self, samples: Sequence[Sample]) -> list[Row]:
        """Samples -> a row for each; if something unforeseen ends a batch, the rest is asked about one by one."""
        rows: list[Row] = []
        try:
            for row in self._ask(self._captioner, samples, self.request):
                rows.append(row)
        except RunError:
            raise
        except Exception as error:  # whatever it was: of one file it is a row, and the actor lives on
            left = samples[len(rows) :]
            if len(left) > 1:
                return rows + [row for sample in left for row in self.rows([sample])]
            rows += [_failed(sample, error) for sample in left]
        return rows


def _failed(sample: Sample, error: Exception) -> CaptionError:
    why = str(error) or type(error).__name__
    told = why if sample.video in why else f"{sample.video}: {type(error).__name__}: {why}"
    return CaptionError(sample_id=sample.sample_id, video=sample.video, error=told)


def as_utf8(text: str) -> str:
    """Text -> the same in UTF-8, which odd names of files are not: as JSON writes them."""
    return text.encode("utf-8", errors="backslashreplace").decode()
