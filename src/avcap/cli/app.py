"""What all commands share: the app they are registered with, exit codes, lines on stderr, errors without tracebacks."""

import io
import logging
import os
import sys
import warnings
from typing import Annotated

import typer
from rich.console import Console
from typer.exceptions import TyperException

import avcap
from avcap.errors import UserError
from avcap.files.write import is_full

EXIT_SOME_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130

app = typer.Typer(
    help="Detailed audio-visual captions of videos.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip

stderr = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)


def main() -> None:
    """Runs the command line. Exit codes: 0 all well, 1 some files failed, 2 bad input, 130 interrupted."""
    logger = logging.getLogger("avcap")
    logger.addHandler(_Lines())
    logger.setLevel(logging.INFO)
    _silence_libraries()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        code = app(prog_name="avcap", standalone_mode=False)
    except UserError as error:
        say(str(error))
        code = EXIT_BAD_INPUT
    except TyperException as error:
        say(_describe_usage_error(error))
        code = EXIT_BAD_INPUT
    except Exception as error:
        if not (failure := _describe_failure(error)):
            raise
        say(failure)
        code = EXIT_SOME_FAILED
    if code == EXIT_INTERRUPTED:
        say("interrupted; with --out, the same command goes on from here")
    sys.exit(code or 0)


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


def say(message: str) -> None:
    """A message -> one line on stderr."""
    stderr.print(f"avcap: {' '.join(message.split())}")


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


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"avcap {avcap.__version__}")
        raise typer.Exit


@app.callback()
def _common_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass
