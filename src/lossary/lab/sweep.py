"""How much a loss's parameters matter: a small sweep around each default, flat or sharp."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lossary.contract import Parameter
from lossary.evaluate import Loss
from lossary.lab.cell import Cell
from lossary.lab.metrics import Metric

SEEDS = 5


def values_around(parameter: Parameter, value: float) -> list[float]:
    """Up to five values of the parameter, its present one among them."""
    low, high = parameter.interval.low, parameter.interval.high
    if parameter.type is int:
        found = [max(1, value // 2), value, value * 2]
    elif math.isfinite(low) and math.isfinite(high):
        found = [low + share * (high - low) for share in (0.05, 0.1, 0.3, 0.6)] + [value]
    elif value:
        found = [value * factor for factor in (0.25, 0.5, 1, 2, 4)]
    else:
        found = [0.0, 0.1, 0.5, 1.0, 2.0]
    return sorted({float(f"{x:.4g}") for x in found if x in parameter.interval})


def tunable(loss: Loss) -> dict[str, Parameter]:
    """Parameters that are one number with an interval."""
    return {
        name: parameter
        for name, parameter in loss.contract.parameters.items()
        if parameter.interval is not None
        and parameter.type in (int, float)
        and name != "axis"
        and isinstance(loss.parameters[name], (int, float))
        and not isinstance(loss.parameters[name], bool)
    }


def sweep_cells(losses: dict[str, Loss], seeds: tuple[int, ...]) -> list[Cell]:
    """One cell per loss, parameter and value."""
    cells = []
    for text, loss in losses.items():
        for name, parameter in tunable(loss).items():
            for value in values_around(parameter, loss.parameters[name]):
                number = int(value) if parameter.type is int else value
                config = loss.config | {"parameters": dict(loss.parameters) | {name: number}}
                purpose = f"sweep {name}={value:g}"
                cells.append(Cell(text, config, seeds[:SEEDS], purpose=purpose))
    return cells


def sensitivity(
    cells: list[Cell], results: dict[str, dict[str, Any]], metric: Metric, key: Any
) -> list[dict[str, Any]]:
    """Per loss and parameter: scores by value, and flat or sharp.

    Sharp: the best value beats the worst by more than twice the spread over seeds.
    """
    rows: dict[tuple[str, str], dict[float, list[float]]] = {}
    for cell in cells:
        if cell.purpose.startswith("sweep "):
            name, _, value = cell.purpose.removeprefix("sweep ").partition("=")
            scores = [np.nan if x is None else x for x in results[key(cell)]["best"][metric.name]]
            rows.setdefault((cell.name, name), {})[float(value)] = scores
    account = []
    for (loss, name), by_value in rows.items():
        means = {value: float(np.mean(scores)) for value, scores in by_value.items()}
        spread = float(np.nanmean([np.std(scores) for scores in by_value.values()]))
        reach = float(np.nanmax(list(means.values())) - np.nanmin(list(means.values())))
        account.append(
            {
                "loss": loss,
                "parameter": name,
                "values": list(means),
                "scores": [None if np.isnan(m) else m for m in means.values()],
                "spread over seeds": spread,
                "verdict": "sharp" if reach > 2 * spread else "flat",
            }
        )
    return account
