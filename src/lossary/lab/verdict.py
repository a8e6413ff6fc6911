"""The verdict in words: what won, by how much, how sure, and what it rests on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lossary.lab.metrics import Metric
from lossary.lab.statistics import Difference, differences
from lossary.lab.words import listed, number, settled

ALPHA = 0.05


def judge(
    metric: Metric, scores: dict[str, np.ndarray], baselines: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Order by mean score (NaN last), every loss against the first, and the verdict's sentences."""
    mean = {name: float(np.mean(values)) for name, values in scores.items()}
    order = sorted(scores, key=lambda name: (np.isnan(mean[name]), -metric.sign * mean[name], name))
    judged = [name for name in order if np.isfinite(mean[name])]
    found: dict[str, Difference] = {}
    if len(judged) > 1:
        found = differences({name: scores[name] for name in judged}, judged[0])
        found = {name: _settled(item, mean[judged[0]]) for name, item in found.items()}
    equal = [name for name, item in found.items() if not item.corrected < ALPHA]
    return {
        "order": order,
        "reference": judged[0] if judged else None,
        "differences": {name: item.__dict__ for name, item in found.items()},
        "no difference found to": equal,
        "sentences": _sentences(metric, judged, found, equal, mean, baselines, scores),
    }


def _settled(item: Difference, scale: float) -> Difference:
    ends = {key: settled(getattr(item, key), scale) for key in ("mean", "low", "high")}
    return replace(item, **ends)


def _sentences(
    metric: Metric,
    judged: list[str],
    found: dict[str, Difference],
    equal: list[str],
    mean: dict[str, float],
    baselines: dict[str, np.ndarray],
    scores: dict[str, np.ndarray],
) -> list[str]:
    if not judged:
        return [f"No loss gave outputs that {metric.name} can judge."]
    first = judged[0]
    seeds = len(scores[first])
    reached = number(mean[first], digits=4)
    worse = [name for name in judged[1:] if name not in equal]
    if len(judged) == 1:
        said = [f"{first}: {metric.name} {reached} over {seeds} seeds; nothing to compare it with."]
    elif not worse:
        said = [
            f"No difference found in {metric.name} between {listed(judged)} "
            f"({first} has the best mean, {reached})."
        ]
    else:
        said = [f"{first} is best in {metric.name} ({reached}), better than {listed(worse)}."]
        if len(equal) > 1:
            said.append(f"No difference found between {first} and {listed(equal)}.")
    said += [
        _paired(metric, first, name, item, abs(mean[first])) for name, item in [*found.items()][:3]
    ]
    for name, values in baselines.items():
        if np.isfinite(values).all() and metric.sign * (mean[first] - values.mean()) <= 0:
            said.append(
                f"Warning: {name} reaches {number(values.mean(), digits=4)}: no loss learnt "
                f"anything that {metric.name} rewards."
            )
    if seeds < 10:
        said.append(f"{seeds} seeds show large differences only; --seeds 20 shows smaller ones.")
    return said


def _paired(metric: Metric, first: str, name: str, item: Difference, scale: float) -> str:
    """One difference to the best mean, in words."""
    gap, low, high = sorted_gap(item, metric.sign)
    if abs(gap) <= 1e-9 * scale and high - low <= 1e-9 * scale:
        return f"{first} and {name} reached the same {metric.name} with every seed."
    interval = f"95 % interval {number(low, scale)} to {number(high, scale)}"
    better = number(gap, scale)
    chance = f"({interval}, corrected p {_chance(item.corrected)})"
    if item.corrected < ALPHA:
        return f"{first} is {better} better than {name} in {metric.name} {chance}."
    return f"{first} against {name}: {better} better in the mean {chance}: no difference found."


def _chance(p: float) -> str:
    return "below 0.0001" if p < 1e-4 else number(p, digits=2)


def sorted_gap(item: Difference, sign: int) -> tuple[float, float, float]:
    """How much better the reference is: mean, low and high; positive is better."""
    ends = sorted((-sign * item.low, -sign * item.high))
    return -sign * item.mean, ends[0], ends[1]
