"""Where a loss stands: at its start, at the best constant answer, at its floor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.case import Case

_LOGIT_GRID = np.linspace(-6, 6, 25)
_ROWS = 64
_QUANTILES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


def _value(case: Case, prediction: np.ndarray) -> float | None:
    batch = case.batch
    options = case.options
    try:
        value = case.known(
            prediction.astype(_float(batch["prediction"])), batch["target"], **options
        )
    except LossError:
        return None
    return value if math.isfinite(value) else None


def _float(array: np.ndarray) -> Any:
    return array.dtype if array.dtype.kind == "f" and array.dtype.itemsize >= 4 else np.float32


def start_of(case: Case) -> float | None:
    """The loss of an undecided network: all logits 0, equal probabilities, or 0."""
    if case.subject is None or not case.arrays or len(case.arrays) > 1 or case.target is None:
        return None
    first = case.batch["prediction"]
    middle = {
        "simplex": 1.0,
        "probability": 0.5,
        "log simplex": 1.0,
        "log probability": math.log(0.5),
    }.get(case.reads or "", 0.0)
    if case.reads in ("simplex", "log simplex"):
        middle = 1 / case.classes if case.reads == "simplex" else -math.log(case.classes)
    if case.reads in ("positive",):
        middle = 1.0
    return _value(case, np.full(first.shape, middle))


def best_constant(case: Case) -> tuple[str, float] | None:
    """The best answer that ignores the input, and its loss on the batch; None: unknown."""
    if case.subject is None or len(case.arrays) != 1 or case.target is None:
        return None
    if case.known.unit in ("anchor", "tensor") or case.reads in ("embeddings", "image"):
        return None
    batch = case.batch
    target, shape = batch["target"], batch["prediction"].shape
    tried: list[tuple[str, np.ndarray]] = []
    if case.class_scores:
        prior = _prior(case, target)
        if prior is None:
            return None
        logs = np.log(np.maximum(prior, 1e-7))
        rows = np.exp(logs) / np.exp(logs).sum() if case.reads == "simplex" else logs
        where = [1] * len(shape)
        where[case.class_axis] = shape[case.class_axis]
        tried.append(("the class frequencies", np.broadcast_to(rows.reshape(where), shape)))
    elif case.binary_scores:
        keep = case.counted
        counts = case.target_summary.mean if keep is not None else float(target.mean())
        share = float(np.clip(counts, 1e-4, 1 - 1e-4))
        for logit in [math.log(share / (1 - share)), *_LOGIT_GRID]:
            p = 1 / (1 + math.exp(-logit))
            number = {"logit": logit, "probability": p}.get(str(case.reads), math.log(p))
            tried.append((f"{p:.3g}", np.full(shape, number)))
    elif target.shape == shape and (target.dtype.kind == "f" or case.reads is not None):
        wide = target.astype(np.float64)
        if not np.isfinite(wide).all():
            return None
        # A constant for each column; of few rows that would know the rows by heart.
        over = 0 if len(wide) >= _ROWS else None
        rows = [("the mean", wide.mean(axis=over, keepdims=True))]
        rows += [
            (
                "the median" if q == 0.5 else f"the {q:.0%} quantile",
                np.quantile(wide, q, axis=over, keepdims=True),
            )
            for q in _QUANTILES
        ]
        if case.reads in ("log rate",):
            rows = [(name, np.log(np.maximum(row, 1e-6))) for name, row in rows]
        tried = [(name, np.broadcast_to(row, shape)) for name, row in rows]
    values = [(name, _value(case, prediction)) for name, prediction in tried]
    known = [(name, value) for name, value in values if value is not None]
    return min(known, key=lambda pair: pair[1]) if known else None


def _prior(case: Case, target: np.ndarray) -> Any:
    classes = case.classes
    if target.shape == case.batch["prediction"].shape:
        axes = tuple(k for k in range(target.ndim) if k != case.class_axis)
        return target.mean(axis=axes)
    if not case.target_summary.integral:
        return None
    keep = (target >= 0) & (target < classes)
    if case.ignored is not None:
        keep &= target != case.ignored
    if not keep.any():
        return None
    return np.bincount(target[keep].astype(int), minlength=classes) / keep.sum()


def floor_of(case: Case) -> float | None:
    """The least loss these targets allow: that of predicting the (smoothed) targets themselves."""
    subject = case.subject
    if subject is None or case.target is None or len(case.arrays) != 1:
        return None
    batch = case.batch
    target, shape = batch["target"], batch["prediction"].shape
    smoothing = float(subject.parameters.get("label_smoothing", 0) or 0)
    tiny = 1e-7
    if case.class_scores:
        axis, classes = case.class_axis, case.classes
        if target.shape == shape:
            truth = target.astype(np.float64)
        elif target.dtype.kind in "iu" or case.target_summary.integral:
            labels = np.clip(np.where(np.isfinite(target), target, 0), 0, classes - 1).astype(int)
            if target.shape != shape[:axis] + shape[axis + 1 :]:
                return None
            truth = np.moveaxis(np.eye(classes)[labels], -1, axis)
        else:
            return None
        smooth = np.maximum((1 - smoothing) * truth + smoothing / classes, tiny)
        return _value(case, smooth if case.reads == "simplex" else np.log(smooth))
    if case.binary_scores and target.shape == shape:
        share = np.clip((1 - smoothing) * target.astype(np.float64) + smoothing / 2, tiny, 1 - tiny)
        ways = {"logit": np.log(share / (1 - share)), "probability": share}
        return _value(case, ways.get(str(case.reads), np.log(share)))
    contract = subject.contract
    if contract is not None and contract.has("zero at target") and contract.has("nonnegative"):
        return 0.0
    return None


def every_class_is_seen(case: Case) -> bool:
    """Without the rare class, the answer that denies it looks perfect."""
    if not case.binary_scores:
        return True
    labels = case.target_summary.labels
    return labels is None or len(np.unique(case.batch["target"])) >= len(labels)
