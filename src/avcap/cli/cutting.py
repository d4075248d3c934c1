"""How long files are cut up: the options of --split and --window, and what they become."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from avcap.bulk.cuts.cutter import Cutter, EverySeconds, check_seconds
from avcap.bulk.cuts.scenes import Scenes, check_detector
from avcap.bulk.forms import read_forms
from avcap.bulk.long.summary import Summarizer
from avcap.bulk.long.windowing import Windowing, default_overlap
from avcap.captioners import Source
from avcap.cli.engines import EngineFlags
from avcap.cli.folders import PANEL
from avcap.cli.judges import JudgeOptions, check_spec, open_language_model
from avcap.data.request import Prompts, Request
from avcap.errors import UserError
from avcap.infer.settings import read_settings
from avcap.records import Caption

AUTO = "auto"
SCENES = "scenes"
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="scenes|S",
        help="Cut files into clips.",
        rich_help_panel=PANEL,
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="S|auto",
        help="Caption longer files in windows of S seconds; auto: what the model sees at its full frame rate.",
        rich_help_panel=PANEL,
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        "--overlap", metavar="S", help="Overlap of two windows; a tenth of one if not given.", rich_help_panel=PANEL
    ),
]
Carry = Annotated[
    bool | None,
    typer.Option(
        "--carry/--no-carry",
        help="Tell each window the caption of the one before. Default: only models behind an engine.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Summary = Annotated[
    str | None,
    typer.Option(
        "--summary",
        metavar="openai:NAME@URL",
        help="Let this language model make one caption of those of the windows, which are stitched if not given.",
        rich_help_panel=PANEL,
    ),
]
Toc = Annotated[
    bool,
    typer.Option("--toc", help="Write FILE.toc.md: times, and what happens there.", rich_help_panel=PANEL),
]


@dataclass(frozen=True, kw_only=True)
class CuttingFlags:
    """What the command line says about long files."""

    split: str | None = None
    window: str | None = None
    overlap: float | None = None
    carry: bool | None = None
    summary: str | None = None
    toc: bool = False

    def __post_init__(self) -> None:
        if self.split is not None and self.window is not None:
            raise UserError(
                "got --split, which makes clips of their own, and --window, which makes one caption; leave one out"
            )
        given = {"--overlap": self.overlap, "--carry": self.carry, "--summary": self.summary}
        if self.window is None and (names := [name for name, value in given.items() if value is not None]):
            raise UserError(f"got {names[0]} without --window, of whose windows it is; add --window S")
        if self.toc and self.split is None and self.window is None:
            raise UserError("got --toc without --window or --split, whose times it has; add one of them")
        if self.summary is not None:
            if not self.summary.startswith(("openai:", "local:")):
                raise UserError(f"got --summary {self.summary}, expected openai:NAME@URL or local:PATH")
            check_spec(self.summary)

    def refuse_without_folder(self) -> None:
        """UserError for what only a folder has."""
        given = {"--split": self.split, "--window": self.window}
        if names := [name for name, value in given.items() if value is not None]:
            raise UserError(f"got {names[0]} without a folder to write to; add --out FOLDER/")

    def refuse_parts(self, request: Request, *, formats: Sequence[str], every: float | None) -> None:
        """UserError for a part of each file together with another way of taking parts; for subtitles of one text."""
        _, subtitles = read_forms(list(formats))
        if subtitles and self.window is not None:
            raise UserError("got --window and subtitles, which need a text for each interval; take --split, or --every")
        if subtitles and self.split is not None and every is not None:
            raise UserError("got --split and --every, which both say how long a subtitle lasts; leave one of them out")
        if request.interval_s is not None and (self.split is not None or self.window is not None):
            raise UserError("got --start or --end and --split or --window, which are of whole files; leave one out")

    def refuse_style(self, style: str | None) -> None:
        """UserError for a form of one answer, where a text is joined of many."""
        if style is not None and self.window is not None:
            raise UserError(
                f"got --style {style}, the form of one answer, and --window, which joins many; take --split, or leave "
                "one of them out"
            )

    def cutter(self) -> Cutter | None:
        """--split -> how files are cut. UserError for what is neither a word nor seconds, or without a detector."""
        if self.split is None:
            return None
        if self.split == SCENES:
            check_detector()
            return Scenes()
        every_s = _seconds("--split", self.split, words=SCENES)
        check_seconds("--split", every_s)
        return EverySeconds(every_s=every_s)

    def windowing(self, source: Source) -> Windowing | None:
        """--window and a model -> how long videos are captioned."""
        if self.window is None:
            return None
        window_s = made_for_s(source) if self.window == AUTO else _seconds("--window", self.window, words=AUTO)
        return Windowing(
            window_s=window_s,
            overlap_s=default_overlap(window_s) if self.overlap is None else self.overlap,
            carry=source.engine is not None if self.carry is None else self.carry,
            summary=(self.summary or "").partition("@")[0],
        )


def _seconds(option: str, text: str, *, words: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"got {option} {text}, expected {words} or a number of seconds") from None


def made_for_s(source: Source) -> float:
    """A model -> how many seconds it sees at its own frame rate: of a longer file it sees fewer frames a second."""
    if source.folder is not None:
        settings = read_settings(source.folder)
        return settings.max_frames / settings.fps
    from avcap.engines.plan import known_dialect

    assert source.engine is not None
    dialect, _ = known_dialect(source.engine, None)
    return dialect.max_frames / dialect.fps


@contextmanager
def opened_summarizer(cutting: CuttingFlags, flags: EngineFlags) -> Iterator[Summarizer | None]:
    """--summary -> the language model, closed behind it; None: it was not given."""
    if cutting.summary is None:
        yield None
        return
    options = JudgeOptions(
        spec=cutting.summary,
        cache=flags.cache,
        prices=flags.prices,
        budget=flags.budget,
        timeout_s=flags.timeout_s,
    )
    with open_language_model(options) as chat:
        yield Summarizer(chat=chat)


def is_of_a_clip(caption: Caption, *, prompts: Prompts) -> bool:
    """Whether a caption was asked for as one of --split is: as if the clip were a file of its own."""
    return caption.prompt in (prompts.global_caption, prompts.video_only, prompts.audio_only)
