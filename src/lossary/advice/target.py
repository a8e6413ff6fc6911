"""What a target column is: its task, its values as numbers, and the facts that advice rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lossary.contract import LossError

TASKS = ("real", "count", "binary", "classes", "multi-label")
MOST_CLASSES = 1000
NEAR = 0.05  # to a bound, as a share of the range between the bounds
SEVERAL = 20  # up to so many different whole numbers may be codes of classes


@dataclass(frozen=True, eq=False)
class Target:
    """A target as numbers.

    ``values``: float64 of shape (n,) for real and count; class indices (int64, (n,)) for binary
    and classes; 0 and 1 of shape (n, labels) for multi-label. ``labels``: what index k stands for.
    """

    name: str
    task: str
    values: np.ndarray
    labels: tuple[str, ...] = ()
    ordered: bool = False
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def is_share(self) -> bool:
        """Whether it is a quantity between 0 and 1 that comes near one of them."""
        if self.task != "real":
            return False
        low, high = self.facts["minimum"], self.facts["maximum"]
        return low >= 0 and high <= 1 and (low < NEAR or high > 1 - NEAR)

    @property
    def class_counts(self) -> np.ndarray:
        """Rows of each class, (classes,), for binary and classes; of each label for multi-label."""
        if self.task == "multi-label":
            return self.values.sum(axis=0).astype(np.int64)
        return np.bincount(self.values.astype(np.int64), minlength=len(self.labels))


def describe(values: Any, *, name: str = "target", task: str | None = None) -> Target:
    """The target in ``values``: numbers, texts or booleans of shape (n,), or 0/1 of (n, labels).

    ``task`` overrides what is inferred. Errors: LossError for missing or infinite values, one
    class, free text, too many classes.
    """
    if task is not None and task not in TASKS:
        raise LossError(f"task={task!r} is not known; it can be {', '.join(TASKS)}")
    array = np.asarray(values)
    if array.dtype.kind == "M":
        raise LossError(
            f"target {name}: holds dates; make the quantity to predict of them, such as days until"
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.size == 0:
        raise LossError(f"target {name}: has no rows")
    if array.ndim == 2:
        return _multi_label(array, name)
    if array.ndim != 1:
        raise LossError(
            f"target {name}: has shape {array.shape}; expected (rows,) or (rows, labels)"
        )
    _refuse_missing(array, name)
    numeric = array.dtype.kind in "iuf"
    task = task or (_numeric_task(array) if numeric else "classes")
    if task in ("real", "count"):
        return _quantity(array, name, task)
    return _categories(array, name, task)


def _refuse_missing(array: np.ndarray, name: str) -> None:
    if array.dtype.kind == "f":
        missing = ~np.isfinite(array)
    elif array.dtype.kind == "O":
        missing = np.array([item is None or item != item for item in array])
    else:
        return
    if missing.any():
        rows = ", ".join(str(row + 1) for row in np.flatnonzero(missing)[:5])
        more = ", ..." if missing.sum() > 5 else ""
        raise LossError(
            f"target {name}: {int(missing.sum())} of {array.size} values are missing or not finite "
            f"(rows {rows}{more}); remove them, or say --drop-missing"
        )


def _numeric_task(array: np.ndarray) -> str:
    """Two values: binary. Whole numbers: classes or a count by their shape. Else a real number."""
    distinct, counts = np.unique(array, return_counts=True)
    if distinct.size == 2:
        return "binary"
    if array.dtype.kind == "f":
        return "real"
    if distinct[0] < 0:
        return "real"
    if distinct.size <= SEVERAL and not (distinct[0] == 0 and _hump(counts)):
        return "classes"
    return "count" if distinct[0] <= 5 else "real"


def _hump(counts: np.ndarray) -> bool:
    """Frequencies that rise once and fall to a thin tail: how often something happened."""
    top = int(np.argmax(counts))
    slack = 0.1 * counts.max()
    rises = (np.diff(counts[: top + 1]) >= -slack).all()
    falls = (np.diff(counts[top:]) <= slack).all()
    return bool(counts.size > 5 and rises and falls and counts[-1] < 0.2 * counts.max())


def _quantity(array: np.ndarray, name: str, task: str) -> Target:
    if array.dtype.kind not in "iufb":
        raise LossError(f"target {name}: holds texts, but task={task!r} needs numbers")
    values = array.astype(np.float64)
    if values.min() == values.max():
        raise LossError(
            f"target {name}: every value is {values[0]:g}; there is nothing to learn from one value"
        )
    if task == "count" and ((values < 0).any() or (values != np.round(values)).any()):
        raise LossError(f"target {name}: task='count' needs whole numbers from 0 up")
    return Target(name, task, values, facts=_facts(values))


def _facts(values: np.ndarray) -> dict[str, float]:
    mean, spread = float(values.mean()), float(values.std())
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    quartiles = float(high - low) or spread
    standard = (values - mean) / spread
    outside = (values < low - 3 * quartiles) | (values > high + 3 * quartiles)
    return {
        "rows": float(values.size),
        "mean": mean,
        "standard deviation": spread,
        "median": float(median),
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "skewness": float((standard**3).mean()),
        "excess kurtosis": float((standard**4).mean() - 3),
        "share of zeros": float((values == 0).mean()),
        "share far out": float(outside.mean()),
        "variance over mean": spread**2 / mean if mean > 0 else float("nan"),
    }


def _categories(array: np.ndarray, name: str, task: str) -> Target:
    texts = array.dtype.kind not in "iufb"
    for step in strides(array.size) if texts else ():
        # Counted first: to sort millions of texts takes half a minute.
        different = set(map(str, array[::step].tolist()))
        refuse_texts(len(different), max(map(len, different)), array.size, name, step)
    distinct, index = np.unique(array.astype(str) if texts else array, return_inverse=True)
    count = distinct.size
    if count < 2:
        raise LossError(
            f"target {name}: every value is {str(distinct[0])!r}; a task needs at least two classes"
        )
    _refuse_classes(count, name)
    if task == "binary" and count != 2:
        raise LossError(f"target {name}: {count} different values; task='binary' needs two")
    labels = tuple(str(item) for item in distinct.tolist())
    counts = np.bincount(index)
    facts = {
        "rows": float(array.size),
        "classes": float(count),
        "rarest share": float(counts.min() / array.size),
        "commonest share": float(counts.max() / array.size),
        "commonest over rarest": float(counts.max() / counts.min()),
    }
    whole = array.dtype.kind in "iu"
    return Target(
        name,
        "binary" if count == 2 else "classes",
        index.astype(np.int64).reshape(-1),
        labels,
        ordered=whole and count > 2,
        facts=facts,
    )


def strides(rows: int) -> tuple[int, ...]:
    """Some rows are looked at before all: enough to see that there are far too many classes."""
    step = rows // (20 * MOST_CLASSES)
    return (step, 1) if step > 1 else (1,)


def refuse_texts(different: int, longest: int, rows: int, name: str, step: int = 1) -> None:
    """A LossError where so many ``different`` texts, the ``longest`` of so many letters, are no
    classes. ``step``: each so-manieth of the ``rows`` was looked at.
    """
    looked = -(-rows // step)
    if different > (SEVERAL if step == 1 else MOST_CLASSES) and different > 0.5 * looked:
        kind = "free text" if longest > 40 else "nearly all unique texts"
        where = f"{rows} rows" if step == 1 else f"{looked} of {rows} rows"
        raise LossError(
            f"target {name}: {different} different texts in {where} look like {kind}; "
            "choose a column of classes or numbers"
        )
    _refuse_classes(different, name, step)


def _refuse_classes(count: int, name: str, step: int = 1) -> None:
    if count > MOST_CLASSES:
        least = "at least " if step > 1 else ""
        raise LossError(
            f"target {name}: {least}{count} classes; the lab takes at most {MOST_CLASSES}; "
            "merge rare classes, or say --task real if it is a quantity"
        )


def _multi_label(array: np.ndarray, name: str) -> Target:
    if array.dtype.kind not in "iufb" or not np.isin(array, (0, 1)).all():
        raise LossError(
            f"target {name}: several target columns must hold 0 and 1 (multi-label), nothing else"
        )
    values = array.astype(np.int64)
    shares = values.mean(axis=0)
    for label in np.flatnonzero((shares == 0) | (shares == 1)):
        raise LossError(f"target {name}: label {label + 1} is the same in every row")
    facts = {
        "rows": float(len(values)),
        "labels": float(values.shape[1]),
        "labels per row": float(values.sum(axis=1).mean()),
        "rarest share": float(shares.min()),
    }
    return Target(name, "multi-label", values, tuple(map(str, range(values.shape[1]))), facts=facts)


def named_labels(target: Target, labels: Sequence[str]) -> Target:
    """The same target with other names for its classes."""
    from dataclasses import replace

    return replace(target, labels=tuple(labels))
