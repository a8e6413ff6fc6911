"""What each loss would do to a model whose predictions are at hand, without training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lossary.advice.target import Target
from lossary.contract import LossError
from lossary.lab import inspect
from lossary.lab.baseline import constants
from lossary.lab.choose import fitted_all
from lossary.lab.curves import curves
from lossary.lab.heads import Head
from lossary.lab.metrics import (
    default_metric,
    find_metric,
    metrics_for,
    rounded,
    table,
    views,
)
from lossary.lab.objective import Joint, Minimised, head_of, meaning, term_shares
from lossary.lab.run import versions
from lossary.lab.words import number


def judge_saved(
    target: Target, predictions: np.ndarray, losses: Sequence[str | Minimised]
) -> dict[str, Any]:
    """Metrics of saved predictions, and under each loss: value, gradient scale and shares, time.

    ``predictions``: numbers (n,) for quantities; the probability of yes (n,) for a binary target;
    probabilities (n, classes) in the order of the sorted labels for classes.
    """
    checked = check_predictions(target, predictions)
    rows = {}
    parsed = fitted_all(losses, target)
    for name, loss in parsed.items():
        head = head_of(loss, target)
        if len(head.units) > 1:
            needed = ", ".join(head.loss.contract.predictions)
            raise LossError(f"{name}: needs {needed}; one was saved")
        rows[name] = _row(loss, head, target, checked)
    first = head_of(parsed[next(iter(parsed))], target)
    seen = views(first, as_outputs(first, checked)[None], torch.from_numpy(target.values)[None])
    metrics = metrics_for(target)
    constant = constants(target, metrics)
    found = table(metrics, seen)
    account = {
        "target": target.name,
        "task": target.task,
        "rows": len(checked),
        "metrics": found,
        "constants": constant,
        "sentences": _sentences(target, found, constant, rows),
        "reliability": inspect.pooled_reliability(seen),
        "side_effects": inspect.side_effects(target, seen),
        "losses": rows,
        "versions": versions(),
    }
    shape = {name: {"margins": inspect.margins(first, seen)} for name in parsed}
    account["curves"] = curves(parsed, target, shape)
    return rounded(account)


def _sentences(
    target: Target,
    found: dict[str, list[float]],
    constant: dict[str, dict[str, list[float]]],
    rows: dict[str, dict[str, Any]],
) -> list[str]:
    """What stands out: predictions no better than a constant, and who would get the gradient."""
    metric = find_metric(default_metric(target), target)
    reached = found[metric.name][0]
    said = []
    for name, row in constant.items():
        other = row[metric.name][0]
        verb = "are better than" if metric.sign * (reached - other) > 0 else "do not beat"
        said.append(
            f"In {metric.name} the predictions ({number(reached, digits=4)}) {verb} "
            f"{name} ({number(other, digits=4)})."
        )
    shares = {name: row["top 1 %"] for name, row in rows.items()}
    most, least = max(shares, key=shares.__getitem__), min(shares, key=shares.__getitem__)
    if round(shares[most], 2) > round(shares[least], 2):
        said.append(
            f"The 1 % of rows pulled most would get {shares[most]:.0%} of the gradient under "
            f"{most}, {shares[least]:.0%} under {least}."
        )
    return said


def check_predictions(target: Target, predictions: np.ndarray) -> np.ndarray:
    """Predictions of the shape and range that the target needs, or a LossError."""
    values = np.asarray(predictions, dtype=np.float64)
    n = len(target.values)
    wanted = (n, len(target.labels)) if target.task == "classes" else target.values.shape
    if values.shape != wanted:
        raise LossError(
            f"predictions: have shape {values.shape}, expected {wanted} for the {target.task} "
            "target "
            f"{target.name}"
            + (
                f", one column per class: {', '.join(target.labels)}"
                if values.ndim != len(wanted)
                else ""
            )
        )
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise LossError(f"predictions: {bad} values are NaN or infinite; remove those rows")
    if target.task not in ("real", "count") and (values.min() < 0 or values.max() > 1):
        raise LossError(
            f"predictions: range from {values.min():.3g} to {values.max():.3g}, expected "
            "probabilities "
            "from 0 to 1; apply sigmoid or softmax to logits first"
        )
    if target.task == "classes" and not np.allclose(values.sum(1), 1, atol=1e-3):
        raise LossError(
            "predictions: rows do not sum to 1; save probabilities, one column per class"
        )
    return values


def as_outputs(head: Head, predictions: np.ndarray) -> torch.Tensor:
    """The linear outputs (n, width) that give these predictions under the head's activation."""
    values = torch.from_numpy(predictions)
    space = head.spaces[0]
    if head.encoding == "quantity":
        scaled = values / head.scale
        if space.name == "log rate" or space.activation == "exponential":
            return torch.log(scaled.clamp_min(1e-6))[:, None] - head.offset
        if space.activation == "softplus":
            return torch.log(torch.expm1(scaled.clamp(1e-6, 30)))[:, None] - head.offset
        return scaled[:, None] - head.offset
    inside = values.clamp(1e-6, 1 - 1e-6)
    if space.layout in ("class axis", "row"):
        if inside.ndim == 1:
            inside = torch.stack([1 - inside, inside], dim=-1)
        return torch.log(inside) if space.name != "row" else inside
    odds = torch.log(inside) - torch.log1p(-inside)
    if space.activation == "linear" and space.name not in ("logit", "margin"):
        odds = 2 * inside - 1 if head.encoding == "sign" else inside
    elif space.activation == "tanh":
        odds = odds / 2
    return odds if odds.ndim == 2 else odds[:, None]


def _row(loss: Minimised, head: Head, target: Target, predictions: np.ndarray) -> dict[str, Any]:
    truth = torch.from_numpy(target.values)[None]
    outputs = as_outputs(head, predictions)[None]
    encoded = head.encode(truth)
    value = float(head.values(outputs, encoded)[0])
    began = time.perf_counter()
    sizes = inspect.row_gradients(head, outputs, truth)
    seconds = time.perf_counter() - began
    total = sizes.sum()
    shares = sizes[0] / total if total > 0 else np.zeros(len(sizes[0]))
    ordered = np.sort(shares)[::-1]
    row = {
        "value": value,
        "estimates": meaning(loss),
        "gradient scale": float(total),
        "seconds": seconds,
        "top 1 %": float(ordered[: max(1, round(len(ordered) / 100))].sum()),
        "tenths": [float(tenth.sum()) for tenth in np.array_split(ordered, 10)],
        "pulled most": [int(k) for k in np.argsort(-shares)[:8]],
    }
    if isinstance(head, Joint):
        row["terms"] = term_shares(head, outputs, truth)
    if target.task in ("binary", "classes"):
        row["by class"] = {
            label: float(shares[target.values == k].sum()) for k, label in enumerate(target.labels)
        }
    return row
