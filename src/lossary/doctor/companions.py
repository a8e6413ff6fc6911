"""What comes beside predictions and targets: does it hold what its name says, for these rows?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.arrays import summarize, to_numpy

_NUMBERS = ("lengths", "target_lengths", "gradient", "hessian", "variance")
_COUNTS = ("batch_size", "accumulation", "ranks")
_MASKS = ({0.0, 1.0}, {0.0, 255.0})  # an image file's white is 255


def check_companions(given: Mapping[str, Any], *arrays: np.ndarray | None, classes: bool) -> None:
    """Raise a LossError where weights, a mask and their like cannot belong to these arrays.

    ``arrays``: the first prediction and the target. ``classes``: the loss reads class scores.
    """
    for name in _COUNTS:
        if given[name] is not None and not (_is_whole(given[name]) and given[name] > 0):
            raise LossError(f"{name}={given[name]!r}; expected a whole number of 1 or more")
    axis, rank = given["axis"], arrays[0].ndim if arrays[0] is not None else None
    if axis is not None and not (_is_whole(axis) and (rank is None or -rank <= axis < rank)):
        raise LossError(f"axis={axis!r} is no axis of a prediction with {rank or 0} of them")
    rows = [len(array) for array in arrays if array is not None]
    for name in ("weights", "mask"):
        if given[name] is not None:
            array = to_numpy(given[name], name)
            if rows and array.ndim and len(array) not in rows:
                raise LossError(
                    f"{name} has {len(array):,} rows and the prediction {rows[0]:,}; give one "
                    "entry for each row"
                )
            if name == "mask" and array.size:
                _check_mask(array)
                _check_shape(array, [each.shape for each in arrays if each is not None], classes)
    if given["class_weights"] is not None:
        array = to_numpy(given["class_weights"], "class_weights")
        if array.ndim != 1 or not array.size:
            raise LossError(
                f"class_weights has shape {array.shape}; give one number for each class"
            )
    for name in _NUMBERS:
        parts = given[name] if isinstance(given[name], (tuple, list)) else [given[name]]
        for part in parts:
            if part is not None:
                to_numpy(part, name)


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _check_shape(mask: np.ndarray, shapes: list[tuple[int, ...]], classes: bool) -> None:
    """The mask has the shape of the target, or of its leading axes; or of the prediction, where
    that and the target should be alike: then the check "broadcast" tells."""
    first, last = shapes[0], shapes[-1]
    wanted = [last] if classes else [last, first]
    if first == last:  # as many class scores as soft labels: the mask may lack their axis
        wanted += [first[:axis] + first[axis + 1 :] for axis in range(1, len(first))]
    if all(mask.shape != each[: mask.ndim] for each in wanted):
        raise LossError(
            f"mask has shape {mask.shape} and the target {last}; give a mask of the target's shape "
            "or of its leading axes"
        )


def _check_mask(mask: np.ndarray) -> None:
    if mask.dtype.kind == "b":
        return
    summary = summarize(mask)
    finite = summary.finite == summary.size
    held = {math.nan} if summary.labels is None else set(summary.labels.tolist())
    if finite and any(held <= values for values in _MASKS):
        return
    if not finite:
        seen = f"{summary.size - summary.finite:,} values that are NaN or infinite"
    else:
        seen = f"numbers from {summary.low:.4g} to {summary.high:.4g}"
    raise LossError(
        f"mask holds {seen}; expected True where a value counts and False elsewhere (numbers are "
        "weights)"
    )
