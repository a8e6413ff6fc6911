"""``lossary list``, ``show`` and ``plot``."""

from __future__ import annotations

import json

import typer

from lossary.cli import app
from lossary.contract import contracts


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
        print(f"{contract.name:<{width}}  {contract.summary}")
