# ruff: noqa: D103, F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""Softmax cross-entropy of few classes, or of a class axis that is not the last: tile by tile.

A tile is some samples side by side; loops are vectorised along them, one class at a time.
"""

from __future__ import annotations

import numpy as np
from numba import float64

TILE = 512  # samples side by side


def tile_highest(z, high, peak, finite, k):
    full_width()
    for i in range(z.size):
        above = not (z[i] <= high[i])  # true for NaN too
        high[i] = z[i] if above else high[i]
        peak[i] = k if above else peak[i]
        if SMOOTHED:
            finite[i] += one if absolute(z[i]) < infinity else zero


def tile_tally(z, y, t, e, high, peak, share, mass, at_peak, gap, k, keep, class_weight):
    full_width()
    for i in range(z.size):
        below = z[i] - high[i]
        other = peak[i] != k
        e[i] = exp_below(below)
        q = keep * (y[i] if SOFT else (one if t[i] == k else zero))
        if SMOOTHED:
            q += share[i] if absolute(z[i]) < infinity else zero
        q *= class_weight
        mass[i] += q if other else zero
        at_peak[i] += zero if other else q
        gap[i] += -(q * below) if (other and q != zero) else zero


def tile_powers(z, e, high):
    """What ``tile_tally`` does for plain class indices, whose target weights are all but one 0."""
    full_width()
    for i in range(z.size):
        e[i] = exp_below(z[i] - high[i])


def tile_rest(e, peak, rest, k):
    """Apart from the powers: a loop that holds doubles takes vectors of half as many numbers."""
    full_width()
    for i in range(e.size):
        rest[i] += float64(e[i] if peak[i] != k else zero)


def tile_hits(z, stride, classes, t, c, high, peak, mass, at_peak, gap, keep):
    """The target's part of the sums, for plain class indices."""
    for i in range(t.size):
        hit = t[i] if 0 <= t[i] < classes else 0  # of an absent sample: not used
        q = keep * (c[hit] if CLASSES else one)
        sure = peak[i] == hit
        at_peak[i] = q if sure else zero
        mass[i] = zero if sure else q
        gap[i] = zero if sure or q == zero else q * (high[i] - z[hit * stride + i])


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


def column(source, target, classes):
    """Every ``classes``-th number: one class of consecutive samples."""
    full_width()
    for i in range(target.size):
        target[i] = source[i * classes]


def gather(source, target, width, classes):
    """Rows of classes into columns of samples; class by class, for writes a power of 2 apart
    would evict each other from the cache.
    """
    for k in range(classes):
        column(source[k:], target[k * TILE : k * TILE + width], classes)


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
        for k in range(0 if DENSE else classes):
            powers = e[k * e_stride : k * e_stride + width]
            tile_powers(z[k * stride : k * stride + width], powers, high[:width])
            tile_rest(powers, peak[:width], rest[:width], k)
        if not DENSE:
            tile_hits(
                z, stride, classes, t, c, high[:width], peak[:width], mass[:width],
                at_peak[:width], gap[:width], keep,
            )  # fmt: skip
        for k in range(classes if DENSE else 0):
            powers = e[k * e_stride : k * e_stride + width]
            tile_tally(
                z[k * stride : k * stride + width], y[k * stride : k * stride + width], t, powers,
                high[:width], peak[:width], share[:width], mass[:width], at_peak[:width],
                gap[:width], k, keep, c[k] if CLASSES else one,
            )  # fmt: skip
            tile_rest(powers, peak[:width], rest[:width], k)
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
