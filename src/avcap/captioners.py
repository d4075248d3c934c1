"""Opens whatever --model names as one Captioner: a tiny model, a folder, a model on the hub or behind an engine.

    found = find_source("openai:NAME@URL")      what it is, before anything heavy is loaded

No torch by itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from avcap.data.qa_files import VideoQuestion
from avcap.data.request import Prompts, Request, Video
from avcap.engines.spec import EngineSpec, is_engine, read_engine_spec
from avcap.errors import MediaError
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.infer.settings import checkpoint_name, read_settings
from avcap.records import Caption, CaptionError, Sample, Seen

if TYPE_CHECKING:
    from avcap.engines.captioner import EngineCaptioner
    from avcap.engines.engine import EngineOptions
    from avcap.infer.captioner import Captioner as LocalCaptioner
    from avcap.media.clip import Clip

    AnyCaptioner = LocalCaptioner | EngineCaptioner


class Written(Protocol):
    """What a model wrote; `finished`: it ended itself."""

    @property
    def text(self) -> str: ...
    @property
    def finished(self) -> bool: ...


class LookedAt(Protocol):
    """A clip that a model was shown, ready to be asked about."""

    @property
    def clip(self) -> "Clip": ...
    @property
    def seen(self) -> Seen: ...


class Answerer(Protocol):
    """Whatever is asked about clips; infer/question_answering.py and engines/answer.py say what each method does."""

    needs_lead_in: bool
    at_once: int
    """Clips to be asked about at a time."""

    @property
    def checkpoint(self) -> str: ...
    @property
    def prompts(self) -> Prompts: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def has_logprobs(self) -> bool: ...
    @property
    def knows_letters(self) -> bool: ...
    def count_unknown_words(self, text: str) -> int: ...
    def clips(self, samples: Sequence[Sample], request: Request) -> "Iterator[Clip | MediaError]": ...
    def look(self, clip: "Clip", *, sample: Sample, request: Request) -> Any: ...
    def reply(self, looked: Any, prompts: Sequence[str], *, max_new_tokens: int) -> Sequence[Written]: ...
    def letter_scores(self, looked: Any, questions: Sequence[VideoQuestion]) -> list[list[float]]: ...
    def text_scores(self, looked: Any, questions: Sequence[VideoQuestion]) -> list[list[float]]: ...


class Captioner(Protocol):
    """Whatever captions videos."""

    @property
    def checkpoint(self) -> str:
        """How records name it."""

    def stream(self, videos: Iterable[Video], request: Request) -> Iterator[Caption | CaptionError]:
        """Videos -> their rows, in order."""

    def sample(
        self, videos: Iterable[Video], request: Request, *, num_answers: int = 8
    ) -> Iterator[Caption | CaptionError]:
        """Videos -> `num_answers` captions of each, next to each other, or one CaptionError."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What --model names: one of `folder` and `engine`, and what has to be known before it is opened."""

    name: str
    """How captions call it."""
    prompts: Prompts
    max_new_tokens: int
    folder: Path | None = None
    engine: EngineSpec | None = None

    @property
    def weights(self) -> Path:
        """The checkpoint folder of a model that runs here, with its weights: of one on the hub they are fetched now."""
        assert self.folder is not None, "an engine has no folder"
        return find_checkpoint(self.folder)


def find_source(model: str | Path) -> Source:
    """--model -> what it names; of a model on the hub without its weights, yet. UserError if that is nothing."""
    if is_engine(model):
        from avcap.engines.captioner import ENGINE_PROMPTS, MAX_NEW_TOKENS

        spec = read_engine_spec(str(model))
        return Source(name=spec.name, prompts=ENGINE_PROMPTS, max_new_tokens=MAX_NEW_TOKENS, engine=spec)
    folder = find_checkpoint(model, weights=False)
    settings = read_settings(folder)
    return Source(
        name=checkpoint_name(folder, settings),
        prompts=settings.prompts,
        max_new_tokens=settings.max_new_tokens,
        folder=folder,
    )


def open_engine_captioner(
    spec: EngineSpec, options: "EngineOptions", *, deadline_s: float = 600.0, prompts: Prompts | None = None
) -> "EngineCaptioner":
    """An engine's name and what goes with it -> its captioner, to be closed; nothing is sent yet."""
    from avcap.engines.captioner import ENGINE_PROMPTS, EngineCaptioner
    from avcap.engines.engine import Engine

    return EngineCaptioner(Engine(spec, options), deadline_s=deadline_s, prompts=prompts or ENGINE_PROMPTS)


def open_answerer(captioner: "AnyCaptioner") -> Answerer:
    """A captioner -> what asks its model questions."""
    from avcap.engines.captioner import EngineCaptioner

    if isinstance(captioner, EngineCaptioner):
        from avcap.engines.answer import EngineAnswerer

        return EngineAnswerer(captioner)
    from avcap.infer.question_answering import Answerer as LocalAnswerer

    return LocalAnswerer(captioner)
