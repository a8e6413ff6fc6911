# ruff: noqa: F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""Softmax cross-entropy of long rows, class axis last: vectorised along the classes.

Rows are read three times, but from the second time on out of the cache.
"""

from __future__ import annotations

import math

from numba import float64

BLOCK = 512  # classes summed in the array's precision before the sum goes on in double


def highest(z, n, high):
    """The larger of ``high`` and the block's maximum, as ordered integers; the finite entries."""
    full_width()
    finite = zero
    for i in range(n):
        pattern = bits(z[i])
        # Ordered as the numbers are, NaN on top.
        key = integer(pattern ^ integer(integer(pattern >> sign_bit) & no_sign))
        high = key if key > high else high
        if SMOOTHED:
            finite += one if absolute(z[i]) < infinity else zero
    return high, finite


def tally(z, y, c, e, n, high, keep, share):
    """exp(z - high) into ``e``; the sums of it, of q, and of q (high - z)."""
    full_width()
    rest, mass, gap = zero, zero, zero
    for i in range(n):
        below = z[i] - high
        power = exp_below(below)
        rest += power
        if GRADIENT:
            e[i] = power
        if DENSE:
            q = dense(z[i], y[i], c[i], share, keep)
            mass += q
            # A weight of 0 wins over an infinite distance. Adding "0 if q is 0, else q * below"
            # would say the same, but such a sum is not vectorised.
            gap -= q * (deepest if below < deepest else below)
            gap += infinity if below < deepest and q != zero else zero
    return rest, mass, gap


def finish(z, y, c, e, n, keep, share, ratio, factor):
    """From exp(z - high) to the slope."""
    full_width()
    for i in range(n):
        if DENSE:
            q = dense(z[i], y[i], c[i], share, keep)
            e[i] = (e[i] * ratio - q) * factor
        else:
            e[i] = e[i] * ratio * factor


def find(z, n, high):
    """Where ``high`` is first met."""
    full_width()
    nowhere = integer(n)
    first = nowhere
    for i in range(n):  # to its end, for a loop that may stop takes no vectors
        here = integer(i) if z[i] == high else nowhere
        first = here if here < first else first
    return first if first < nowhere else integer(0)


def stop(low, classes, peak):
    """Where the sum that begins at ``low`` ends: with its block, or before the likeliest class."""
    end = (low // BLOCK + 1) * BLOCK
    end = end if end < classes else classes
    return peak if low <= peak < end else end


def rows(
    first, last, classes, prediction_at, target_at, weights_at, gradient_at, values_at,
    partial_at, class_weights_at, smoothing, factor,
):  # fmt: skip
    """Class axis last, any number of classes; ``partial`` receives each row's weighted value."""
    z_all, g_all, y_all = reals_at(prediction_at), reals_at(gradient_at), reals_at(target_at)
    t_all, weights, values = indices_at(target_at), reals_at(weights_at), reals_at(values_at)
    partial, c = doubles_at(partial_at), reals_at(class_weights_at)
    keep = real(1.0 - smoothing)
    for row in range(first, last):
        z = past(z_all, row * classes)
        y = past(y_all, row * classes) if SOFT else z
        g = past(g_all, row * classes) if GRADIENT else z
        weight = weights[row] if WEIGHTED else one
        if weight == zero:
            partial[row] = 0.0
            if GRADIENT:
                for k in range(classes):
                    g[k] = zero
            if VALUES:
                values[row] = zero
            continue
        key, finite, best = lowest_key, 0.0, 0
        for low in range(0, classes, BLOCK):
            n = BLOCK if classes - low > BLOCK else classes - low
            grown, count = highest(past(z, low), n, key)
            finite += count
            best = low if grown > key else best
            key = grown
        high = from_bits(integer(key ^ integer(integer(key >> sign_bit) & no_sign)))
        n = BLOCK if classes - best > BLOCK else classes - best
        peak = best + find(past(z, best), n, high)
        share = real(smoothing / (finite if finite > 1.0 else 1.0)) if SMOOTHED else zero
        rest, mass, gap = 0.0, 0.0, 0.0
        low = 0
        while low < classes:
            end = stop(low, classes, peak)
            a, b, d = tally(
                past(z, low), past(y, low), past(c, low), past(g, low), end - low, high, keep, share
            )
            rest, mass, gap = rest + a, mass + b, gap + d
            low = end + 1 if end == peak else end
        at_peak = float64(dense(z[peak], y[peak], c[peak], share, keep)) if DENSE else 0.0
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
            finish(z, y, c, g, classes, keep, share, real(ratio), real(portion))
            if not SOFT and hit != peak:
                g[hit] = real((power_hit * ratio - (q_hit + smooth_hit)) * portion)
            g[peak] = real((mass - at_peak * rest) * share_of_all * portion)
