"""Hypothesis strategies made from spaces: batches of a loss's inputs, ties and ends included."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from lossary.contract import Contract, Interval, Parameter, Space
from lossary.testing.everyday import plain_batch
from lossary.testing.samples import SHARE, Batch, classes_of, hard_numbers

REACH = 1e4  # hard points, not chance, cover what lies beyond
UNITS = 8


def batches(contract: Contract, parameters: Mapping[str, Any]) -> st.SearchStrategy[Batch]:
    """Batches of ``UNITS`` units in the layout of the loss."""
    shapes = plain_batch(contract, parameters, rows=UNITS)
    return st.fixed_dictionaries(
        {
            name: _array(
                SHARE if space.name == "mask" and name in contract.predictions else space,
                shapes[name],
                classes_of(parameters),
            )
            for name, space in contract.inputs.items()
        }
    )


def _array(space: Space, like: np.ndarray, classes: int) -> st.SearchStrategy[np.ndarray]:
    if space.name == "length":
        return st.just(like)
    if space.layout == "sequence":  # class 0 is the blank
        return nps.arrays(np.int64, like.shape, elements=st.integers(1, classes - 1))
    if like.dtype.kind in "iu":
        return nps.arrays(np.int64, like.shape, elements=st.integers(0, classes - 1))
    if space.layout == "class" or space.name == "simplex":
        return nps.arrays(np.float64, like.shape, elements=st.integers(1, 16)).map(
            lambda shares: shares / shares.sum(axis=-1, keepdims=True)
        )
    return nps.arrays(np.float64, like.shape, elements=numbers(space))


def numbers(space: Space) -> st.SearchStrategy[float]:
    """Members of a space within reach: any float32, or one of the hard points."""
    near = [float(x) for x in hard_numbers(space) if abs(x) <= REACH]
    if space.integral or space.name in ("binary", "sign", "mask", "pair labels"):
        return st.sampled_from(near)
    logarithm = space.name in ("log rate", "log variance")
    interval = Interval(-20, 20) if logarithm else space.interval
    return st.one_of(st.sampled_from(near), inside(interval))


def inside(interval: Interval, reach: float = REACH) -> st.SearchStrategy[float]:
    """Float32 numbers of an interval, no further out than ``reach``."""
    low, high = max(interval.low, -reach), min(interval.high, reach)
    return st.floats(
        float(np.float32(low)),
        float(np.float32(high)),
        width=32,
        exclude_min=low == interval.low and interval.closed in ("right", "neither"),
        exclude_max=high == interval.high and interval.closed in ("left", "neither"),
        allow_subnormal=False,
    )


def outside(parameter: Parameter) -> list[float]:
    """Numbers that a parameter's interval excludes: NaN, and beyond each end."""
    interval = parameter.interval
    beyond = [math.nan]
    if interval.low > -math.inf:
        beyond += [interval.low - 1.0, -math.inf]
        beyond += [interval.low] if interval.closed in ("right", "neither") else []
    if interval.high < math.inf:
        beyond += [interval.high + 1.0, math.inf]
        beyond += [interval.high] if interval.closed in ("left", "neither") else []
    return beyond
