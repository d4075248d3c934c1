"""`--style` and `--language`: in which form captions are asked for, and checked."""

from typing import Annotated

import typer

from avcap.bulk.forms import SUBTITLES
from avcap.bulk.languages import LANGUAGES, read_language
from avcap.bulk.style import STYLES, Form, read_style
from avcap.errors import UserError

PANEL = "In a form"
StyleOption = Annotated[
    str | None,
    typer.Option(
        "--style",
        metavar="NAME",
        help=f"{', '.join(STYLES)}: a prompt, and rules that answers are checked by.",
        rich_help_panel=PANEL,
    ),
]
LanguageOption = Annotated[
    str | None,
    typer.Option("--language", metavar="CODE", help=f"{', '.join(LANGUAGES)}.", rich_help_panel=PANEL),
]


def form_of(
    style: str | None,
    language: str | None,
    *,
    formats: list[str],
    prompt: str | None,
    official: bool,
    use_audio: bool,
    follows_prompts: bool,
) -> Form | None:
    """The command line -> the form; None: captions are as the model writes them.

    Raises:
        UserError: no such style or language, or options that each say what is asked.
    """
    if style is None:
        if language is not None:
            raise UserError(f"got --language {language} without --style, whose prompt asks for it; add --style dense")
        return None
    if prompt is not None or official:
        other = "--official" if official else "--prompt"
        raise UserError(f"got --style {style} and {other}, which both say what is asked; leave one of them out")
    subtitles = [name for name in formats if name in SUBTITLES]
    if subtitles and style != "subtitles":
        raise UserError(
            f"got --style {style} and --format {subtitles[0]}, expected --style subtitles, or none, with subtitles"
        )
    if style == "subtitles" and not use_audio:
        raise UserError("got --style subtitles and --no-audio; leave one of them out")
    return Form(
        style=read_style(style),
        language=None if language is None else read_language(language),
        use_audio=use_audio,
        asks=follows_prompts,
    )
