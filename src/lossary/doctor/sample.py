"""The rows on which a loss is tried: few enough to be quick, enough to meet every class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lossary.doctor.arrays import spread

if TYPE_CHECKING:
    from lossary.doctor.case import Case

ROWS = 512
MOST_ROWS = 2**14  # where a class is rare
SEEN = 8  # rows of the rarest class
ENTRIES = 2**19


def batch_of(case: Case) -> dict[str, Any]:
    """Prediction, target, weights and mask of these rows."""
    first = case.predicted
    most = ENTRIES // 16 if case.reads == "image" else ENTRIES  # windows cost more
    rows = max(1, min(_wanted(case), most // max(1, first[:1].size)))
    contiguous = case.subject is not None and case.subject.unit in ("anchor", "tensor")
    take = slice(0, rows) if contiguous or case.sequence else spread(len(first), rows)

    def cut(array: np.ndarray | None) -> np.ndarray | None:
        if array is None or array.ndim == 0 or len(array) != len(first):
            return array
        return np.ascontiguousarray(array[take])

    predictions = tuple(cut(array) for array in case.arrays)
    return {
        "prediction": predictions if len(predictions) > 1 else predictions[0],
        "target": cut(case.target_array),
        "weights": cut(case.weights_array),
        "mask": cut(case.mask_array),
    }


def _wanted(case: Case) -> int:
    """Enough rows to meet every class a few times."""
    if case.target is None or not (case.class_scores or case.binary_scores):
        return ROWS
    counts = case.target_summary.label_counts
    if counts is None or not len(counts):
        return ROWS
    return int(min(MOST_ROWS, max(ROWS, SEEN * counts.sum() / counts.min())))
