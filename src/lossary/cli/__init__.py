"""The command line: data goes to stdout, the rest to stderr; bad input ends with exit code 2."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import typer

from lossary.contract import LossError

app = typer.Typer(
    name="lossary",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
COMMANDS = ("losses", "check", "lab", "doctor")


@app.callback()
def _commands() -> None:
    """Every loss, defined once; a doctor for yours; a lab that compares them on your data."""


def main() -> None:
    """The ``lossary`` command."""
    for name in COMMANDS:
        import_module(f"lossary.cli.{name}")
    try:
        app()
    except LossError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except BrokenPipeError:  # the reader of a pipe has gone: not a fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def fail(message: str, code: int = 2) -> None:
    """One line on stderr, and the exit code."""
    print(f"lossary: {message}", file=sys.stderr)
    sys.exit(code)
