# ruff: noqa: F821  (words bound when a kernel is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined"
"""Pointwise losses: one kernel for all of them, around the formula of each."""

from __future__ import annotations

import functools
from typing import Any

import triton
import triton.language as tl

from lossary.kernels.triton import language

BLOCK = 1024


def pointwise(
    prediction_at, target_at, weights_at, gradient_at, values_at, partial_at, size, factor_at,
    formula: tl.constexpr, parameters: tl.constexpr, WEIGHTED: tl.constexpr,
    GRADIENT: tl.constexpr, VALUES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Value, slope and sum of one block of elements; ``partial`` receives the block's sum."""
    block = tl.program_id(0).to(tl.int64)
    index = block * BLOCK + tl.arange(0, BLOCK)
    inside = index < size
    prediction = tl.load(prediction_at + index, mask=inside, other=0.0)
    target = tl.load(target_at + index, mask=inside, other=0.0)
    value, slope = formula(prediction, target, *parameters)
    if WEIGHTED:  # a weight of 0 means absent, whatever is there
        weight = tl.load(weights_at + index, mask=inside, other=0.0)
        value = where(weight != 0.0, value, 0.0)
        slope = where(weight != 0.0, weight * slope, 0.0)
    if GRADIENT:
        tl.store(gradient_at + index, slope * tl.load(factor_at), mask=inside)
    if VALUES:
        tl.store(values_at + index, value, mask=inside)
    if WEIGHTED:
        value = weight * value
    tl.store(partial_at + block, tl.sum(where(inside, value, 0.0).to(tl.float64)))


@functools.cache
def kernel(dtype: str) -> Any:
    """The kernel in one precision; Triton compiles it for each formula and set of parameters."""
    return language.bound(pointwise, dtype)


def launch(
    loss: str, dtype: str, arrays: tuple[Any, ...], partial: Any, size: int, factor: Any,
    parameters: tuple[float, ...],
) -> None:  # fmt: skip
    """Run over flat memory; ``arrays``: prediction, target, weights, gradient, values (or None)."""
    prediction, target, weights, gradient, values = arrays
    kernel(dtype)[(triton.cdiv(size, BLOCK),)](
        prediction, target, weights, gradient, values, partial, size, factor,
        formula=language.formula(loss, dtype), parameters=parameters,
        WEIGHTED=weights is not None, GRADIENT=gradient is not None, VALUES=values is not None,
        BLOCK=BLOCK,
    )  # fmt: skip
