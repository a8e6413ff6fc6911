"""How much a loss's parameters matter: a small sweep around each default, flat or sharp."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from lossary.contract import Parameter
from lossary.evaluate import Loss
from lossary.lab.cell import Cell
from lossary.lab.metrics import Metric
from lossary.lab.objective import Minimised
from lossary.lab.statistics import differences
from lossary.lab.words import listed, number, settled

ALPHA = 0.05
SEEDS = 10


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


def sweep_cells(losses: dict[str, Minimised], seeds: tuple[int, ...]) -> list[Cell]:
    """One cell per loss, parameter and value; the terms of an objective stay as they are."""
    cells = []
    alone = {text: loss for text, loss in losses.items() if isinstance(loss, Loss)}
    for text, loss in alone.items():
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
    """Per loss and parameter: scores by value, each value against the best, and flat or sharp.

    All values share seeds, so splits, initial weights and batches; differences are paired by seed
    and corrected for their number, as between losses. Sharp: the best value beats another.
    """
    rows: dict[tuple[str, str], dict[float, np.ndarray]] = {}
    for cell in cells:
        if cell.purpose.startswith("sweep "):
            name, _, value = cell.purpose.removeprefix("sweep ").partition("=")
            scores = results[key(cell)]["best"][metric.name]
            rows.setdefault((cell.name, name), {})[float(value)] = np.array(scores, dtype=float)
    return [
        {"loss": loss, "parameter": name} | _judged(by_value, metric)
        for (loss, name), by_value in rows.items()
    ]


def _judged(by_value: dict[float, np.ndarray], metric: Metric) -> dict[str, Any]:
    means = {value: float(np.mean(scores)) for value, scores in by_value.items()}
    judged = [value for value, mean in means.items() if np.isfinite(mean)]
    plain = {
        "values": list(means),
        "scores": [mean if np.isfinite(mean) else None for mean in means.values()],
        "seeds": len(next(iter(by_value.values()))),
    }
    if not judged:
        return plain | {"best": None, "against the best": {}, "verdict": "not judged"}
    best = max(judged, key=lambda value: metric.sign * means[value])
    others = {str(value): by_value[value] for value in judged if value != best}
    found = differences(others | {"best": by_value[best]}, "best") if others else {}
    settle = partial(settled, scale=means[best])
    behind = {
        value: {
            "mean": settle(item.mean),
            "low": settle(item.low),
            "high": settle(item.high),
            "corrected": item.corrected,
        }
        for value, item in found.items()
    }
    sharp = any(item.corrected < ALPHA for item in found.values())
    return plain | {
        "best": best,
        "against the best": behind,
        "verdict": "sharp" if sharp else "flat",
    }


def in_words(metric: str, item: dict[str, Any]) -> str:
    """One sentence: the best value, and the one furthest behind with its interval."""
    name = item["parameter"]
    if item["best"] is None:
        return f"No value of {name} gave outputs that {metric} can judge."
    scores = dict(zip(item["values"], item["scores"], strict=True))
    scale = scores[item["best"]]
    said = f"Best at {name}={item['best']:g} ({metric} {number(scale, digits=4)})"
    failed = [f"{value:g}" for value, score in scores.items() if score is None]
    if failed:
        said += f"; not judged at {listed(failed)}"
    if not item["against the best"]:
        return f"{said}."
    worst, gap = max(item["against the best"].items(), key=lambda pair: abs(pair[1]["mean"]))
    away = f"{name}={float(worst):g} is {number(abs(gap['mean']), scale)} behind"
    ends = sorted(np.sign(gap["mean"] or 1) * gap[end] for end in ("low", "high"))
    if np.isfinite(ends).all():
        away += (
            f" (paired over {item['seeds']} seeds, 95 % interval {number(ends[0], scale)} to "
            f"{number(ends[1], scale)})"
        )
    reason = (
        "a difference was found to "
        + listed(
            [f"{float(v):g}" for v, g in item["against the best"].items() if g["corrected"] < ALPHA]
        )
        if item["verdict"] == "sharp"
        else "no difference found between the values"
    )
    return f"{said}; {away}: {reason}."
