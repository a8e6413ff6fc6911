"""What a loss did: who got the gradient, which rows it fails, what it costs, what it shifts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from lossary.advice.target import Target
from lossary.lab.heads import Head
from lossary.lab.metrics import View, reliability
from lossary.lab.split import Split

MOST_ROWS = 2000  # rows whose errors a study keeps
GROUPS = 5


def per_group(target: Target, seen: list[View]) -> dict[str, Any]:
    """Recall per class, or MAE per fifth of the target: mean over seeds, by group name."""
    if target.task == "multi-label":
        return {}
    if target.task in ("real", "count"):
        edges = np.quantile(target.values, np.linspace(0, 1, GROUPS + 1))
        result: dict[str, Any] = {}
        for low, high in pairwise(edges):
            inside = [(v.truth >= low) & (v.truth <= high) for v in seen]
            gaps = [
                np.abs(v.point - v.truth)[i].mean()
                for v, i in zip(seen, inside, strict=True)
                if i.any()
            ]
            result[f"{low:g} to {high:g}"] = float(np.mean(gaps)) if gaps else float("nan")
        return {"measure": "MAE", "groups": result}
    recalls = {}
    for index, label in enumerate(target.labels):
        shares = [
            float((v.decision[v.truth == index] == index).mean())
            for v in seen
            if (v.truth == index).any()
        ]
        recalls[label] = float(np.mean(shares)) if shares else float("nan")
    return {"measure": "recall", "groups": recalls}


def pooled_reliability(seen: list[View]) -> dict[str, Any] | None:
    """Rows, mean confidence and share right per bin, over all seeds; None without probabilities."""
    if seen[0].probability is None or seen[0].truth.ndim > 1:
        return None
    if not all(np.isfinite(v.probability).all() for v in seen):
        return None
    bins = [reliability(v) for v in seen]
    rows = np.sum([b[0] for b in bins], axis=0)
    safe = np.maximum(rows, 1)
    confidence, right = (np.sum([b[0] * b[k] for b in bins], axis=0) / safe for k in (1, 2))
    return {"rows": rows, "confidence": confidence, "right": right}


def side_effects(target: Target, seen: list[View]) -> dict[str, float]:
    """The bias of the mean prediction: of quantities, of the probability of yes, of confidence."""
    if target.task in ("real", "count"):
        below = float(np.mean([(v.truth <= v.point).mean() for v in seen]))
        bias = float(np.mean([np.mean(v.point - v.truth) for v in seen]))
        return {"bias of the mean": bias, "share of targets below the prediction": below}
    if seen[0].probability is None or target.task == "multi-label":
        return {}
    if target.task == "binary":
        return {
            "mean probability of yes minus share of yes": float(
                np.mean([v.probability.mean() - v.truth.mean() for v in seen])
            )
        }
    right = [(v.decision == v.truth).mean() for v in seen]
    sure = [v.probability.max(-1).mean() for v in seen]
    return {"confidence minus accuracy": float(np.mean(np.subtract(sure, right)))}


def row_gradients(head: Head, outputs: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """The size of each row's gradient by its outputs, (replicas, n), from (replicas, n, width)."""
    leaf = outputs.detach().clone().requires_grad_()
    values = head.values(leaf, head.encode(target))
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return gradient.norm(dim=-1).double().numpy()


def gradient_scale(head: Head, outputs: torch.Tensor, parts: Split) -> float:
    """Mean gradient size per row at the start: how losses differ before any training."""
    sizes = row_gradients(head, outputs, parts.train.target[:1])
    return float(sizes.mean() * sizes.shape[1])


def gradient_shares(head: Head, outputs: torch.Tensor, parts: Split) -> dict[str, Any]:
    """Who gets the gradient after training: shares by group, by difficulty, of the top 1 %."""
    sizes = row_gradients(head, outputs, parts.train.target)
    total = sizes.sum(axis=1, keepdims=True)
    if not np.isfinite(total).all() or (total == 0).any():
        return {}
    shares = sizes / total
    ordered = np.sort(shares, axis=1)[:, ::-1]
    rows = shares.shape[1]
    tenth = [float(chunk.sum(axis=1).mean()) for chunk in np.array_split(ordered, 10, axis=1)]
    result: dict[str, Any] = {
        "top 1 %": float(ordered[:, : max(1, round(rows / 100))].sum(axis=1).mean()),
        "tenths": tenth,
    }
    truth = parts.train.target.numpy()
    changed = truth != parts.clean.numpy()
    if changed.any() and changed.ndim == 2:
        result["harmed rows"] = float((shares * changed).sum(axis=1).mean())
        result["harmed rows' number"] = float(changed.mean())
    if head.target.task in ("binary", "classes"):
        result["by class"] = {
            label: float((shares * (truth == k)).sum(axis=1).mean())
            for k, label in enumerate(head.target.labels)
        }
    return result


def margins(head: Head, seen: list[View]) -> dict[str, Any]:
    """Histogram of what the loss saw: residuals, or for decisions the probability of the truth."""
    if head.target.task in ("real", "count"):
        values = (
            np.concatenate([v.point - v.truth for v in seen])
            / head.target.facts["standard deviation"]
        )
        kind = "residual (in standard deviations of the target)"
    elif head.target.task != "multi-label" and seen[0].probability is not None:
        kind = "probability given to the true class"
        values = np.concatenate([truth_probability(v) for v in seen])
    else:
        return {}
    values = values[np.isfinite(values)]
    if not len(values):
        return {}
    low, high = (0.0, 1.0) if "probability" in kind else tuple(np.quantile(values, [0.005, 0.995]))
    counts, edges = np.histogram(np.clip(values, low, high), bins=30, range=(low, high or 1.0))
    return {"kind": kind, "counts": counts, "low": float(edges[0]), "high": float(edges[-1])}


def truth_probability(view: View) -> np.ndarray:
    """The probability given to what happened, (n,)."""
    p = view.probability
    assert p is not None
    if p.ndim == 1:
        return np.where(view.truth == 1, p, 1 - p)
    return np.take_along_axis(p, view.truth[:, None], axis=1)[:, 0]


def errors_by_row(target: Target, seen: list[View], rows: np.ndarray, total: int) -> dict[str, Any]:
    """How far off each test row was: mean over the seeds that tested it, for up to 2,000 rows."""
    if target.task == "multi-label":
        return {}
    sums, counts = np.zeros(total), np.zeros(total)
    for view, numbers in zip(seen, rows, strict=True):
        if target.task in ("real", "count"):
            wrong = np.abs(view.point - view.truth)
        elif view.probability is not None:
            wrong = 1 - truth_probability(view)
        else:
            wrong = (view.decision != view.truth).astype(float)
        np.add.at(sums, numbers, wrong)
        np.add.at(counts, numbers, 1)
    tested = np.flatnonzero(counts)[:MOST_ROWS]
    mean = sums[tested] / counts[tested]
    return {"rows": tested, "error": [float(f"{value:.3g}") for value in mean]}


def saved_bytes(head: Head, outputs: torch.Tensor, parts: Split) -> int:
    """Bytes that the loss keeps between its forward and its backward pass, per row."""
    rows = min(256, outputs.shape[1])
    leaf = outputs[:1, :rows].detach().clone().requires_grad_()
    target = head.encode(parts.test.target[:1, :rows])
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        head.values(leaf, target)
    return sum(kept.values()) // rows
