# ruff: noqa: D103, F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""Cross-entropy of log-probabilities with class indices: one number of each sample is read.

The value needs no more memory than that. The gradient is 0 but at the target: rows are cleared a
block at a time and marked while they are in the cache; where many samples lie side by side, each
class's run of them is written once, from the targets and slopes of a block.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import float64, intp

from lossary.contract import LossError
from lossary.kernels.numba import pool, softmax, special
from lossary.kernels.numba.memory import address
from lossary.kernels.numba.program import (
    INDEX,
    Launch,
    NoSuchClassError,
    Purpose,
    Shape,
    Shapes,
    no_classes,
)
from lossary.kernels.numba.sums import add, added

LOSS = "cross_entropy_of_log_probabilities"
BLOCK = 4096  # samples whose sum is one of the partial sums
SPAN = 1024  # samples that are looked at together
CLEARED = 1 << 16  # numbers of the gradient that are cleared before they are marked
WRITTEN = 1 << 18  # numbers of the gradient that one block of samples side by side writes
NARROW = 64  # fewer samples side by side are cleared and marked as rows are
GATHER = 4  # what reading one number from anywhere costs, in numbers read one after the other


def gather(z, stride, step, t, weights, c, values, classes, n):
    """The weighted sum of the surprises; sample i's classes begin at ``i * stride``."""
    full_width()
    total = 0.0
    for i in range(n):
        # An absent sample's index may be anything; where none is absent, all have been looked at.
        hit = (t[i] if 0 <= t[i] < classes else 0) if WEIGHTED else t[i]
        value = -float64(z[i * stride + hit * step])
        if CLASSES:  # a class weight of 0 wins over an infinite surprise
            value = float64(c[hit]) * value if c[hit] != zero else 0.0
        if WEIGHTED:
            weight = weights[i]
            value = value if weight != zero else 0.0
            total += float64(weight) * value
        else:
            total += value
        if VALUES:
            values[i] = real(value)
    return total


def clear(g, n):
    for i in range(n):
        g[i] = zero


def slope(i, t, weights, c, classes, factor):
    """What the gradient is at the target of sample ``i``."""
    always_inline()
    found = -factor
    if WEIGHTED:
        found *= float64(weights[i])
    if CLASSES:
        found *= float64(c[(t[i] if 0 <= t[i] < classes else 0) if WEIGHTED else t[i]])
    return real(found)


def mark(g, stride, step, t, weights, c, classes, factor, n):
    """The slopes at the targets."""
    for i in range(n):
        if not WEIGHTED or weights[i] != zero:
            g[i * stride + t[i] * step] = slope(i, t, weights, c, classes, factor)


def look(t, weights, c, hits, slopes, classes, factor, n):
    """Targets and slopes as ``write`` reads them: an absent sample has no target."""
    full_width()
    for i in range(n):
        present = not WEIGHTED or weights[i] != zero
        hits[i] = integer32(t[i]) if present else integer32(-1)
        slopes[i] = slope(i, t, weights, c, classes, factor)


def write(g, hits, slopes, k, n):
    """The gradient at class ``k`` of samples side by side."""
    full_width()
    for i in range(n):
        g[i] = slopes[i] if hits[i] == k else zero


def picked(
    first, last, block, samples, classes, inner, unchecked, prediction_at, target_at, weights_at,
    gradient_at, values_at, partial_at, class_weights_at, factor,
):  # fmt: skip
    """The sum of the weighted values of these blocks; NaN if an index lies outside.

    ``inner`` samples lie side by side. ``partial``, if there is any, receives each block's sum.
    The first ``unchecked`` class indices are looked at before anything is written.
    """
    if unchecked > 0 and outside(unchecked, classes, target_at, weights_at) >= 0:
        return math.nan
    z, g, c = reals_at(prediction_at), reals_at(gradient_at), reals_at(class_weights_at)
    t_all, weights_all, values_all = (
        indices_at(target_at), reals_at(weights_at), reals_at(values_at)
    )  # fmt: skip
    partial = doubles_at(partial_at)
    borrowed = 0
    if GRADIENT and not ROWS:
        borrowed = borrow(64 + 12 * SPAN)
    scratch = (borrowed + 63) & -64
    slopes, hits = reals_at(scratch), int32s_at(scratch + 8 * SPAN)
    whole = 0.0
    for index in range(first, last):
        low = index * block
        end = low + block if samples - low > block else samples
        total, lost = 0.0, 0.0
        while low < end:
            n, base = SPAN if end - low > SPAN else end - low, low * classes
            if not ROWS:  # what is left of the samples side by side
                rest = inner - low % inner
                n = rest if rest < n else n
                base = low // inner * inner * classes + low % inner
            t, weights, values = past(t_all, low), past(weights_all, low), past(values_all, low)
            stride, step = classes if ROWS else 1, 1 if ROWS else inner
            part = gather(past(z, base), stride, step, t, weights, c, values, classes, n)
            total, lost = add(total, lost, part)
            if GRADIENT and (ROWS or (n == inner and n < NARROW)):
                clear(past(g, base), n * classes)
                mark(past(g, base), stride, step, t, weights, c, classes, factor, n)
            elif GRADIENT:
                look(t, weights, c, hits, slopes, classes, factor, n)
                for k in range(classes):
                    write(past(g, base + k * inner), hits, slopes, integer32(k), n)
            low += n
        total = added(total, lost)
        if partial_at != 0:
            partial[index] = total
        whole += total
    if GRADIENT and not ROWS:
        give_back(borrowed)
    return whole


@functools.cache
def compiled(dtype: str, target: str, flags: tuple[str, ...]) -> Any:
    """The kernel for these dtypes and flags."""
    names = softmax.names(dtype, target, flags) | {
        "__name__": __name__, "integer32": np.int32, "ROWS": "ROWS" in flags,
        "SPAN": SPAN, "NARROW": NARROW,
    }  # fmt: skip
    digest = special.fingerprint(sys.modules[__name__], softmax)
    variant = "_".join([digest, dtype, target, *(name.lower() for name in flags)])
    for exact in (add, added):
        names[exact.__name__] = special.bind(exact, names, special.EXACT, variant)
    for loose in (softmax.outside, slope, gather, clear, mark, look, write):
        names[loose.__name__] = special.bind(loose, names, special.LOOSE, variant)
    return special.entry(picked, names, float64(*[intp] * 14, float64), variant)


class OfLogProbabilities:
    """Cross-entropy of log-probabilities as a program."""

    def decline(
        self, shapes: Shapes, dtypes: tuple[str, ...], parameters: Mapping[str, Any]
    ) -> str | None:
        shape, axis = shapes[0], parameters.get("axis", -1)
        if parameters.get("label_smoothing", 0.0) != 0.0:
            return "label smoothing has no compiled form here"
        reason = no_classes(shape, axis)
        if reason is not None:
            return reason
        units = shape[: axis % len(shape)] + shape[axis % len(shape) + 1 :]
        if dtypes[1] not in INDEX or shapes[1] != units:
            return (
                f"the target of shape {shapes[1]} and dtype {dtypes[1]} does not hold the class "
                f"indices of a prediction of shape {shape}"
            )
        return None

    def unit_axes(self, shape: Shape, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        return (parameters.get("axis", -1) % len(shape),)

    def prepare(
        self, shapes: Shapes, dtypes: tuple[str, ...], purpose: Purpose,
        parameters: Mapping[str, Any],
    ) -> Launch:  # fmt: skip
        shape, (dtype, target_dtype) = shapes[0], dtypes
        axis = parameters.get("axis", -1) % len(shape)
        classes, inner = shape[axis], math.prod(shape[axis + 1 :])
        samples = math.prod(shape) // classes
        vector = _class_weights(parameters.get("class_weights"), classes, dtype)
        names = ("ROWS", "CLASSES", "WEIGHTED", "GRADIENT", "VALUES")
        given = (inner == 1, vector is not None, *purpose)
        flags = tuple(name for name, on in zip(names, given, strict=True) if on)
        run = compiled(dtype, target_dtype, flags)
        kind = dtype if purpose[0] else "float32"  # weights are all that it reads of them
        outside = softmax.compiled("outside", kind, target_dtype, ("WEIGHTED",) * purpose[0])
        block = BLOCK
        if purpose[1]:
            fewest, numbers = (1, CLEARED) if inner == 1 else (256, WRITTEN)
            block = min(BLOCK, max(fewest, numbers // classes))
        blocks = -(-samples // block)
        numbers = GATHER * samples + (samples * classes // 2 if purpose[1] else 0)
        sizes = (block, samples, classes, inner)

        def check(target: int, weights: int) -> None:
            where = outside(samples, classes, target, weights)
            if where >= 0:
                raise NoSuchClassError("cross_entropy", where, classes)

        def launch(
            prediction: int, target: int, weights: int, gradient: int, values: int, factor: float
        ) -> float:
            of_class = 0 if vector is None else address(vector)
            if blocks <= 1:  # an array and its sum would take longer than the kernel
                total = run(
                    0, blocks, *sizes, samples, prediction, target, weights, gradient, values, 0,
                    of_class, factor,
                )  # fmt: skip
                if total != total:
                    check(target, weights)
                return float(total * factor)
            check(target, weights)
            partial = np.empty(blocks)
            places = (prediction, target, weights, gradient, values, address(partial), of_class)
            pool.run(run, blocks, pool.parts(numbers), *sizes, 0, *places, factor)
            return float(partial.sum()) * factor

        return launch


def _class_weights(given: Any, classes: int, dtype: str) -> np.ndarray | None:
    if given is None:
        return None
    vector = np.ascontiguousarray(given, dtype)
    if vector.shape != (classes,):
        raise LossError(
            f"cross_entropy: class_weights has shape {vector.shape}, expected ({classes},)"
        )
    return vector


PROGRAMS = {LOSS: OfLogProbabilities()}
