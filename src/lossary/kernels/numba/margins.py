# ruff: noqa: D103, F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""Margins of scores along the last axis: against every wrong class, and of every true label.

Shortfalls are formed and added in double precision, the difference of two scores before the margin
is added, which would round into ties. Within a row sums run in groups, whose sums are added with
what each addition loses; so are the values of rows. A class counts where its shortfall is above 0,
or is none (NaN).
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import float64, intp

from lossary.kernels.numba import machine, pool, softmax, special
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

BLOCK = 1 << 14  # numbers of the rows whose sum is one of the partial sums
GROUP = 512  # classes whose sum is made in any order
SCAN = 64  # classes that are searched for true labels at once
WHOLE = 32  # what rows of doubles are filled up to: loops over them are unrolled


def shortfall(score, true, margin):
    always_inline()
    return margin + (score - true)


def clear(g, n):
    for i in range(n):
        g[i] = zero


def rivals(z, g, hit, true, margin, scale, n):
    """Sums of the values and of the slopes of all classes; the true one is no rival."""
    full_width()
    total, pull = 0.0, 0.0
    for i in range(n):
        short = shortfall(float64(z[i]), true, margin)
        short = short if i != hit else -1.0
        # Adding "0 if within the margin" would say the same, but such a sum is not vectorised.
        counts = 0.0 if short <= 0.0 else 1.0
        short = -1.0 if short < -1.0 else short
        slope = (short + short) * counts if SQUARED else counts
        total += short * short * counts if SQUARED else short * counts
        pull += slope
        if GRADIENT:
            g[i] = real(slope * scale)
    return total, pull


def multi_margin(
    first, last, block, samples, classes, unchecked, prediction_at, target_at, weights_at,
    gradient_at, values_at, partial_at, margin, divisor, factor,
):  # fmt: skip
    """The sum of the weighted values of the last block of rows; NaN if an index lies outside.

    ``partial``, if there is any, receives every block's sum. The first ``unchecked`` class indices
    are looked at before anything is written.
    """
    if unchecked > 0 and outside(unchecked, classes, target_at, weights_at) >= 0:
        return math.nan
    z_all, g_all, t = reals_at(prediction_at), reals_at(gradient_at), indices_at(target_at)
    weights, values, partial = reals_at(weights_at), reals_at(values_at), doubles_at(partial_at)
    total = 0.0
    for index in range(first, last):
        total, missed = 0.0, 0.0
        end = (index + 1) * block
        for row in range(index * block, end if end < samples else samples):
            z, g = past(z_all, row * classes), past(g_all, row * classes)
            weight = float64(weights[row]) if WEIGHTED else 1.0
            if WEIGHTED and weight == 0.0:
                if GRADIENT:
                    clear(g, classes)
                if VALUES:
                    values[row] = zero
                continue
            hit, scale = t[row], weight * factor / divisor
            true = float64(z[hit])
            whole, lost, pull = 0.0, 0.0, 0.0
            for low in range(0, classes, GROUP):
                n = GROUP if classes - low > GROUP else classes - low
                a, b = rivals(past(z, low), past(g, low), hit - low, true, margin, scale, n)
                whole, lost = add(whole, lost, a)
                pull += b
            value = added(whole, lost) / divisor
            if GRADIENT:
                g[hit] = real(-(pull * scale))
            if VALUES:
                values[row] = real(value)
            total, missed = add(total, missed, weight * value)
        total = added(total, missed)
        if partial_at != 0:
            partial[index] = total
    return total


def widen(z, t, score, spare, reached, n):
    """A row in double precision; how many scores, and how many shares, are not finite."""
    full_width()
    strange, foreign = zero, zero
    for i in range(n):
        score[i] = float64(z[i])
        rest = 1.0 - float64(t[i])
        spare[i] = 0.0 if rest <= 0.0 else rest
        if GRADIENT:
            reached[i] = 0.0
        strange += zero if absolute(z[i]) < infinity else one
        foreign += zero if absolute(t[i]) < infinity else one
    return strange, foreign


def some(t, n):
    """How many shares are not 0."""
    full_width()
    found = zero
    for i in range(n):
        found += one if t[i] != zero else zero
    return found


def pairs(score, spare, reached, true, margin, share, n):
    """Sums, over the others of one true label, of the shortfalls and of the shares that have one.

    ``reached`` grows by the label's share where there is one.
    """
    full_width()
    total, pull = 0.0, 0.0
    for i in range(n):
        short = shortfall(score[i], true, margin)
        counts = 0.0 if short <= 0.0 else 1.0
        weight = spare[i] * counts
        total += weight * (-1.0 if short < -1.0 else short)
        if GRADIENT:
            pull += weight
            reached[i] += share * counts
    return total, pull


def slopes(spare, reached, g, scale, n):
    full_width()
    for i in range(n):
        g[i] = real(spare[i] * reached[i] * scale)


def multilabel_margin(
    first, last, block, samples, classes, prediction_at, target_at, weights_at, gradient_at,
    values_at, partial_at, margin, divisor, factor,
):  # fmt: skip
    """The sum of the weighted values of the last block of rows; ``partial`` as above."""
    z_all, t_all, g_all = reals_at(prediction_at), reals_at(target_at), reals_at(gradient_at)
    weights, values, partial = reals_at(weights_at), reals_at(values_at), doubles_at(partial_at)
    width = (classes + WHOLE - 1) // WHOLE * WHOLE
    line = 8 * width + 64
    borrowed = borrow(64 + 5 * line)
    at = (borrowed + 63) & -64
    score, spare, reached = doubles_at(at), doubles_at(at + line), doubles_at(at + 2 * line)
    labels, pulls = integers_at(at + 3 * line), doubles_at(at + 4 * line)
    for k in range(classes, width):  # others that nobody owes anything
        score[k] = 0.0
        spare[k] = 0.0
        reached[k] = 0.0
    total = 0.0
    for index in range(first, last):
        total, missed = 0.0, 0.0
        end = (index + 1) * block
        for row in range(index * block, end if end < samples else samples):
            z, t = past(z_all, row * classes), past(t_all, row * classes)
            g = past(g_all, row * classes)
            weight = float64(weights[row]) if WEIGHTED else 1.0
            if WEIGHTED and weight == 0.0:
                if GRADIENT:
                    clear(g, classes)
                if VALUES:
                    values[row] = zero
                continue
            strange, foreign = widen(z, t, score, spare, reached, classes)
            count = 0
            for low in range(0, classes, SCAN):
                n = SCAN if classes - low > SCAN else classes - low
                if classes > SCAN and some(past(t, low), n) == zero:
                    continue
                for k in range(low, low + n):
                    if t[k] != zero:
                        labels[count] = k
                        pulls[count] = 0.0
                        count += 1
            whole, lost = 0.0, 0.0
            for low in range(0, width, GROUP):
                n = GROUP if width - low > GROUP else width - low
                for which in range(count):
                    label = labels[which]
                    share, true = float64(t[label]), score[label]
                    own, before = spare[label], reached[label]
                    if own != 0.0:  # no label owes itself
                        spare[label] = 0.0
                    a, b = pairs(
                        past(score, low), past(spare, low), past(reached, low), true, margin,
                        share, n,
                    )  # fmt: skip
                    if own != 0.0:
                        spare[label], reached[label] = own, before
                    whole, lost = add(whole, lost, share * a)
                    pulls[which] += share * b
            # Pairs that weigh nothing are in the definition's sum: 0 times infinity is none.
            odd = strange + foreign != zero
            value = math.nan if odd else added(whole, lost) / divisor
            if GRADIENT:
                scale = weight * factor / divisor if foreign == zero else math.nan
                slopes(spare, reached, g, scale, classes)
                for which in range(count):
                    label = labels[which]
                    g[label] = real((spare[label] * reached[label] - pulls[which]) * scale)
            if VALUES:
                values[row] = real(value)
            total, missed = add(total, missed, weight * value)
        total = added(total, missed)
        if partial_at != 0:
            partial[index] = total
    give_back(borrowed)
    return total


_KERNELS: dict[str, tuple[Any, tuple[Any, ...], tuple[Any, ...]]] = {
    # The kernel, its helpers whose sums may be reordered, and its integers.
    "multi_margin": (multi_margin, (softmax.outside, clear, rivals), (intp,) * 12),
    "multilabel_margin": (multilabel_margin, (clear, widen, some, pairs, slopes), (intp,) * 11),
}


@functools.cache
def compiled(loss: str, dtype: str, target: str, flags: tuple[str, ...]) -> Any:
    """The kernel of a loss for these dtypes and flags."""
    function, loose, integers = _KERNELS[loss]
    names = softmax.names(dtype, target, flags) | {
        "__name__": __name__, "SQUARED": "SQUARED" in flags,
        "integers_at": machine.POINTER[np.int64],
        "GROUP": GROUP, "SCAN": SCAN, "WHOLE": WHOLE,
    }  # fmt: skip
    mark = special.fingerprint(sys.modules[__name__], softmax)
    variant = "_".join([mark, dtype, target, *(name.lower() for name in flags)])
    for helper in (shortfall, add, added):
        names[helper.__name__] = special.bind(helper, names, special.EXACT, variant)
    for helper in loose:
        names[helper.__name__] = special.bind(helper, names, special.LOOSE, variant)
    return special.entry(function, names, float64(*integers, *[float64] * 3), variant)


class Margins:
    """A loss of margins along the last axis as a program."""

    def __init__(self, loss: str) -> None:
        self.loss = loss

    def decline(
        self, shapes: Shapes, dtypes: tuple[str, ...], parameters: Mapping[str, Any]
    ) -> str | None:
        shape = shapes[0]
        reason = no_classes(shape, parameters.get("axis", -1), last=True)
        if reason is not None:
            return reason
        if self.loss == "multilabel_margin":
            if dtypes[1] != dtypes[0] or shapes[1] != shape:
                return "the target is not multi-hot in the prediction's shape and dtype"
            return None
        if parameters.get("p", 1) not in (1, 2):
            return "p is neither 1 nor 2"
        if dtypes[1] not in INDEX or shapes[1] != shape[:-1]:
            return "the target does not hold class indices"
        return None

    def unit_axes(self, shape: Shape, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        return (len(shape) - 1,)

    def prepare(
        self, shapes: Shapes, dtypes: tuple[str, ...], purpose: Purpose,
        parameters: Mapping[str, Any],
    ) -> Launch:  # fmt: skip
        classes, samples = shapes[0][-1], math.prod(shapes[0][:-1])
        dtype, target_dtype = dtypes
        indexed = self.loss == "multi_margin"
        given = (indexed and parameters.get("p", 1) == 2, *purpose)
        names = ("SQUARED", "WEIGHTED", "GRADIENT", "VALUES")
        flags = tuple(name for name, on in zip(names, given, strict=True) if on)
        run = compiled(self.loss, dtype, target_dtype, flags)
        outside = None
        if indexed:
            kind = dtype if purpose[0] else "float32"  # weights are all that it reads of them
            outside = softmax.compiled("outside", kind, target_dtype, ("WEIGHTED",) * purpose[0])
        divided = not indexed or parameters.get("divide_by_classes", True)
        margin, divisor = float(parameters.get("margin", 1.0)), float(classes) if divided else 1.0
        block = max(1, BLOCK // classes)
        blocks, sizes = -(-samples // block), (block, samples, classes)
        numbers = samples * classes // (2 if indexed else 1)
        unchecked = ((samples,), (0,)) if indexed else ((), ())

        def check(target: int, weights: int) -> None:
            where = -1 if outside is None else outside(samples, classes, target, weights)
            if where >= 0:
                raise NoSuchClassError(self.loss, where, classes)

        def launch(
            prediction: int, target: int, weights: int, gradient: int, values: int, factor: float
        ) -> float:
            places = (prediction, target, weights, gradient, values)
            if blocks <= 1:  # an array and its sum would take longer than the kernel
                total = run(0, blocks, *sizes, *unchecked[0], *places, 0, margin, divisor, factor)
                if total != total:
                    check(target, weights)
                return float(total * factor)
            check(target, weights)
            partial = np.empty(blocks)
            rest = (*unchecked[1], *places, address(partial), margin, divisor, factor)
            pool.run(run, blocks, pool.parts(numbers), *sizes, *rest)
            return float(partial.sum()) * factor

        return launch


PROGRAMS = {loss: Margins(loss) for loss in _KERNELS}
