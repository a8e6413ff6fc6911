"""``lossary doctor`` and ``lossary explain``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from lossary.cli import app
from lossary.contract import LossError


@app.command(rich_help_panel="Doctor")
def doctor(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="PREDICTIONS [TARGETS]",
            help=(
                "Two files (.npy .npz .csv .parquet .safetensors), or .npz files that each hold a "
                "whole case."
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
        str | None, typer.Option(help="A file that is true where a value counts.")
    ] = None,
    ignored_label: Annotated[
        int | None, typer.Option(help="The label that marks positions to skip.")
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

    Exit code: 0 clean or notes only, 1 findings, 2 cannot run.
    """
    from lossary.doctor import diagnose
    from lossary.doctor.case import Case
    from lossary.doctor.files import load_case, read

    given: dict[str, Any] = {
        "loss": loss,
        "predictions": predictions,
        "ignore": ignored_label,
        "axis": axis,
        "batch_size": batch_size,
        "parameters": _parameters(parameter or []),
    }
    for name, path in (("weights", weights), ("class_weights", class_weights), ("mask", mask)):
        if path is not None:
            given[name] = next(iter(read(path).values()))
    options = {
        key: value
        for key, value in given.items()
        if value not in (None, {})
        if not _is_empty(value)
    }
    code = 0
    reports = []
    whole = [file for file in files if file.endswith(".npz")]
    pairs = (
        [(file, None) for file in files]
        if len(whole) == len(files) and len(files) != 2
        else [tuple(files)]
    )
    if len(files) == 2 and len(whole) == 2 and _holds_case(files[0]):
        pairs = [(file, None) for file in files]
    for pair in pairs:
        if len(pair) not in (1, 2):
            raise LossError(
                f"got {len(pair)} files; give predictions and targets, or .npz files that each "
                "hold a case"
            )
        case = load_case(pair[0], pair[1] if len(pair) == 2 else None)
        report = diagnose(Case.of(**(case | options)), ignore or ())
        code = max(code, report.exit_code)
        reports.append((pair[0], report))
    if as_json:
        found = [json.loads(report.to_json()) for _, report in reports]
        typer.echo(
            json.dumps(
                found[0]
                if len(found) == 1
                else {name: item for (name, _), item in zip(reports, found, strict=True)},
                indent=2,
            )
        )
    else:
        for name, report in reports:
            if len(reports) > 1:
                typer.echo(f"== {name}\n")
            typer.echo(str(report) + "\n")
            if verbose:
                for check, reason in report.not_applicable.items():
                    typer.echo(f"  not asked  {check}: {reason}")
    raise typer.Exit(code)


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict) and not value


def _holds_case(path: str) -> bool:
    from lossary.doctor.files import read

    return len(read(path)) > 1


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
    from lossary.doctor.registry import check_of, search

    if not check:
        for item in all_checks().values():
            typer.echo(f"{item.name:28} {item.severity:8} {item.summary}")
        return
    phrase = " ".join(check)
    chosen = check_of(phrase)
    typer.echo(as_text(chosen))
    others = [item.name for item in search(phrase) if item is not chosen][:4]
    if others:
        typer.echo(f"\nSee also: {', '.join(others)}")
