"""What all commands share: the app they are registered with, exit codes, lines on stderr, errors without tracebacks."""

import functools
import io
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand
from typer.exceptions import TyperException

import avcap
from avcap import v0_1
from avcap.errors import UserError, visible
from avcap.files.write import is_full

EXIT_SOME_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130

LARGEST_NUMBER = 1e9
"""No option means anything beyond: a deadline of 30 years is a typing error."""
LONGEST_LINE, LONGEST_NAME = 2000, 120
"""Characters of a message, and of a file's name in it."""


class Command(TyperCommand):
    """A command that refuses, before it does anything, what no option of any command can mean."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for before, word in zip(["", *args], args, strict=False):
            is_empty = not word or (word.startswith("--") and word.endswith("="))
            if is_empty and before != "--prompt":  # of an empty prompt there is more to say
                raise UserError(f"got {word!r} on the command line, expected a value; leave the option out instead")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        for name, value in ctx.params.items():
            for one in value if isinstance(value, list | tuple) else (value,):
                if isinstance(one, int | float) and not abs(one) <= (most := _largest(one)):
                    option = f"--{name.replace('_', '-')}"
                    raise UserError(f"got {option} {str(one)[:30]}, expected a finite number of at most {most:g}")
        return super().invoke(ctx)


class PrivateCommand(Command):
    """A command whose files hold replies and captions: nobody but their owner may read them."""

    def invoke(self, ctx: Any) -> Any:
        before = os.umask(0o077)
        try:
            return super().invoke(ctx)
        finally:
            os.umask(before)


def _largest(number: float) -> float:
    return LARGEST_NUMBER if isinstance(number, float) else 2**62  # seeds may be large


class App(typer.Typer):
    """A command line all of whose commands are of that kind."""

    def command(self, name: str | None = None, **settings: Any) -> Any:
        return super().command(name, **{"cls": Command, **settings})


class Stopped(BaseException):
    """Another process wants this one to end; not an Exception, so that nothing takes it for a failure of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


app = App(
    help="Detailed audio-visual captions of videos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

stderr = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)


def main() -> None:
    """Runs the command line. Exit codes: 0 all well, 1 some files failed, 2 bad input, 128 + a signal that ended it."""
    _end_by_exceptions()
    logger = logging.getLogger("avcap")
    logger.addHandler(_LINES)
    logger.setLevel(logging.INFO)
    _silence_libraries()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        code = command_line()(args=v0_1.command_line(sys.argv[1:]), prog_name="avcap", standalone_mode=False)
    except UserError as error:
        say(str(error))
        code = EXIT_BAD_INPUT
    except TyperException as error:
        say(_describe_usage_error(error))
        code = EXIT_BAD_INPUT
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except Stopped as stopped:
        say(f"stopped by {signal.Signals(stopped.number).name}; with --out, the same command goes on from here")
        code = 128 + stopped.number
    except OSError as error:
        if is_full(error):
            say(_describe_failure(error))
            code = EXIT_SOME_FAILED
        elif error.filename is None:
            raise
        else:
            say(f"{_short(error.filename)}: cannot be used ({error.strerror}); name another file or folder")
            code = EXIT_BAD_INPUT
    except Exception as error:
        if not (failure := _describe_failure(error)):
            raise
        say(failure)
        code = EXIT_SOME_FAILED
    if code == EXIT_INTERRUPTED:
        say("interrupted; with --out, the same command goes on from here")
    sys.exit(code or 0)


@functools.cache
def command_line() -> Any:
    """-> all commands as one that can be called; put together once, for whoever calls `main` more than once."""
    return typer.main.get_command(app)


def _silence_libraries() -> None:
    """Keeps warnings of libraries from the user, who can do nothing about them; python -W and TRANSFORMERS_VERBOSITY
    bring them back. Our tests make deprecations errors (pyproject.toml), so that they reach us."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read when transformers is imported


def _describe_failure(error: Exception) -> str:
    """What broke in the middle of work, through nobody's fault -> one line; "" for all else, which is a bug.

    What is on disk is whole then, and the same command goes on from it. Safetensors has an error of its own for a full
    disk, told by its text alone.
    """
    if isinstance(error, FloatingPointError):
        return str(error)
    if is_full(error):
        file = getattr(error, "filename", None)
        return f"{file or 'writing'}: no room left on the disk; free some, and the same command goes on from here"
    return ""


def _end_by_exceptions() -> None:
    """SIGTERM and SIGHUP end the program as Ctrl-C does: what is open is closed, and what is temporary removed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored, and is right
            signal.signal(number, stop)


def _short(name: object) -> str:
    text = os.fsdecode(name) if isinstance(name, str | bytes | Path) else str(name)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}... ({len(text):,} characters)"


def say(message: str) -> None:
    """A message -> one line on stderr, with nothing in it that steers a terminal."""
    line = visible(" ".join(message.split()))
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 4 :]}"
    stderr.print(f"avcap: {line}")


def tell(text: object = "", *, end: str = "\n") -> None:
    """Text -> stdout, with nothing in it that steers a terminal. All that commands print goes through here."""
    print(visible(str(text)), end=end, flush=True)


def _describe_usage_error(error: TyperException) -> str:
    """A wrong command line -> what was got, what was wanted, and where to look, in one line."""
    names = [name for name in getattr(getattr(error, "param", None), "opts", []) if name in sys.argv]
    got = f", got {' '.join(sys.argv[sys.argv.index(names[0]) :][:2])!r}" if names else ""
    context = getattr(error, "ctx", None)
    return f"{error.format_message().rstrip('.')}{got}; see {context.command_path if context else 'avcap'} --help"


class _Lines(logging.Handler):
    """Makes the package's warnings lines on stderr like all other messages, also above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


_LINES = _Lines()  # one, so that a process that calls `main` again says everything once


def _print_version(is_expected: bool) -> None:
    if is_expected:
        print(f"avcap {avcap.__version__}")
        raise typer.Exit


@app.callback()
def _common_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass
