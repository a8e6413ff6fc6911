"""``lossary doctor`` and ``lossary explain``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lossary.cli import app, say
from lossary.contract import LossError

if TYPE_CHECKING:
    from lossary.doctor.report import Report


@app.command(rich_help_panel="Doctor")
def doctor(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="PREDICTIONS [TARGETS]",
            help=(
                "Two files (.npy .npz .csv .parquet .safetensors); or one whose arrays or columns "
                "are named prediction and target; or several .npz files of that kind."
            ),
        ),
    ],
    loss: Annotated[
        str | None, typer.Option(help="The loss in use, by any name of the field.")
    ] = None,
    predictions: Annotated[
        str | None, typer.Option(help="How predictions arrive: logits, probabilities ...")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of the loss: delta=2.0")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="A file of sample weights.")] = None,
    class_weights: Annotated[str | None, typer.Option(help="A file of class weights.")] = None,
    mask: Annotated[
        str | None, typer.Option(help="A file that is true (or 1) where a value counts.")
    ] = None,
    ignored_label: Annotated[
        int | None, typer.Option(help="The label that marks positions to skip: 255, -100 ...")
    ] = None,
    axis: Annotated[int | None, typer.Option(help="The axis of the classes.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per training batch.")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="A check to leave out; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
    verbose: Annotated[
        bool, typer.Option(help="Also say which checks did not apply, and why.")
    ] = False,
) -> None:
    """Find what is wrong with a loss, from saved predictions and targets.

    Try it: lossary doctor predictions.npy targets.npy --loss cross_entropy

    Exit code: 0 clean or notes only, 1 findings, 2 cannot run.
    """
    from lossary.doctor.files import is_case, read_one

    given: dict[str, Any] = {
        "loss": loss,
        "predictions": predictions,
        "ignore": ignored_label,
        "axis": axis,
        "batch_size": batch_size,
        "parameters": _parameters(parameter or []) or None,
    }
    for name, path in (("weights", weights), ("class_weights", class_weights), ("mask", mask)):
        if path is not None:
            given[name] = read_one(path, name)
    options = {name: value for name, value in given.items() if value is not None}
    pair = len(files) == 2 and not all(map(is_case, files))
    if len(files) > 2 and not all(file.endswith(".npz") for file in files):
        raise LossError(
            f"got {len(files)} files; give predictions and targets, or .npz files that each hold a "
            "case"
        )
    reports: dict[str, Report | LossError] = {}
    for file in files[:1] if pair else files:
        try:
            reports[file] = _examined(file, files[1] if pair else None, options, ignore or ())
        except LossError as error:
            if len(files) == 1 or pair:
                raise
            reports[file] = error  # the other files are read all the same
    if as_json:
        told = {name: _as_json(item) for name, item in reports.items()}
        typer.echo(json.dumps(told if len(told) > 1 else told[files[0]], indent=2))
    for name, item in reports.items():
        if isinstance(item, LossError):
            say(f"lossary: {item}", aside=True)
        elif not as_json:
            typer.echo(f"== {name}\n" if len(reports) > 1 else "", nl=len(reports) > 1)
            typer.echo(item.text(verbose=verbose) + "\n")
            if item.not_applicable and not verbose:
                count = len(item.not_applicable)
                typer.echo(f"Not asked: {count} checks; --verbose tells what each needs.\n")
    raise typer.Exit(
        max(2 if isinstance(item, LossError) else item.exit_code for item in reports.values())
    )


def _examined(
    predictions: str, targets: str | None, options: dict[str, Any], ignored: Sequence[str]
) -> Report:
    from lossary.doctor import diagnose
    from lossary.doctor.case import Case
    from lossary.doctor.files import load_case

    return diagnose(Case.of(**(load_case(predictions, targets) | options)), ignored)


def _as_json(item: Report | LossError) -> Any:
    return {"error": str(item)} if isinstance(item, LossError) else json.loads(item.to_json())


def _parameters(pairs: list[str]) -> dict[str, Any]:
    """``delta=2.0`` as a parameter: numbers, true and false, else text. Nothing is evaluated."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise LossError(f"--set {pair}: expected name=value")
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text
    return found


@app.command(rich_help_panel="Doctor")
def explain(
    check: Annotated[
        list[str] | None, typer.Argument(help="A check, or what you would type into a search box.")
    ] = None,
) -> None:
    """Explain a check: symptom, cause and fix; also by symptom: lossary explain loss is nan."""
    from lossary.doctor import all_checks
    from lossary.doctor.pages import as_text
    from lossary.doctor.registry import search

    if not check:
        for item in all_checks().values():
            say(f"{item.name:28} {item.severity:8} {item.summary}", 38)
        return
    phrase = " ".join(check)
    found = search(phrase)
    if not found:
        raise LossError(f"{phrase!r}: no check and no symptom like it; `lossary explain` lists all")
    typer.echo(as_text(found[0]))
    if found[1:]:
        typer.echo("\nSee also:")
    for item in found[1:5]:
        say(f"  {item.name}: {item.summary}", 4)
