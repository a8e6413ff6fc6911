"""The verdict in words: what won, by how much, how sure, and what it rests on."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.lab.metrics import Metric
from lossary.lab.statistics import Difference, differences

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
    equal = [name for name, item in found.items() if not item.corrected < ALPHA]
    return {
        "order": order,
        "reference": judged[0] if judged else None,
        "differences": {name: item.__dict__ for name, item in found.items()},
        "no difference found to": equal,
        "sentences": _sentences(metric, judged, found, equal, mean, baselines, scores),
    }


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
    said = []
    if len(judged) == 1:
        said.append(
            f"{first}: {metric.name} {mean[first]:.4g} over {seeds} seeds; nothing to compare "
            "it with."
        )
    elif len(equal) == len(judged) - 1:
        said.append(
            f"No difference found in {metric.name} between {_list(judged)} "
            f"({first} has the best mean, {mean[first]:.4g})."
        )
    else:
        worse = [name for name in judged[1:] if name not in equal]
        said.append(
            f"{first} is best in {metric.name} ({mean[first]:.4g}), better than {_list(worse)}."
        )
        if equal:
            said.append(f"No difference found between {first} and {_list(equal)}.")
    for name, item in list(found.items())[:3]:
        gap, low, high = sorted_gap(item, metric.sign)
        said.append(
            f"{first} is {gap:.3g} better than {name} in {metric.name} "
            f"(95 % interval {low:.3g} to {high:.3g}, corrected p {item.corrected:.2g})."
        )
    for name, values in baselines.items():
        if np.isfinite(values).all() and metric.sign * (mean[first] - values.mean()) <= 0:
            said.append(
                f"Warning: {name} reaches {values.mean():.4g}: no loss learnt anything that "
                f"{metric.name} rewards."
            )
    if seeds < 10:
        said.append(f"{seeds} seeds show large differences only; --seeds 20 shows smaller ones.")
    return said


def sorted_gap(item: Difference, sign: int) -> tuple[float, float, float]:
    """How much better the reference is: mean, low and high; positive is better."""
    ends = sorted((-sign * item.low, -sign * item.high))
    return 0.0 - sign * item.mean, 0.0 + ends[0], 0.0 + ends[1]


def _list(names: list[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    shown = names if len(names) <= 6 else [*names[:5], f"{len(names) - 5} others"]
    return ", ".join(shown[:-1]) + " and " + shown[-1]
