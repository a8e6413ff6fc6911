# ruff: noqa: F821  (words bound when a kernel is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined"
"""Softmax cross-entropy of class indices: value and slopes, the logits read twice, written once.

The notation is that of ``kernels.numba.softmax``. The first reading goes through the classes block
by block with the largest logit so far; when it grows, what was summed is scaled to the new one, and
the former likeliest class joins the others. Every sum is of terms of one sign, so nothing cancels.
"""

from __future__ import annotations

import functools
from typing import Any

import triton
import triton.language as tl

from lossary.kernels.triton import language

LARGEST_BLOCK = 4096  # classes at a time
TILE = 4096  # numbers at a time: with few classes, several rows side by side


def softmax_cross_entropy(
    prediction_at, target_at, weights_at, gradient_at, values_at, partial_at, class_weights_at,
    factor_at, samples, classes, smoothing: tl.constexpr, CLASSES: tl.constexpr,
    WEIGHTED: tl.constexpr, GRADIENT: tl.constexpr, VALUES: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """ROWS samples; ``partial`` receives each row's weighted value."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    exists = row < samples
    weight = where(exists, 1.0, 0.0).to(prediction_at.dtype.element_ty)
    if WEIGHTED:
        weight = tl.load(weights_at + row, mask=exists, other=0.0)
    present = weight != 0.0
    hit = tl.load(target_at + row, mask=present, other=0).to(tl.int64)
    start = row * classes
    own = tl.load(prediction_at + start + hit, mask=present, other=0.0)

    high = where(exists, -infinity, -infinity).to(weight.dtype)
    peak = tl.zeros([ROWS], tl.int64)
    poison, finite = tl.zeros([ROWS], tl.int32), tl.zeros([ROWS], tl.int32)
    rest = tl.zeros([ROWS], tl.float64)
    others, top, gap = rest, rest, rest  # of the classes' weights alone, where smoothing needs them
    for low in range(0, classes, BLOCK):
        column = low + tl.arange(0, BLOCK)
        inside = present[:, None] & (column < classes)[None, :]
        z = tl.load(prediction_at + start[:, None] + column[None, :], mask=inside, other=-infinity)
        poison += tl.sum((z != z).to(tl.int32), axis=1)
        z = where(z != z, -infinity, z)
        block_high = tl.max(z, axis=1)
        grown = block_high > high
        higher = where(grown, block_high, high)
        found = tl.min(where(z == block_high[:, None], column[None, :], classes), axis=1)
        peak = where(grown, found.to(tl.int64), peak)
        other = inside & (column[None, :] != peak[:, None])
        power = where(other, exp(z - higher[:, None]), 0.0)
        rest = where(grown, (rest + 1.0) * exp(high - higher).to(tl.float64), rest)
        rest += tl.sum(power, axis=1).to(tl.float64)
        if smoothing > 0.0:
            known = inside & (absolute(z) < infinity)
            c = known.to(weight.dtype)
            if CLASSES:
                share = tl.load(class_weights_at + column, mask=column < classes, other=0.0)
                c = where(known, share[None, :], 0.0)
            finite += tl.sum(known.to(tl.int32), axis=1)
            before = others + top
            gap += where(grown & (before > 0.0), before * (higher - high).to(tl.float64), 0.0)
            gap += tl.sum(where(c > 0.0, c * (higher[:, None] - z), 0.0), axis=1).to(tl.float64)
            others += where(grown, top, 0.0)
            others += tl.sum(where(other, c, 0.0), axis=1).to(tl.float64)
            at_new = tl.sum(where(other, 0.0, c), axis=1).to(tl.float64)
            top = where(grown, at_new, top)
        high = higher

    hit_weight = where(exists, 1.0, 1.0).to(tl.float64)
    if CLASSES:
        hit_weight = tl.load(class_weights_at + hit, mask=present, other=0.0).to(tl.float64)
    own_weight = (1.0 - smoothing) * hit_weight
    smooth = smoothing / where(finite > 0, finite, 1).to(tl.float64)
    sure = hit == peak
    distance = where(sure | (own_weight == 0.0), 0.0, (high - own).to(tl.float64))
    at_peak = smooth * top + where(sure, own_weight, 0.0)
    mass = smooth * others + where(sure, 0.0, own_weight)
    lack = log1p(rest.to(weight.dtype)).to(tl.float64)
    value = smooth * gap + own_weight * distance + (mass + at_peak) * lack
    value = where(poison > 0, nan, value)
    value = where(present, value, 0.0)
    tl.store(partial_at + row, value * weight.to(tl.float64), mask=exists)
    if VALUES:
        tl.store(values_at + row, value.to(weight.dtype), mask=exists)
    if GRADIENT:
        portion = weight * tl.load(factor_at)
        portion = where(poison > 0, nan, portion)
        ratio = ((mass + at_peak) / (1.0 + rest)).to(weight.dtype)
        at_top = ((mass - at_peak * rest) / (1.0 + rest)).to(weight.dtype)
        for low in range(0, classes, BLOCK):
            column = low + tl.arange(0, BLOCK)
            inside = exists[:, None] & (column < classes)[None, :]
            place = start[:, None] + column[None, :]
            z = tl.load(prediction_at + place, mask=inside & present[:, None], other=0.0)
            q = where(column[None, :] == hit[:, None], own_weight[:, None], 0.0)
            if smoothing > 0.0:
                c = (absolute(z) < infinity).to(tl.float64)
                if CLASSES:
                    share = tl.load(class_weights_at + column, mask=column < classes, other=0.0)
                    c = c * share[None, :].to(tl.float64)
                q += smooth[:, None] * c
            slope = exp(z - high[:, None]) * ratio[:, None] - q.to(weight.dtype)
            slope = where(column[None, :] == peak[:, None], at_top[:, None], slope)
            slope = where(present[:, None], slope * portion[:, None], 0.0)
            tl.store(gradient_at + place, slope, mask=inside)


@functools.cache
def kernel(dtype: str) -> Any:
    """The kernel in one precision."""
    return language.bound(softmax_cross_entropy, dtype, nan=float("nan"))


def launch(
    dtype: str, arrays: tuple[Any, ...], partial: Any, samples: int, classes: int, factor: Any,
    class_weights: Any, smoothing: float,
) -> None:  # fmt: skip
    """Run over flat memory; ``arrays``: prediction, target, weights, gradient, values (or None)."""
    block = min(LARGEST_BLOCK, triton.next_power_of_2(classes))
    rows = min(64, TILE // block)
    kernel(dtype)[(triton.cdiv(samples, rows),)](
        *arrays, partial, class_weights, factor, samples, classes, smoothing=smoothing,
        CLASSES=class_weights is not None, WEIGHTED=arrays[2] is not None,
        GRADIENT=arrays[3] is not None, VALUES=arrays[4] is not None, ROWS=rows, BLOCK=block,
        num_warps=8 if rows * block > 2048 else 4,
    )  # fmt: skip
