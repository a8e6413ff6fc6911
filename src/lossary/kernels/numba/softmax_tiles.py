# ruff: noqa: D103, F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""Softmax cross-entropy of few classes, or of a class axis that is not the last: tile by tile.

A tile is some samples side by side; loops are vectorised along them, one class at a time.
"""

from __future__ import annotations

from numba import float64

TILE = 512  # samples side by side
LINE = 8 * TILE + 64  # bytes of one number per sample; no power of 2, see ``gather``


def tile_start(high, peak, rest, mass, at_peak, gap, finite, n):
    full_width()
    for i in range(n):
        high[i] = -infinity
        peak[i] = 0
        rest[i] = 0.0
        if DENSE:
            mass[i] = zero
            at_peak[i] = zero
            gap[i] = zero
        if SMOOTHED:
            finite[i] = zero


def tile_highest(z, high, peak, finite, k, n):
    full_width()
    for i in range(n):
        above = not (z[i] <= high[i])  # true for NaN too
        high[i] = z[i] if above else high[i]
        peak[i] = k if above else peak[i]
        if SMOOTHED:
            finite[i] += one if absolute(z[i]) < infinity else zero


def in_target(z, y, t, share, k, keep, class_weight):
    """What class ``k`` weighs in the target."""
    always_inline()
    q = keep * (y if SOFT else (one if t == k else zero))
    if SMOOTHED:
        q += share if absolute(z) < infinity else zero
    return q * class_weight


def tile_tally(z, y, t, e, high, peak, share, mass, at_peak, gap, k, keep, class_weight, n):
    full_width()
    for i in range(n):
        below = z[i] - high[i]
        other = peak[i] != k
        e[i] = exp_below(below)
        q = in_target(z[i], y[i], t[i], share[i], k, keep, class_weight)
        mass[i] += q if other else zero
        at_peak[i] += zero if other else q
        gap[i] += -(q * below) if (other and q != zero) else zero


def tile_powers(z, e, high, n):
    """What ``tile_tally`` does for plain class indices, whose target weights are all but one 0."""
    full_width()
    for i in range(n):
        e[i] = exp_below(z[i] - high[i])


def tile_rest(e, peak, rest, k, n):
    """Apart from the powers: a loop that holds doubles takes vectors of half as many numbers."""
    full_width()
    for i in range(n):
        rest[i] += float64(e[i] if peak[i] != k else zero)


def tile_hits(z, stride, classes, t, c, high, peak, mass, at_peak, gap, keep, n):
    """The target's part of the sums, for plain class indices."""
    full_width()
    for i in range(n):
        hit = t[i] if 0 <= t[i] < classes else 0  # of an absent sample: not used
        q = keep * (c[hit] if CLASSES else one)
        sure = peak[i] == hit
        at_peak[i] = q if sure else zero
        mass[i] = zero if sure else q
        gap[i] = zero if sure or q == zero else q * (high[i] - z[hit * stride + i])


def tile_value(rest, mass, at_peak, gap, values, weights, n):
    full_width()
    total = 0.0
    for i in range(n):
        value = gap[i] + (mass[i] + at_peak[i]) * log1p(real(rest[i]))
        weight = weights[i] if WEIGHTED else one
        present = weight != zero
        if VALUES:
            values[i] = value if present else zero
        total += float64(value * weight if present else zero)
    return total


def tile_finish(
    z, y, t, e, peak, share, rest, mass, at_peak, weights, k, keep, class_weight, factor, n
):
    full_width()
    for i in range(n):
        q = in_target(z[i], y[i], t[i], share[i], k, keep, class_weight)
        remainder = real(rest[i])
        share_of_all = one / (one + remainder)
        slope = e[i] * ((mass[i] + at_peak[i]) * share_of_all) - q
        top = (mass[i] - at_peak[i] * remainder) * share_of_all
        weight = weights[i] if WEIGHTED else one
        slope = (slope if peak[i] != k else top) * (weight * factor)
        e[i] = slope if weight != zero else zero


def column(source, target, classes, n):
    """Every ``classes``-th number: one class of consecutive samples."""
    full_width()
    for i in range(n):
        target[i] = source[i * classes]


def gather(source, target, width, classes):
    """Rows of classes into columns of samples; class by class, for writes a power of 2 apart
    would evict each other from the cache.
    """
    for k in range(classes):
        column(past(source, k), past(target, k * TILE), classes, width)


def scatter(source, target, width, classes):
    full_width()
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
    z_all, g_all, y_all = reals_at(prediction_at), reals_at(gradient_at), reals_at(target_at)
    t_all, c, weights_all = indices_at(target_at), reals_at(class_weights_at), reals_at(weights_at)
    values_all, partial = reals_at(values_at), doubles_at(partial_at)
    keep, real_factor = real(1.0 - smoothing), real(factor)
    flat = inner == 1
    span = samples if flat else inner
    per_outer = (span + TILE - 1) // TILE
    columns = 8 * TILE * classes + 64 if flat or not GRADIENT else 0
    borrowed = borrow(64 + 8 * LINE + columns * (3 if flat else 1))
    at = (borrowed + 63) & -64
    high, peak, rest = reals_at(at), int32s_at(at + LINE), doubles_at(at + 2 * LINE)
    mass, at_peak = reals_at(at + 3 * LINE), reals_at(at + 4 * LINE)
    gap, finite, share = (
        reals_at(at + 5 * LINE), reals_at(at + 6 * LINE), reals_at(at + 7 * LINE),
    )  # fmt: skip
    at += 8 * LINE
    e_tile, z_tile, y_tile = reals_at(at), reals_at(at + columns), reals_at(at + 2 * columns)
    stride = TILE if flat else inner
    e_stride = TILE if flat or not GRADIENT else inner
    for tile in range(first, last):
        outer = tile // per_outer
        low = (tile % per_outer) * TILE
        n = TILE if span - low > TILE else span - low
        start = outer * inner + low  # the first sample
        base = start * classes if flat else outer * classes * inner + low
        if flat:
            gather(past(z_all, base), z_tile, n, classes)
            if SOFT:
                gather(past(y_all, base), y_tile, n, classes)
        z = z_tile if flat else past(z_all, base)
        y = (y_tile if flat else past(y_all, base)) if SOFT else z
        e = e_tile if flat or not GRADIENT else past(g_all, base)
        t, weights = past(t_all, start), past(weights_all, start)
        tile_start(high, peak, rest, mass, at_peak, gap, finite, n)
        for k in range(classes):
            tile_highest(past(z, k * stride), high, peak, finite, k, n)
        if SMOOTHED:
            for i in range(n):
                share[i] = real(smoothing / (finite[i] if finite[i] > one else one))
        for k in range(classes):
            z_k, e_k = past(z, k * stride), past(e, k * e_stride)
            if DENSE:
                weight = c[k] if CLASSES else one
                y_k = past(y, k * stride)
                tile_tally(
                    z_k, y_k, t, e_k, high, peak, share, mass, at_peak, gap, k, keep, weight, n
                )
            else:
                tile_powers(z_k, e_k, high, n)
            tile_rest(e_k, peak, rest, k, n)
        if not DENSE:
            tile_hits(z, stride, classes, t, c, high, peak, mass, at_peak, gap, keep, n)
        partial[tile] = tile_value(rest, mass, at_peak, gap, past(values_all, start), weights, n)
        if GRADIENT:
            for k in range(classes):
                z_k, e_k = past(z, k * stride), past(e, k * e_stride)
                weight = c[k] if CLASSES else one
                y_k = past(y, k * stride)
                tile_finish(
                    z_k, y_k, t, e_k, peak, share, rest, mass, at_peak, weights, k, keep, weight,
                    real_factor, n,
                )  # fmt: skip
            if flat:
                scatter(e, past(g_all, base), n, classes)
    give_back(borrowed)
