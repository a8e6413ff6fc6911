"""Common yardsticks: the same metrics for every loss, never the losses' own values."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lossary.advice.target import Target
from lossary.contract import LossError
from lossary.lab.heads import Head
from lossary.lab.need import need

Array = np.ndarray
BINS = 10


@dataclass(frozen=True, eq=False)
class View:
    """One replica's test part in common terms. What a loss's outputs cannot say is None."""

    truth: Any
    point: Any = None
    decision: Any = None
    score: Any = None
    probability: Any = None


@dataclass(frozen=True)
class Metric:
    """A named yardstick; ``compute`` returns None where it does not apply."""

    name: str
    higher_is_better: bool
    compute: Callable[[View], float | None]
    needs: str

    @property
    def sign(self) -> int:
        """+1 where more is better, -1 where less is."""
        return 1 if self.higher_is_better else -1

    def __call__(self, view: View) -> float:
        """The number; NaN where the loss's outputs cannot be judged by it."""
        given = getattr(view, self.needs)
        if given is None or not np.isfinite(given).all():
            return float("nan")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # undefined for a class that was never predicted: 0
            value = self.compute(view)
        return float("nan") if value is None else float(value)


def views(head: Head, outputs: torch.Tensor, truth: torch.Tensor) -> list[View]:
    """One View per replica from linear outputs (replicas, n, width) and truth (replicas, n)."""
    wanted = truth.numpy()
    if head.target.task in ("real", "count"):
        points = head.point(outputs)
        return [View(t, point=p) for t, p in zip(wanted, points, strict=True)]
    decisions, scores = head.decisions(outputs), head.scores(outputs)
    probabilities = head.probabilities(outputs)
    return [
        View(
            wanted[r],
            decision=decisions[r],
            score=_yes(scores[r], head.target),
            probability=None if probabilities is None else _yes(probabilities[r], head.target),
        )
        for r in range(len(wanted))
    ]


def _yes(scores: Array, target: Target) -> Array:
    """For a binary target with one output per class: what speaks for yes."""
    if target.task != "binary" or scores.ndim == 1:
        return scores
    total = scores.sum(-1)
    return scores[:, 1] if np.allclose(total, 1) else scores[:, 1] - scores[:, 0]


def metrics_for(target: Target, extra: tuple[str, ...] = ()) -> dict[str, Metric]:
    """The yardsticks of the task, and further ones by name (``pinball loss at 0.9``)."""
    m = need("sklearn.metrics")
    found: dict[str, Metric] = {}

    def add(name: str, higher: bool, needs: str, compute: Callable[[View], float | None]) -> None:
        found[name] = Metric(name, higher, compute, needs)

    if target.task in ("real", "count"):
        add("RMSE", False, "point", lambda v: m.root_mean_squared_error(v.truth, v.point))
        add("MAE", False, "point", lambda v: m.mean_absolute_error(v.truth, v.point))
        add("median AE", False, "point", lambda v: m.median_absolute_error(v.truth, v.point))
        add("R2", True, "point", lambda v: m.r2_score(v.truth, v.point))
        add("|bias|", False, "point", lambda v: abs(float(np.mean(v.point - v.truth))))
        if target.task == "count":
            add("Poisson deviance", False, "point", _poisson_deviance)
        for name in extra:
            found[name] = _named(name)
        return found
    if target.task == "multi-label":
        add(
            "macro F1",
            True,
            "decision",
            lambda v: m.f1_score(v.truth, v.decision, average="macro", zero_division=0),
        )
        add(
            "micro F1",
            True,
            "decision",
            lambda v: m.f1_score(v.truth, v.decision, average="micro", zero_division=0),
        )
        add("exact match", True, "decision", lambda v: m.accuracy_score(v.truth, v.decision))
        add(
            "macro AP",
            True,
            "score",
            lambda v: m.average_precision_score(v.truth, v.score, average="macro"),
        )
        add("Brier", False, "probability", lambda v: np.mean((v.probability - v.truth) ** 2))
        return found
    add("accuracy", True, "decision", lambda v: m.accuracy_score(v.truth, v.decision))
    add(
        "balanced accuracy",
        True,
        "decision",
        lambda v: m.balanced_accuracy_score(v.truth, v.decision),
    )
    if target.task == "binary":
        add("F1", True, "decision", lambda v: m.f1_score(v.truth, v.decision, zero_division=0))
        add("ROC AUC", True, "score", lambda v: m.roc_auc_score(v.truth, v.score))
        add(
            "average precision",
            True,
            "score",
            lambda v: m.average_precision_score(v.truth, v.score),
        )
    else:
        add(
            "macro F1",
            True,
            "decision",
            lambda v: m.f1_score(v.truth, v.decision, average="macro", zero_division=0),
        )
    classes = range(len(target.labels))
    add(
        "log loss",
        False,
        "probability",
        lambda v: m.log_loss(v.truth, v.probability, labels=list(classes)),
    )
    add("Brier", False, "probability", _brier)
    add("calibration error", False, "probability", lambda v: calibration_error(*reliability(v)))
    for name in extra:
        found[name] = _named(name)
    return found


def default_metric(target: Target) -> str:
    """What ranks when the user names nothing."""
    if target.task in ("real", "count"):
        return "RMSE"
    if target.task == "multi-label":
        return "macro F1"
    return "balanced accuracy" if target.facts["commonest over rarest"] > 4 else "accuracy"


def find_metric(name: str, target: Target) -> Metric:
    """A metric by name, or a LossError that lists those of the task."""
    known = metrics_for(target)
    lower = {key.lower(): value for key, value in known.items()}
    if name.lower() in lower:
        return lower[name.lower()]
    try:
        return _named(name)
    except LossError:
        raise LossError(
            f"metric {name!r} is not known for a {target.task} target; it can be {', '.join(known)}"
        ) from None


def _named(name: str) -> Metric:
    pinball = re.fullmatch(r"pinball loss at (0?\.\d+)", name)
    if pinball:
        alpha = float(pinball[1])
        m = need("sklearn.metrics")
        return Metric(
            name, False, lambda v: m.mean_pinball_loss(v.truth, v.point, alpha=alpha), "point"
        )
    cost = re.fullmatch(r"mean cost (\[.*\])( by probability)?", name)
    if cost:
        matrix = np.array(json.loads(cost[1]), dtype=float)
        if cost[2]:
            return Metric(name, False, lambda v: _cost_by_probability(v, matrix), "probability")
        return Metric(name, False, lambda v: float(matrix[v.truth, v.decision].mean()), "decision")
    raise LossError(f"metric {name!r} is not known")


def _cost_by_probability(view: View, matrix: Array) -> float:
    """The mean cost of deciding, in each row, what costs least by the probabilities given.

    ``matrix`` holds costs[truth][decision] (Elkan 2001).
    """
    p = view.probability
    shares = np.stack([1 - p, p], axis=-1) if p.ndim == 1 else p
    return float(matrix[view.truth, (shares @ matrix).argmin(-1)].mean())


def _poisson_deviance(view: View) -> float | None:
    assert view.point is not None
    if (view.point <= 0).any():
        return None
    return float(need("sklearn.metrics").mean_poisson_deviance(view.truth, view.point))


def _brier(view: View) -> float:
    """Mean squared distance between the probabilities and what happened (0 to 2 for classes)."""
    p = view.probability
    assert p is not None
    if p.ndim == 1:
        return float(np.mean((p - view.truth) ** 2))
    hot = np.eye(p.shape[1])[view.truth]
    return float(np.mean(((p - hot) ** 2).sum(-1)))


def reliability(view: View) -> tuple[Array, Array, Array]:
    """Per bin of confidence: rows, mean confidence, share that was right (of yes for binary)."""
    p = view.probability
    assert p is not None
    if p.ndim == 1:
        confidence, right = p, view.truth == 1
    else:
        confidence, right = p.max(-1), p.argmax(-1) == view.truth
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = np.bincount(place, minlength=BINS).astype(float)
    safe = np.maximum(rows, 1)
    return (
        rows,
        np.bincount(place, confidence, BINS) / safe,
        np.bincount(place, right, BINS) / safe,
    )


def calibration_error(rows: Array, confidence: Array, right: Array) -> float:
    """Expected calibration error over equal-width bins (Guo et al. 2017)."""
    return float((rows * np.abs(confidence - right)).sum() / rows.sum())


def fast_score(metric: Metric, head: Head, truth: torch.Tensor) -> Callable[[torch.Tensor], Array]:
    """``metric``, higher is better, of outputs (replicas, n, width) as one number per replica."""
    wanted = truth.numpy()
    name = metric.name
    if name in ("RMSE", "MAE"):
        power = 2 if name == "RMSE" else 1

        def by_distance(outputs: torch.Tensor) -> Array:
            return -((np.abs(head.point(outputs) - wanted) ** power).mean(1) ** (1 / power))

        return by_distance
    if name == "accuracy" and head.target.task != "multi-label":
        return lambda outputs: np.where(
            torch.isfinite(outputs).flatten(1).all(1).numpy(),
            (head.decisions(outputs) == wanted).mean(1),
            np.nan,
        )
    if name == "balanced accuracy":
        hot = np.eye(len(head.target.labels))[wanted]
        rows = np.maximum(hot.sum(1), 1)
        return lambda outputs: (
            ((head.decisions(outputs) == wanted)[..., None] * hot).sum(1) / rows
        ).mean(1)
    return lambda outputs: metric.sign * np.array([metric(v) for v in views(head, outputs, truth)])


def table(metrics: Mapping[str, Metric], seen: list[View]) -> dict[str, list[float]]:
    """Every metric of every replica."""
    return {name: [metric(view) for view in seen] for name, metric in metrics.items()}


def selection_metric(metric: Metric, head: Head) -> Metric:
    """What chooses rate and epoch: the metric; where nothing is a probability, one of decisions."""
    if metric.needs == "probability" and not head.is_probability:
        several = head.target.task == "multi-label"
        return metrics_for(head.target)["macro F1" if several else "accuracy"]
    return metric


def rounded(value: Any, digits: int = 6) -> Any:
    """Nested numbers to so many significant digits, NaN and infinity as None, for JSON."""
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item, digits) for item in value]
    if isinstance(value, np.ndarray):
        return rounded(value.tolist(), digits)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{digits}g}") if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
