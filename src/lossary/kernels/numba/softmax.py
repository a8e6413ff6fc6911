# ruff: noqa: D103, F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""Softmax cross-entropy in one pass over the logits: class indices, one-hot rows or distributions.

With ``a`` the likeliest class, ``d_k = z_a - z_k`` and ``rest`` the sum of ``exp(-d_k)`` over the
other classes, the surprise at class k is ``d_k + log1p(rest)``: nothing cancels. For target weights
q_k of sum Q (label smoothing and class weights are in them)

    value = sum_k q_k d_k + Q log1p(rest)
    slope = e_k Q / (1 + rest) - q_k, and (Q - q_a - q_a rest) / (1 + rest) at the likeliest class,

where Q - q_a is summed as such. Rows are read three times, but from the second time on out of the
cache. Few classes, or a class axis that is not the last, are done tile by tile across samples.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import float64, intp, void

from lossary.contract import LossError
from lossary.kernels.numba import machine, pool, scalar, special
from lossary.kernels.numba.memory import address
from lossary.kernels.numba.program import INDEX, Shape

BLOCK = 512  # classes summed in the array's precision before the sum goes on in double
TILE = 512  # samples side by side
FEW = 48  # classes up to which samples are transposed into tiles
SMALLEST_SHARE = 1 << 16  # numbers below which a second thread does not pay


# -- helpers over one block of a row: vectorised along the classes ------------------------------


def highest(z, high):
    """The larger of ``high`` and the block's maximum, as ordered integers; the finite entries."""
    full_width()
    finite = zero
    for i in range(z.size):
        pattern = bits(z[i])
        # Ordered as the numbers are, NaN on top.
        key = integer(pattern ^ integer(integer(pattern >> sign_bit) & no_sign))
        high = key if key > high else high
        if SMOOTHED:
            finite += one if absolute(z[i]) < infinity else zero
    return high, finite


def tally(z, y, c, e, high, keep, share):
    """exp(z - high) into ``e``; the sums of it, of q, and of q (high - z)."""
    full_width()
    rest, mass, gap = zero, zero, zero
    for i in range(z.size):
        below = z[i] - high
        power = exp(below)
        rest += power
        if GRADIENT:
            e[i] = power
        if DENSE:
            q = keep * y[i] if SOFT else zero
            if SMOOTHED:
                q += share if absolute(z[i]) < infinity else zero
            if CLASSES:
                q *= c[i]
            mass += q
            # A weight of 0 wins over an infinite distance. Adding "0 if q is 0, else q * below"
            # would say the same, but such a sum is not vectorised.
            gap -= q * (deepest if below < deepest else below)
            gap += infinity if below < deepest and q != zero else zero
    return rest, mass, gap


def finish(z, y, c, e, keep, share, ratio, factor):
    """From exp(z - high) to the slope."""
    full_width()
    for i in range(z.size):
        if DENSE:
            q = keep * y[i] if SOFT else zero
            if SMOOTHED:
                q += share if absolute(z[i]) < infinity else zero
            if CLASSES:
                q *= c[i]
            e[i] = (e[i] * ratio - q) * factor
        else:
            e[i] = e[i] * ratio * factor


def find(z, high):
    """Where ``high`` is first met."""
    for i in range(z.size):
        if z[i] == high:
            return i
    return 0


def rows(
    first, last, classes, prediction_at, target_at, weights_at, gradient_at, values_at,
    partial_at, class_weights_at, smoothing, factor,
):  # fmt: skip
    """Class axis last, any number of classes; ``partial`` receives each row's weighted value."""
    z_all = reals_at(prediction_at, last * classes)
    g_all = reals_at(gradient_at, last * classes if GRADIENT else 0)
    y_all = reals_at(target_at, last * classes if SOFT else 0)
    t_all = indices_at(target_at, 0 if SOFT else last)
    c = reals_at(class_weights_at, classes if CLASSES else 0)
    weights = reals_at(weights_at, last if WEIGHTED else 0)
    values = reals_at(values_at, last if VALUES else 0)
    partial = doubles_at(partial_at, last)
    keep = real(1.0 - smoothing)
    for row in range(first, last):
        z = z_all[row * classes : (row + 1) * classes]
        y = y_all[row * classes : (row + 1) * classes] if SOFT else z
        g = g_all[row * classes : (row + 1) * classes] if GRADIENT else z
        weight = weights[row] if WEIGHTED else one
        if weight == zero:
            partial[row] = 0.0
            if GRADIENT:
                g[:] = zero
            if VALUES:
                values[row] = zero
            continue
        key, finite, best = lowest_key, 0.0, 0
        for low in range(0, classes, BLOCK):
            grown, count = highest(z[low : low + BLOCK], key)
            finite += count
            best = low if grown > key else best
            key = grown
        high = from_bits(integer(key ^ integer(integer(key >> sign_bit) & no_sign)))
        peak = best + find(z[best : best + BLOCK], high)
        share = real(smoothing / max(finite, 1.0)) if SMOOTHED else zero
        rest, mass, gap = 0.0, 0.0, 0.0
        for low in range(0, classes, BLOCK):
            end = min(low + BLOCK, classes)
            # The likeliest class stays out of the sums.
            middle = peak if low <= peak < end else end
            a, b, d = tally(
                z[low:middle], y[low:middle], c[low:middle], g[low:middle], high, keep, share
            )
            rest, mass, gap = rest + a, mass + b, gap + d
            if middle < end:
                start = middle + 1
                a, b, d = tally(
                    z[start:end], y[start:end], c[start:end], g[start:end], high, keep, share
                )
                rest, mass, gap = rest + a, mass + b, gap + d
        at_peak = float64(keep * y[peak]) if SOFT else 0.0
        if SMOOTHED:
            at_peak += float64(share) if absolute(z[peak]) < infinity else 0.0
        if CLASSES:
            at_peak *= c[peak]
        hit, q_hit, smooth_hit = 0, 0.0, 0.0
        if not SOFT:
            hit = t_all[row]
            class_weight = float64(c[hit]) if CLASSES else 1.0
            q_hit = float64(keep) * class_weight
            if SMOOTHED:
                smooth_hit = class_weight * (share if absolute(z[hit]) < infinity else zero)
            if hit == peak:
                at_peak += q_hit
            else:
                mass += q_hit
                gap += q_hit * (float64(high) - float64(z[hit])) if q_hit != 0.0 else 0.0
        value = gap + (mass + at_peak) * math.log1p(rest)
        partial[row] = float64(weight) * value
        if VALUES:
            values[row] = real(value)
        if GRADIENT:
            share_of_all = 1.0 / (1.0 + rest)
            ratio = (mass + at_peak) * share_of_all
            portion = float64(weight) * factor
            power_hit = float64(g[hit])
            for low in range(0, classes, BLOCK):
                end = min(low + BLOCK, classes)
                finish(
                    z[low:end], y[low:end], c[low:end], g[low:end],
                    keep, share, real(ratio), real(portion),
                )  # fmt: skip
            if not SOFT and hit != peak:
                g[hit] = real((power_hit * ratio - (q_hit + smooth_hit)) * portion)
            g[peak] = real((mass - at_peak * rest) * share_of_all * portion)


# -- helpers over one class of a tile: vectorised along the samples -----------------------------


def tile_highest(z, high, peak, finite, k):
    full_width()
    for i in range(z.size):
        above = not (z[i] <= high[i])  # true for NaN too
        high[i] = z[i] if above else high[i]
        peak[i] = k if above else peak[i]
        if SMOOTHED:
            finite[i] += one if absolute(z[i]) < infinity else zero


def tile_tally(z, y, t, e, high, peak, share, rest, mass, at_peak, gap, k, keep, class_weight):
    full_width()
    for i in range(z.size):
        below = z[i] - high[i]
        power = exp(below)
        other = peak[i] != k
        rest[i] += float64(power if other else zero)
        e[i] = power
        q = keep * (y[i] if SOFT else (one if t[i] == k else zero))
        if SMOOTHED:
            q += share[i] if absolute(z[i]) < infinity else zero
        q *= class_weight
        mass[i] += q if other else zero
        at_peak[i] += zero if other else q
        gap[i] += -(q * below) if (other and q != zero) else zero


def tile_value(rest, mass, at_peak, gap, values, weights):
    full_width()
    total = 0.0
    for i in range(values.size):
        value = gap[i] + (mass[i] + at_peak[i]) * log1p(real(rest[i]))
        present = weights[i] != zero
        values[i] = value if present else zero
        total += float64(value * weights[i] if present else zero)
    return total


def tile_finish(
    z, y, t, e, peak, share, rest, mass, at_peak, weights, k, keep, class_weight, factor
):
    full_width()
    for i in range(z.size):
        q = keep * (y[i] if SOFT else (one if t[i] == k else zero))
        if SMOOTHED:
            q += share[i] if absolute(z[i]) < infinity else zero
        q *= class_weight
        remainder = real(rest[i])
        share_of_all = one / (one + remainder)
        slope = e[i] * ((mass[i] + at_peak[i]) * share_of_all) - q
        top = (mass[i] - at_peak[i] * remainder) * share_of_all
        slope = (slope if peak[i] != k else top) * (weights[i] * factor)
        e[i] = slope if weights[i] != zero else zero


def gather(source, target, width, classes):
    """Rows of classes into columns of samples."""
    for i in range(width):
        for k in range(classes):
            target[k * TILE + i] = source[i * classes + k]


def scatter(source, target, width, classes):
    for i in range(width):
        for k in range(classes):
            target[i * classes + k] = source[k * TILE + i]


def tiles(
    first, last, classes, inner, samples, prediction_at, target_at, weights_at, gradient_at,
    values_at, partial_at, class_weights_at, smoothing, factor,
):  # fmt: skip
    """Logits of shape (outer, classes, inner); inner = 1 is transposed tile by tile.

    A tile is TILE samples of one outer index (of consecutive outer indices for inner = 1).
    """
    size = samples * classes
    z_all = reals_at(prediction_at, size)
    g_all = reals_at(gradient_at, size if GRADIENT else 0)
    y_all = reals_at(target_at, size if SOFT else 0)
    t_all = indices_at(target_at, 0 if SOFT else samples)
    c = reals_at(class_weights_at, classes if CLASSES else 0)
    weights_all = reals_at(weights_at, samples if WEIGHTED else 0)
    values_all = reals_at(values_at, samples if VALUES else 0)
    partial = doubles_at(partial_at, last)
    keep, real_factor = real(1.0 - smoothing), real(factor)
    high = np.empty(TILE, real)
    peak = np.empty(TILE, np.int32)
    finite, share = np.empty(TILE, real), np.empty(TILE, real)
    mass, at_peak = np.empty(TILE, real), np.empty(TILE, real)
    gap, values = np.empty(TILE, real), np.empty(TILE, real)
    ones, rest = np.ones(TILE, real), np.empty(TILE, np.float64)
    flat = inner == 1
    span = samples if flat else inner
    per_outer = (span + TILE - 1) // TILE
    columns = classes * TILE
    z_tile = np.empty(columns if flat else 0, real)
    y_tile = np.empty(columns if flat and SOFT else 0, real)
    e_tile = np.empty(columns if flat or not GRADIENT else 0, real)
    for tile in range(first, last):
        outer = tile // per_outer
        low = (tile % per_outer) * TILE
        width = min(TILE, span - low)
        start = outer * inner + low  # the first sample
        base = start * classes if flat else outer * classes * inner + low
        stride = TILE if flat else inner
        if flat:
            gather(z_all[base : base + width * classes], z_tile, width, classes)
            if SOFT:
                gather(y_all[base : base + width * classes], y_tile, width, classes)
        z = z_tile if flat else z_all[base:]
        y = (y_tile if flat else y_all[base:]) if SOFT else z
        e = e_tile if flat or not GRADIENT else g_all[base:]
        e_stride = TILE if flat or not GRADIENT else inner
        t = t_all[start : start + width]
        weights = weights_all[start : start + width] if WEIGHTED else ones[:width]
        high[:width] = -infinity
        for state in (mass, at_peak, gap, finite):
            state[:width] = zero
        peak[:width] = 0
        rest[:width] = 0.0
        for k in range(classes):
            tile_highest(
                z[k * stride : k * stride + width], high[:width], peak[:width], finite[:width], k
            )
        if SMOOTHED:
            for i in range(width):
                share[i] = real(smoothing / max(finite[i], one))
        for k in range(classes):
            tile_tally(
                z[k * stride : k * stride + width], y[k * stride : k * stride + width], t,
                e[k * e_stride : k * e_stride + width], high[:width], peak[:width],
                share[:width], rest[:width], mass[:width], at_peak[:width], gap[:width],
                k, keep, c[k] if CLASSES else one,
            )  # fmt: skip
        partial[tile] = tile_value(
            rest[:width], mass[:width], at_peak[:width], gap[:width], values[:width], weights
        )
        if VALUES:
            values_all[start : start + width] = values[:width]
        if GRADIENT:
            for k in range(classes):
                tile_finish(
                    z[k * stride : k * stride + width], y[k * stride : k * stride + width], t,
                    e[k * e_stride : k * e_stride + width],
                    peak[:width], share[:width], rest[:width], mass[:width], at_peak[:width],
                    weights, k, keep, c[k] if CLASSES else one, real_factor,
                )  # fmt: skip
            if flat:
                scatter(e, g_all[base : base + width * classes], width, classes)


def outside(samples, classes, target_at, weights_at):
    """The first sample that counts and whose class index lies outside, or -1."""
    target = indices_at(target_at, samples)
    weights = reals_at(weights_at, samples if WEIGHTED else 0)
    for i in range(samples):
        counts = not WEIGHTED or weights[i] != zero
        if counts and (target[i] < 0 or target[i] >= classes):
            return i
    return -1


# -- compiling and running -----------------------------------------------------------------------


def names(dtype: str, target: str, flags: tuple[str, ...]) -> dict[str, Any]:
    """What the functions above mean in one variant."""
    real = np.float32 if dtype == "float32" else np.float64
    integer = np.int32 if dtype == "float32" else np.int64
    width = 8 * np.dtype(real).itemsize
    limits, soft = np.finfo(real), target not in INDEX
    return {
        **scalar.functions(real), "__name__": __name__, "np": np, "math": math,
        "real": real, "integer": integer, "float64": np.float64, "zero": real(0), "one": real(1),
        "infinity": real(math.inf), "deepest": -limits.max, "smallest": limits.smallest_normal,
        "sign_bit": integer(width - 1), "no_sign": integer((1 << (width - 1)) - 1),
        "lowest_key": integer(np.iinfo(integer).min),
        "bits": machine.bits, "from_bits": machine.from_bits, "full_width": machine.full_width,
        "reals_at": machine.ARRAY_AT[real], "doubles_at": machine.ARRAY_AT[np.float64],
        "indices_at": machine.ARRAY_AT[np.int32 if target == "int32" else np.int64],
        "BLOCK": BLOCK, "TILE": TILE, "SOFT": soft,
        "DENSE": soft or "SMOOTHED" in flags,
        **{name: name in flags for name in _FLAGS},
    }  # fmt: skip


@functools.cache
def compiled(part: str, dtype: str, target: str, flags: tuple[str, ...]) -> Any:
    """``rows``, ``tiles`` or ``outside`` for these dtypes and flags."""
    bound = names(dtype, target, flags)
    mark = special.fingerprint(sys.modules[__name__])
    variant = "_".join([mark, dtype, target, *(name.lower() for name in flags)])
    for helper in (highest, tally, find, finish, tile_highest, tile_tally, tile_value, tile_finish,
                   gather, scatter):  # fmt: skip
        bound[helper.__name__] = special.bind(helper, bound, special.LOOSE, variant)
    parts: dict[str, tuple[Any, int]] = {
        "rows": (rows, 10),
        "tiles": (tiles, 12),
        "outside": (outside, 4),
    }
    function, integers = parts[part]
    if part == "outside":
        return special.entry(function, bound, intp(*[intp] * integers), variant)
    return special.entry(function, bound, void(*[intp] * integers, float64, float64), variant)


_FLAGS = ("SMOOTHED", "CLASSES", "WEIGHTED", "GRADIENT", "VALUES")


class CrossEntropy:
    """Softmax cross-entropy as a program."""

    def decline(
        self, shape: Shape, dtype: str, target_shape: Shape, target_dtype: str,
        parameters: Mapping[str, Any],
    ) -> str | None:  # fmt: skip
        axis = parameters.get("axis", -1)
        if not shape or not -len(shape) <= axis < len(shape) or shape[axis] == 0:
            return f"a prediction of shape {shape} has no classes along axis {axis}"
        units = shape[: axis % len(shape)] + shape[axis % len(shape) + 1 :]
        if target_dtype in INDEX and target_shape == units:
            return None
        if target_dtype == dtype and target_shape == shape:
            return None
        return (
            f"the target of shape {target_shape} and dtype {target_dtype} is neither class indices "
            f"nor a distribution for a prediction of shape {shape} and dtype {dtype}"
        )

    def unit_axis(self, parameters: Mapping[str, Any]) -> int | None:
        return int(parameters.get("axis", -1))

    def launch(
        self, shape: Shape, dtype: str, target_dtype: str, *, prediction: int, target: int,
        weights: int, gradient: int, values: int, factor: float, parameters: Mapping[str, Any],
    ) -> float:  # fmt: skip
        axis = parameters.get("axis", -1) % len(shape)
        classes, inner = shape[axis], math.prod(shape[axis + 1 :])
        samples = math.prod(shape) // classes
        if samples == 0:
            return 0.0
        class_weights = parameters.get("class_weights")
        vector = None
        if class_weights is not None:
            vector = np.ascontiguousarray(class_weights, dtype)
            if vector.shape != (classes,):
                raise LossError(
                    f"cross_entropy: class_weights has shape {vector.shape}, expected ({classes},)"
                )
        smoothing = float(parameters.get("label_smoothing", 0.0))
        given = (smoothing != 0.0, vector is not None, weights, gradient, values)
        flags = tuple(name for name, on in zip(_FLAGS, given, strict=True) if on)
        if target_dtype in INDEX:
            _check_range(target, weights, samples, classes, dtype, target_dtype)
        memory = (prediction, target, weights, gradient, values)
        if inner == 1 and classes > FEW:
            partial = np.empty(samples)
            run, blocks = compiled("rows", dtype, target_dtype, flags), samples
            rest: tuple[Any, ...] = (classes,)
        else:
            span = samples if inner == 1 else inner
            blocks = samples // span * -(-span // TILE)
            partial = np.empty(blocks)
            run = compiled("tiles", dtype, target_dtype, flags)
            rest = (classes, inner, samples)
        rest += (*memory, address(partial), 0 if vector is None else address(vector))
        parts = min(pool.threads(), -(-samples * classes // SMALLEST_SHARE))
        pool.run(run, blocks, parts, *rest, smoothing, factor)
        return float(partial.sum()) * factor


def _check_range(
    target: int, weights: int, samples: int, classes: int, dtype: str, target_dtype: str
) -> None:
    flags = ("WEIGHTED",) if weights else ()
    where = compiled("outside", dtype, target_dtype, flags)(samples, classes, target, weights)
    if where >= 0:
        raise LossError(
            f"cross_entropy: the target's class index at position {where} is not in "
            f"0..{classes - 1}; "
            "give such samples weight 0, or set ignore="
        )


PROGRAMS = {"cross_entropy": CrossEntropy()}
