# ruff: noqa: D103, F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""Dice with softmax cross-entropy over the pixels of regions, class axis second.

The logits are read once: ``gather`` keeps the probabilities p where the gradient goes, and sums the
surprise and each class's overlap. An overlap's derivative by p is one number for pixels of the
class and one for the others, so with these known ``spread`` turns p into slopes in place. Slopes
are differences to the likeliest class's, so that nothing cancels where a pixel is sure.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import intp, void

from lossary.kernels.numba import pool, softmax, softmax_tiles, special
from lossary.kernels.numba.memory import address, read
from lossary.kernels.numba.program import INDEX, Launch, NoSuchClassError, Purpose, Shape, Shapes
from lossary.kernels.numba.softmax_tiles import TILE, tile_highest


def powers(z, high, e, rest, peak, k, n):
    full_width()
    for i in range(n):
        power = exp_below(z[i] - high[i])
        e[i] = power
        rest[i] += power if peak[i] != k else zero


def overlap(z, high, y, t, e, rest, lack, peak, k, n):
    """e becomes p; sums of the surprise, and of p and 1 - p in and out of the class."""
    full_width()
    surprise, found, invented, missed = zero, zero, zero, zero
    for i in range(n):
        total = one + rest[i]
        p = e[i] / total
        # 1 - p: the likeliest class's is the others' sum.
        q = rest[i] / total if peak[i] == k else one - p
        hit = y[i] if SOFT else (one if t[i] == k else zero)
        e[i] = p
        found += p * hit
        invented += p * (one - hit)
        missed += q * hit
        surprise += hit * ((high[i] - z[i]) + lack[i]) if hit != zero else zero
    return surprise, found, invented, missed


def lacking(rest, lack, n):
    full_width()
    for i in range(n):
        lack[i] = log1p(rest[i])


def most(p, high, peak, k, n):
    full_width()
    for i in range(n):
        above = p[i] > high[i]
        high[i] = p[i] if above else high[i]
        peak[i] = k if above else peak[i]


def pull_at_peak(y, t, pull, peak, k, inside, outside, n):
    """The overlap's derivative by the likeliest class's probability."""
    full_width()
    for i in range(n):
        hit = y[i] if SOFT else (one if t[i] == k else zero)
        pull[i] = hit * inside + (one - hit) * outside if peak[i] == k else pull[i]


def moments(p, y, t, pull, peak, rest, mass, lean, k, inside, outside, n):
    """Over the other classes: sums of p, of the target, of p times their pull less the peak's."""
    full_width()
    for i in range(n):
        hit = y[i] if SOFT else (one if t[i] == k else zero)
        other = peak[i] != k
        share = p[i] if other else zero
        rest[i] += share
        mass[i] += hit if other else zero
        lean[i] += share * ((hit * inside + (one - hit) * outside) - pull[i])


def slopes(p, y, t, pull, peak, rest, mass, lean, own, k, inside, outside, portion, factor, n):
    full_width()
    for i in range(n):
        hit = y[i] if SOFT else (one if t[i] == k else zero)
        top = peak[i] == k
        apart = (hit * inside + (one - hit) * outside) - pull[i]
        plain = p[i] * (mass[i] + own[i]) - hit
        sure = mass[i] * p[i] - hit * rest[i]
        slope = portion * (sure if top else plain) + p[i] * ((zero if top else apart) - lean[i])
        p[i] = slope * factor


def own_target(y, t, own, peak, k, n):
    full_width()
    for i in range(n):
        hit = y[i] if SOFT else (one if t[i] == k else zero)
        own[i] = hit if peak[i] == k else own[i]


def fill(states, value, n):
    """``value`` into each of the ``n`` first numbers."""
    for i in range(n):
        states[i] = value


def gather(
    first, last, classes, pixels, per_region, prediction_at, target_at, keep_at, sums_at
):  # fmt: skip
    """``sums`` receives (surprise, and found, invented, missed of each class) of every tile."""
    z_all, y_all, t_all = reals_at(prediction_at), reals_at(target_at), indices_at(target_at)
    e_all, sums = reals_at(keep_at), doubles_at(sums_at)
    width_of_sums = 1 + 3 * classes
    borrowed = borrow(64 + 5 * LINE + (0 if GRADIENT else classes * TILE * 8))
    at = (borrowed + 63) & -64
    high, rest, lack = reals_at(at), reals_at(at + LINE), reals_at(at + 2 * LINE)
    peak, unused = int32s_at(at + 3 * LINE), reals_at(at + 4 * LINE)
    spare = reals_at(at + 5 * LINE)
    for tile in range(first, last):
        region, low = tile // per_region, (tile % per_region) * TILE
        n = TILE if pixels - low > TILE else pixels - low
        base = region * classes * pixels + low
        z, y = past(z_all, base), past(y_all, base) if SOFT else lack
        e = past(e_all, base) if GRADIENT else spare
        t = past(t_all, region * pixels + low)
        e_stride = pixels if GRADIENT else TILE
        y_stride = pixels if SOFT else 0
        fill(high, -infinity, n)
        fill(rest, zero, n)
        for i in range(n):
            peak[i] = 0
        for k in range(classes):
            tile_highest(past(z, k * pixels), high, peak, unused, k, n)
        for k in range(classes):
            powers(past(z, k * pixels), high, past(e, k * e_stride), rest, peak, k, n)
        lacking(rest, lack, n)
        place = tile * width_of_sums
        sums[place] = 0.0
        for k in range(classes):
            surprise, found, invented, missed = overlap(
                past(z, k * pixels), high, past(y, k * y_stride), t, past(e, k * e_stride), rest,
                lack, peak, k, n,
            )  # fmt: skip
            sums[place] += surprise
            sums[place + 1 + 3 * k] = found
            sums[place + 2 + 3 * k] = invented
            sums[place + 3 + 3 * k] = missed
    give_back(borrowed)


def spread(
    first, last, classes, pixels, per_region, target_at, keep_at, pulls_at, factors_at
):  # fmt: skip
    """From probabilities to slopes; ``pulls``: for each region and class, inside and outside it."""
    y_all, t_all, p_all = reals_at(target_at), indices_at(target_at), reals_at(keep_at)
    all_pulls, factors = doubles_at(pulls_at), doubles_at(factors_at)
    borrowed = borrow(64 + 7 * LINE)
    at = (borrowed + 63) & -64
    high, pull, lean = reals_at(at), reals_at(at + LINE), reals_at(at + 2 * LINE)
    rest, mass, own = reals_at(at + 3 * LINE), reals_at(at + 4 * LINE), reals_at(at + 5 * LINE)
    peak = int32s_at(at + 6 * LINE)
    portion = real(1.0 / pixels)
    for tile in range(first, last):
        region, low = tile // per_region, (tile % per_region) * TILE
        n = TILE if pixels - low > TILE else pixels - low
        base = region * classes * pixels + low
        p, y = past(p_all, base), past(y_all, base) if SOFT else high
        t, pulls = past(t_all, region * pixels + low), past(all_pulls, 2 * region * classes)
        y_stride = pixels if SOFT else 0
        factor = real(factors[region])
        if factor == zero:
            for k in range(classes):
                fill(past(p, k * pixels), zero, n)
            continue
        fill(high, -one, n)
        for i in range(n):
            peak[i] = 0
        fill(pull, zero, n)
        fill(lean, zero, n)
        fill(rest, zero, n)
        fill(mass, zero, n)
        fill(own, zero, n)
        for k in range(classes):
            most(past(p, k * pixels), high, peak, k, n)
        for k in range(classes):
            y_k, inside, outside = past(y, k * y_stride), real(pulls[2 * k]), real(pulls[2 * k + 1])
            pull_at_peak(y_k, t, pull, peak, k, inside, outside, n)
            own_target(y_k, t, own, peak, k, n)
        for k in range(classes):
            y_k, inside, outside = past(y, k * y_stride), real(pulls[2 * k]), real(pulls[2 * k + 1])
            moments(
                past(p, k * pixels), y_k, t, pull, peak, rest, mass, lean, k, inside, outside, n
            )
        for k in range(classes):
            y_k, inside, outside = past(y, k * y_stride), real(pulls[2 * k]), real(pulls[2 * k + 1])
            slopes(
                past(p, k * pixels), y_k, t, pull, peak, rest, mass, lean, own, k, inside, outside,
                portion, factor, n,
            )  # fmt: skip
    give_back(borrowed)


@functools.cache
def compiled(part: str, dtype: str, target: str, gradient: bool) -> Any:
    """``gather`` or ``spread`` for these dtypes."""
    names = softmax.names(dtype, target, ("GRADIENT",) if gradient else ())
    names = names | {"__name__": __name__, "SMOOTHED": False}
    mark = special.fingerprint(sys.modules[__name__], softmax, softmax_tiles)
    variant = "_".join([mark, dtype, target, *(["gradient"] if gradient else [])])
    for helper in (tile_highest, powers, overlap, lacking, most, pull_at_peak, moments, slopes,
                   own_target, fill):  # fmt: skip
        names[helper.__name__] = special.bind(helper, names, special.LOOSE, variant)
    function = {"gather": gather, "spread": spread}[part]
    return special.entry(function, names, void(*[intp] * 9), variant)


class DiceCrossEntropy:
    """Dice with cross-entropy of regions as a program."""

    def decline(
        self, shapes: Shapes, dtypes: tuple[str, ...], parameters: Mapping[str, Any]
    ) -> str | None:
        (shape, target_shape), (dtype, target_dtype) = shapes, dtypes
        if parameters.get("mask") is not None:
            return "a mask inside the regions has no compiled form"
        if len(shape) < 3 or parameters.get("axis", 1) % len(shape) != 1 or shape[1] < 2:
            return f"a prediction of shape {shape} is not (regions, classes, ...)"
        index = target_dtype in INDEX and target_shape == shape[:1] + shape[2:]
        if not index and not (target_dtype == dtype and target_shape == shape):
            return "the target is neither class indices nor masks of the prediction's dtype"
        return None

    def unit_axes(self, shape: Shape, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        return tuple(range(1, len(shape)))

    def prepare(
        self, shapes: Shapes, dtypes: tuple[str, ...], purpose: Purpose,
        parameters: Mapping[str, Any],
    ) -> Launch:  # fmt: skip
        shape, (dtype, target_dtype) = shapes[0], dtypes
        regions, classes, pixels = shape[0], shape[1], math.prod(shape[2:])
        real = np.float32 if dtype == "float32" else np.float64
        per_region = -(-pixels // TILE)
        blocks = regions * per_region
        where = (classes, pixels, per_region)
        collect = compiled("gather", dtype, target_dtype, purpose[1])
        distribute = compiled("spread", dtype, target_dtype, True) if purpose[1] else None

        def launch(
            prediction: int, target: int, weights: int, gradient: int, values: int, factor: float
        ) -> float:
            given = read(weights, regions, real) if weights else np.ones(regions)
            if target_dtype in INDEX:
                _check_range(target, given, pixels, classes, target_dtype)
            sums = np.empty((regions, per_region, 1 + 3 * classes))
            parts = pool.parts(regions * pixels * classes)
            memory = (prediction, target, gradient, address(sums))
            pool.run(collect, blocks, parts, *where, *memory)
            found, pulls = _combine(sums.sum(axis=1), pixels, parameters)
            found = np.where(given == 0, 0.0, found)
            if values:
                read(values, regions, real)[:] = found
            if distribute is not None:
                factors = np.asarray(given * factor, np.float64)
                memory = (target, gradient, address(pulls), address(factors))
                pool.run(distribute, blocks, parts, *where, *memory)
            return float(np.sum(np.where(given == 0, 0.0, given * found)) * factor)

        return launch


def _combine(
    sums: np.ndarray, pixels: int, parameters: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Each region's value, and its derivative by a class's probability in and out of the class."""
    overlap = sums[:, 1:].reshape(len(sums), -1, 3)
    right = overlap[..., 0] + 0.5 * parameters["smooth"]
    wrong = 0.5 * (overlap[..., 1] + overlap[..., 2])
    whole = wrong + right
    share, per_right = wrong / whole, wrong / whole / whole
    per_wrong = right / whole / whole
    first = 0 if parameters["background"] else 1
    scale = np.zeros(whole.shape[1])
    scale[first:] = parameters["dice_weight"] / (whole.shape[1] - first)
    pulls = np.stack([-(per_right + 0.5 * per_wrong), 0.5 * per_wrong], axis=-1)
    pulls = np.ascontiguousarray(pulls * scale[:, None])
    return sums[:, 0] / pixels + (share * scale).sum(axis=1), pulls


def _check_range(
    target: int, given: np.ndarray, pixels: int, classes: int, target_dtype: str
) -> None:
    outside = softmax.compiled("outside", "float32", target_dtype, ())
    width = np.dtype(target_dtype).itemsize
    for region in np.flatnonzero(given):
        start = int(region) * pixels
        where = outside(pixels, classes, target + start * width, 0)
        if where >= 0:
            raise NoSuchClassError("dice_cross_entropy", start + where, classes)


PROGRAMS = {"dice_cross_entropy": DiceCrossEntropy()}
