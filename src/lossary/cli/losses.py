"""``lossary list``, ``show`` and ``plot``."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import typer

from lossary.cli import app, say
from lossary.contract import LossError, contract_of, contracts
from lossary.evaluate import Loss


@app.command("list")
def list_losses(
    family: str = typer.Option("", help="Only this family."),
    as_json: bool = typer.Option(False, "--json", help="JSON on stdout."),
) -> None:
    """List every loss: name, family, what it is."""
    chosen = [contract for contract in contracts() if family in ("", contract.family)]
    if as_json:
        rows = [
            {
                "name": contract.name,
                "family": contract.family,
                "aliases": [alias.name for alias in contract.aliases],
                "summary": contract.summary,
            }
            for contract in chosen
        ]
        print(json.dumps(rows, indent=2))
        return
    width = max((len(contract.name) for contract in chosen), default=0)
    for contract in chosen:
        say(f"{contract.name:<{width}}  {contract.summary.replace('``', '')}", width + 2)


@app.command()
def show(
    name: str = typer.Argument(help="Any name of a loss."),
    as_json: bool = typer.Option(False, "--json", help="JSON on stdout."),
) -> None:
    """Show the page of one loss: formula, when to use it, head, parameters, properties."""
    from lossary.show import facts, page

    contract = contract_of(name)
    print(json.dumps(facts(contract), indent=2) if as_json else page(contract))


@app.command()
def plot(
    names: list[str] = typer.Argument(help="Losses, with parameters after a colon: huber:delta=2"),
    output: Path = typer.Option(..., "--output", "-o", help="PNG, SVG or PDF."),
) -> None:
    """Draw value and slope of losses as a picture."""
    from lossary.show import plot as draw

    draw([parse_loss(name) for name in names], output)
    print(output)


def parse_loss(text: str) -> Loss:
    """``huber:delta=2,reduction="sum"`` as a Loss: settings are literals, never evaluated."""
    name, _, settings = text.partition(":")
    try:
        call = ast.parse(f"loss({settings})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise SyntaxError
        given = {str(item.arg): ast.literal_eval(item.value) for item in call.keywords}
    except (SyntaxError, ValueError):
        raise LossError(
            f"{name}: {settings!r} are no settings; write {name}:delta=2 or "
            f"{name}:class_counts=(10,1),axis=0"
        ) from None
    return Loss(name, **given)
