# ruff: noqa: F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""Losses of embeddings that lie near or far: a row is a pair or a triplet, features last.

Sums over a row are made in double precision, and again, more carefully, where they must be:

- |x|^2 - |y|^2 of lengths that are nearly equal is the sum of (x - y)(x + y);
- 1 - cosine of a small angle is half the squared distance of the unit vectors;
- the slope of a cosine along a vector's dominating axis k is proportional to b_k |a|^2 - a_k a.b,
  where both sums leave k out;
- where squares overflow or underflow, the row is scaled by powers of 2.

In single precision the first three are rare, for double has digits to lose, and the last is but for
infinities. A second reading of the row, out of the cache, writes the slopes.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import float64, intp

from lossary.kernels.numba import (
    distances_pairs as pairs,
)
from lossary.kernels.numba import (
    distances_triplets as triplets,
)
from lossary.kernels.numba import (
    machine,
    pool,
    scalar,
    special,
)
from lossary.kernels.numba.memory import address
from lossary.kernels.numba.program import REAL, Launch, Purpose, Shape, Shapes
from lossary.kernels.numba.sums import add, added

PART = 512  # numbers summed in one go; of longer rows, sums of parts keep what they round off
BLOCK = 4096  # numbers of an input in the rows of one partial sum
MOST_ROWS = 128  # in one partial sum
# Squared lengths between these, and products of two, have neither overflowed nor underflowed.
HUGE, TINY = 2.0**480, 2.0**-440


def whole(a, b, c, count):
    """The sums of ``part`` over rows of any length."""
    x, y, z = part(a, b, c, PART if count > PART else count)
    lost_x, lost_y, lost_z = 0.0, 0.0, 0.0
    for low in range(PART, count, PART):
        n = PART if count - low > PART else count - low
        u, v, w = part(past(a, low), past(b, low), past(c, low), n)
        x, lost_x = add(x, lost_x, u)
        y, lost_y = add(y, lost_y, v)
        z, lost_z = add(z, lost_z, w)
    return added(x, lost_x), added(y, lost_y), added(z, lost_z)


def blank(g, count):
    """0 everywhere."""
    full_width()
    for i in range(count):
        g[i] = zero


def farthest(a, b, count):
    """The largest |a - b|; NaN does not count."""
    most = 0.0
    for i in range(count):
        size = absolute(float64(a[i]) - float64(b[i]))
        most = size if size > most else most
    return most


def scale_of(most):
    """The power of 2 that brings a number near 1."""
    if most == 0.0 or not most < infinity:
        return 1.0
    exponent = math.frexp(most)[1]
    exponent = 1000 if exponent > 1000 else exponent
    return math.ldexp(1.0, -exponent if exponent > -1000 else 1000)


def within(square):
    """Whether the sum of squares holds what it should."""
    always_inline()
    return TINY < square < HUGE


def rows(
    first, last, samples, count, most, a_at, b_at, c_at, weights_at, to_a_at, to_b_at, to_c_at,
    values_at, partial_at, margin, factor,
):  # fmt: skip
    """``partial`` receives the weighted value of each ``most`` rows; the last is returned too."""
    a_all, b_all, c_all = reals_at(a_at), reals_at(b_at), reals_at(c_at)
    to_a_all, to_b_all, to_c_all = reals_at(to_a_at), reals_at(to_b_at), reals_at(to_c_at)
    weights, values, partial = reals_at(weights_at), reals_at(values_at), doubles_at(partial_at)
    total = 0.0
    for block in range(first, last):
        total = 0.0
        end = (block + 1) * most
        for row in range(block * most, end if end < samples else samples):
            at = row * count
            to_a, to_b, to_c = past(to_a_all, at), past(to_b_all, at), past(to_c_all, at)
            weight = float64(weights[row]) if WEIGHTED else 1.0
            value = 0.0
            if WEIGHTED and weight == 0.0:
                if GRADIENT:
                    blank(to_a, count)
                    blank(to_b, count)
                    if TRIPLET:
                        blank(to_c, count)
            else:
                c = past(c_all, at if TRIPLET else row)
                value = unit(
                    past(a_all, at), past(b_all, at), c, to_a, to_b, to_c, count, margin,
                    weight * factor,
                )  # fmt: skip
            total += weight * value
            if VALUES:
                values[row] = real(value)
        partial[block] = total
    return total


# Of each loss: (the sums that it begins with, what else it compiles in their order, itself last).
_COMMON = (add, added, blank, farthest, scale_of, within)
_PARTS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "triplet": (
        triplets.sides,
        (
            triplets.zero_or,
            triplets.pulls,
            triplets.scaled_measure,
            triplets.triplet_measured,
            triplets.triplet_of_any_size,
            triplets.triplet,
        ),
    ),
    "cosine_embedding": (
        pairs.moments,
        (
            pairs.cross,
            pairs.chord,
            pairs.turns,
            pairs.largest,
            pairs.along_own_axis,
            pairs.finite,
            pairs.directed,
            pairs.cosine_measured,
            pairs.cosine_embedding,
        ),
    ),
    "contrastive": (pairs.distance, (pairs.pushes, pairs.contrastive_measured, pairs.contrastive)),
}
# Terms of these may be reordered, and no products of those are fused.
_SUMS = (
    triplets.sides,
    triplets.lengths,
    triplets.excesses,
    pairs.moments,
    pairs.distance,
    pairs.chord,
)
_ROUNDED = (triplets.excess, pairs.cross)


@functools.cache
def compiled(loss: str, dtype: str, flags: tuple[str, ...]) -> Any:
    """The kernel of one loss."""
    real = np.float32 if dtype == "float32" else np.float64
    integer = np.int32 if dtype == "float32" else np.int64
    double = dtype == "float64"
    names: dict[str, Any] = {
        "__name__": __name__, "math": math, "float64": np.float64, "real": real,
        "integer": integer, "zero": real(0), "one": real(1), "infinity": math.inf,
        "LARGEST": sys.float_info.max,
        "absolute": scalar.absolute, "bits": machine.bits, "from_bits": machine.from_bits,
        "full_width": machine.full_width, "always_inline": machine.always_inline,
        "past": machine.past, "borrow": machine.borrow, "give_back": machine.give_back,
        "reals_at": machine.POINTER[real], "doubles_at": machine.POINTER[np.float64],
        "PART": PART, "HUGE": HUGE, "TINY": TINY, "TOGETHER": 2.0**300,
        # Below which share of the distances their difference is found number by number, and below
        # which 1 - cosine is: double precision has digits to lose where single is asked for.
        "REACH": 8.0 if double else 2.0**-20, "CLOSE": 0.5 if double else 2.0**-20,
        "DOUBLE": double, "TRIPLET": loss == "triplet", **{name: name in flags for name in _FLAGS},
    }  # fmt: skip
    mark = special.fingerprint(sys.modules[__name__], pairs, triplets)
    variant = "_".join([mark, loss, dtype, *(name.lower() for name in flags)])

    def bind(function: Any, also: Mapping[str, Any] | None = None, role: str = "") -> Any:
        way = special.LOOSE if function in _SUMS else special.EXACT
        way = set() if function in _ROUNDED else way
        return special.bind(function, {**names, **(also or {})}, way, variant + role)

    for helper in _COMMON:
        names[helper.__name__] = bind(helper)
    sums, parts = _PARTS[loss]
    sums = triplets.lengths if "CITY" in flags else sums
    names["measure"] = bind(whole, {"part": bind(sums)}, "_measure")
    names["excess"] = bind(triplets.excess)
    names["compare"] = bind(whole, {"part": bind(triplets.excesses)}, "_compare")
    for helper in parts:
        names[helper.__name__] = bind(helper)
    names["unit"] = names[parts[-1].__name__]
    return special.entry(rows, names, float64(*[intp] * 14, float64, float64), variant)


_FLAGS = ("CITY", "SWAP", "HALF", "WEIGHTED", "GRADIENT", "VALUES")
_UNREAD = np.empty(1)
_NOWHERE = address(_UNREAD)


class OfRows:
    """A loss of rows of embeddings as a program."""

    def __init__(self, loss: str) -> None:
        self.loss = loss
        self.triplet = loss == "triplet"

    def decline(
        self, shapes: Shapes, dtypes: tuple[str, ...], parameters: Mapping[str, Any]
    ) -> str | None:
        (shape, second, third), dtype = shapes, dtypes[0]
        if len(shape) < 2 or shape[-1] == 0:
            return f"embeddings of shape {shape} are not (rows, features)"
        if second != shape or third != (shape if self.triplet else shape[:-1]):
            return "the inputs' shapes differ"
        if dtype not in REAL or any(other != dtype for other in dtypes):
            return "the inputs are not of one dtype in single or double precision"
        return None

    def unit_axes(self, shape: Shape, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        return (len(shape) - 1,)

    def prepare(
        self, shapes: Shapes, dtypes: tuple[str, ...], purpose: Purpose,
        parameters: Mapping[str, Any],
    ) -> Launch:  # fmt: skip
        features = shapes[0][-1]
        samples = math.prod(shapes[0][:-1])
        most = max(min(BLOCK // features, MOST_ROWS), 1)
        blocks = -(-samples // most)
        city = parameters.get("p", 2) == 1
        given = (city, parameters.get("swap", False), parameters.get("half", False), *purpose)
        flags = tuple(name for name, on in zip(_FLAGS, given, strict=True) if on)
        run = compiled(self.loss, dtypes[0], flags)
        margin = float(parameters["margin"])
        sizes = (samples, features, most)
        triplet = self.triplet

        def launch(*memory: Any) -> float:
            *places, factor = memory
            if not triplet:  # targets have no gradient
                places.insert(6, 0)
            if blocks == 1:  # its sum is what the kernel returns
                return float(factor * run(0, 1, *sizes, *places, _NOWHERE, margin, factor))
            partial = np.empty(blocks)
            rest = (*sizes, *places, address(partial), margin, factor)
            pool.run(run, blocks, pool.parts(samples * features), *rest)
            return float(partial.sum()) * float(factor)

        return launch


PROGRAMS: dict[str, OfRows] = {
    loss: OfRows(loss) for loss in ("triplet", "cosine_embedding", "contrastive")
}
