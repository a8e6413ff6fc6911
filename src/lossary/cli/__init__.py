"""The command line: data goes to stdout, the rest to stderr; bad input ends with exit code 2."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import import_module
from typing import Any

import typer

from lossary.contract import LossError
from lossary.lines import folded

app = typer.Typer(
    name="lossary",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
USAGE: Any = typer.BadParameter.__base__  # click's UsageError, whether typer brings its own or not
COMMANDS = ("losses", "check", "lab", "doctor")


@app.callback()
def _commands() -> None:
    """Every loss, defined once; a doctor for yours; a lab that compares them on your data."""


def main() -> None:
    """The ``lossary`` command."""
    for name in COMMANDS:
        import_module(f"lossary.cli.{name}")
    try:
        code = app(standalone_mode=False)
    except LossError as error:
        fail(str(error))
    except USAGE as error:
        said = error.format_message()
        if not said:  # no arguments at all: the help has been shown
            sys.exit(2)
        command = error.ctx.command_path if error.ctx else "lossary"
        fail(f"{said.rstrip('.')}; {command} --help shows what can be given")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "lossary"):
            raise
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        extra = "check" if command == "check" else "lab"
        fail(f"{command} needs {missing}, which is not installed: pip install 'lossary[{extra}]'")
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted", code=130)
    except BrokenPipeError:  # the reader of a pipe has gone: not a fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def say(line: str, indent: int = 0, *, aside: bool = False) -> None:
    """A line of prose on stdout, or ``aside`` on stderr: folded on a terminal, else one line."""
    stream = sys.stderr if aside else sys.stdout
    width = columns(stream)
    if width:
        line = "\n".join(folded(line, other=" " * indent, width=max(width, indent + 30)))
    print(line, file=stream)


def columns(stream: Any) -> int:
    """The width of the terminal that ``stream`` is; 0 where it is none."""
    return shutil.get_terminal_size().columns if stream.isatty() else 0


def fail(message: str, code: int = 2) -> None:
    """One line on stderr, and the exit code."""
    say(f"lossary: {message}", aside=True)
    sys.exit(code)
