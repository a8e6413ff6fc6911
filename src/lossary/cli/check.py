"""``lossary check``: the battery that proves our losses, on yours."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from lossary.cli import app, say
from lossary.contract import LossError


@app.command()
def check(
    loss: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="The loss to check.")],
    oracle: Annotated[
        str,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Its formula in mpmath; without one the float64 result is the reference.",
        ),
    ] = "",
    library: Annotated[
        str,
        typer.Option(
            help="Array libraries, separated by commas; by default those that it runs on.",
            show_default=False,
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Check a loss of your own: values, gradients, properties, laws, limits, libraries, objects.

    Exit code 0: it passed every check; 1: it did not; 2: it could not be checked.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from lossary.testing import library_of
    from lossary.testing.users import prepare

    function = load(loss)
    names = [name.strip() for name in library.split(",")] if library else _libraries()
    for name in names:
        library_of(name)
    formula = load(oracle) if oracle else None
    ready = prepare(function, loss.partition(":")[2], names, formula)
    if library and len(ready.libraries) < len(names):
        raise LossError(ready.notes[0].removesuffix("; it is not checked there"))
    for note in ready.notes:
        say(f"note: {note}", 6, aside=True)
    rows = list(_verdicts(ready.subject, ready.libraries))
    rows += _doctor_verdicts(ready.subject.contract.compute)
    failed = sum(row["verdict"] != "ok" for row in rows)
    if as_json:
        print(json.dumps({"loss": loss, "passed": not failed, "checks": rows}, indent=2))
    else:
        _print_table(rows)
        print(f"{len(rows) - failed} passed, {failed} failed")
    if failed:
        raise typer.Exit(1)


def load(reference: str) -> Callable[..., Any]:
    """The function that ``MODULE:FUNCTION`` names, the module found as pytest finds it."""
    module_name, colon, name = reference.partition(":")
    if not colon or not name:
        raise LossError(f"{reference}: expected MODULE:FUNCTION, such as my_losses:my_loss")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise LossError(
                f"{module_name}: it imports {error.name}, which is not installed"
            ) from None
        raise LossError(
            f"{module_name}: no module of this name here or among the installed ones"
        ) from None
    function = getattr(module, name, None)
    if not callable(function):
        raise LossError(f"{reference}: {module_name} has no function {name}")
    return function


def _libraries() -> list[str]:
    """NumPy, and what is installed and quick to load, or loaded by the loss's module already."""
    found = [name for name in ("torch",) if importlib.util.find_spec(name)]
    return ["numpy", *found, *(name for name in ("jax", "tensorflow") if name in sys.modules)]


def _verdicts(subject: Any, libraries: list[Any]) -> Iterator[dict[str, str]]:
    """One row for each check and library; checks that need no library run once, on NumPy."""
    from lossary.testing import CHECKS, CheckFailed, library_of

    numpy = library_of("numpy")
    for each in CHECKS:
        homes = [numpy] if each.scope == "once" else libraries
        for home in homes:
            if not each.applies(subject, home):
                continue
            verdict, message = "ok", ""
            try:
                each(subject, home)
            except CheckFailed as failure:
                verdict, message = "failed", str(failure)
            except Exception as fault:
                # The user's function itself broke down: that is a verdict, with its reason.
                verdict, message = "error", f"{type(fault).__name__}: {fault}"
            yield {
                "group": each.group,
                "check": each.name,
                "library": "" if each.scope == "once" else home.name,
                "verdict": verdict,
                "message": " ".join(message.split()),
            }


def _doctor_verdicts(function: Callable[..., Any]) -> list[dict[str, str]]:
    """What the doctor finds in the code itself; nothing where it has no data for such inputs."""
    from lossary.doctor.trial import has_data, verdicts

    if not has_data(function):
        return []
    return [
        {
            "group": "doctor",
            "check": name,
            "library": "",
            "verdict": "ok" if passed else "failed",
            "message": message,
        }
        for name, passed, message in verdicts(function)
    ]


def _print_table(rows: list[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("check", "library", "verdict", box=None)
    for row in rows:
        colour = "green" if row["verdict"] == "ok" else "red"
        table.add_row(row["check"], row["library"], f"[{colour}]{row['verdict']}[/]")
    Console(highlight=False, soft_wrap=True).print(table)
    for row in rows:
        if row["message"]:
            print()
            say(f"{row['check']} {row['library']}: {row['message']}", 4)
