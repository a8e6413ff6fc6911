# ruff: noqa: D103, F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""Kullback-Leibler and Jensen-Shannon divergences of logits from a distribution, row by row.

With ``high`` the largest logit, ``d = high - z``, ``e = exp(-d)``, ``rest`` the sum of e without
the likeliest class and ``lack = log1p(rest)``, log p = -(d + lack). Then, for the target t and r =
log(p / m),

    Kullback-Leibler  value sum t (log t + d + lack), slope p T - t with T = sum t
    Jensen-Shannon    value beta sum t log(t / m) + (1 - beta) sum p r, m = beta t + (1 - beta) p,
                      slope (1 - beta) p (r - sum p r)

log(p / m) = -log1p(beta (t / p - 1)), and t / p - 1 = (t - p) / p: nothing
cancels where t and p are close.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import float64, intp, void

from lossary.kernels.numba import pool, softmax, softmax_rows, special
from lossary.kernels.numba.memory import address
from lossary.kernels.numba.program import Launch, Purpose, Shape

BLOCK = 512
SMALLEST_SHARE = 1 << 16


def powers(z, e, high):
    """exp(z - high) into ``e``, and their sum."""
    full_width()
    total = zero
    for i in range(z.size):
        power = exp_below(z[i] - high)
        e[i] = power
        total += power
    return total


def kullback_leibler(z, t, e, r, high, lack, share_of_all, beta, missed):
    """Terms of the value, and of T."""
    full_width()
    value, mass = zero, zero
    for i in range(z.size):
        # A weight of 0 wins over an infinite surprise; smaller than any, it is multiplied by 0.
        some = t[i] if t[i] > smallest else one
        below = z[i] - high
        below = deepest if below < deepest else below
        value += t[i] * ((log(some) - below) + lack)
        value += infinity if z[i] - high < deepest and t[i] > zero else zero
        mass += t[i]
    return value, mass


def kullback_leibler_slope(t, e, r, share_of_all, mass, beta, factor):
    full_width()
    for i in range(e.size):
        e[i] = (e[i] * (share_of_all * mass) - t[i]) * factor


def jensen_shannon(z, t, e, r, high, base, share_of_all, beta, missed):
    """Terms of the value, and of sum p r; r, less ``base``, is kept for the slope.

    Where ``missed`` is 1, ``base`` is what r becomes without any target, -log(1 - beta): then
    r - base = -log1p(beta / (1 - beta) t / p).
    """
    full_width()
    value, mass = zero, zero
    scale, here = beta / (one - missed * beta), one - missed
    above = base if missed > zero else zero
    below = base - above
    for i in range(z.size):
        p = e[i] * share_of_all
        weight = t[i]
        gap = weight - p
        divisor = p if p > zero else one
        ratio = -log1p(scale * ((weight - here * p) / divisor))
        ratio = ratio if p > zero else zero
        other = weight if weight > zero else one
        back = -log1p((beta - one) * (gap / other))
        back = back if weight > zero else zero
        value += beta * weight * back + (one - beta) * (p * (ratio + above))
        mass += p * (ratio - below)
        r[i] = ratio - below
    return value, mass


def jensen_shannon_slope(t, e, r, share_of_all, mass, beta, factor):
    full_width()
    for i in range(e.size):
        e[i] = (one - beta) * (e[i] * share_of_all) * (r[i] - mass) * factor


def divergence(
    first, last, classes, prediction_at, target_at, weights_at, gradient_at, values_at,
    partial_at, beta, factor,
):  # fmt: skip
    """Class axis last; ``partial`` receives each row's weighted value."""
    z_all = reals_at(prediction_at, last * classes)
    t_all = reals_at(target_at, last * classes)
    g_all = reals_at(gradient_at, last * classes if GRADIENT else 0)
    weights = reals_at(weights_at, last if WEIGHTED else 0)
    values = reals_at(values_at, last if VALUES else 0)
    partial = doubles_at(partial_at, last)
    spare = np.empty(0 if GRADIENT else classes, real)
    r = np.empty(classes, real)
    share = real(beta)
    for row in range(first, last):
        low, high_end = row * classes, (row + 1) * classes
        z, t = z_all[low:high_end], t_all[low:high_end]
        e = g_all[low:high_end] if GRADIENT else spare
        weight = weights[row] if WEIGHTED else one
        if weight == zero:
            partial[row] = 0.0
            if GRADIENT:
                e[:] = zero
            if VALUES:
                values[row] = zero
            continue
        key, best = lowest_key, 0
        for at in range(0, classes, BLOCK):
            grown, _ = highest(z[at : at + BLOCK], key)
            best = at if grown > key else best
            key = grown
        high = from_bits(integer(key ^ integer(integer(key >> sign_bit) & no_sign)))
        peak = best + find(z[best : best + BLOCK], high)
        rest = 0.0
        for at in range(0, classes, BLOCK):
            end = min(at + BLOCK, classes)
            middle = peak if at <= peak < end else end
            rest += powers(z[at:middle], e[at:middle], high)
            if middle < end:
                rest += powers(z[middle + 1 : end], e[middle + 1 : end], high)
        e[peak] = one
        lack, share_of_all = real(math.log1p(rest)), real(1.0 / (1.0 + rest))
        base, missed = lack if KL else zero, zero
        if not KL and t[peak] + t[peak] < share_of_all:
            base, missed = real(-math.log1p(-beta)), one
        one_class = slice(peak, peak + 1)
        value, mass = terms(
            z[one_class], t[one_class], e[one_class], r[one_class],
            high, base, share_of_all, share, missed,
        )  # fmt: skip
        value, mass = float64(value), float64(mass)
        if not KL and missed == zero:
            # Slopes are differences of r: taken from the likeliest class's, where p is nearly 1,
            # they do not cancel; nor from the r of classes that the target lacks, if it is one.
            base, mass, r[peak] = r[peak], 0.0, zero
        top, peak_mass, mass = float64(r[peak]), mass, 0.0
        for at in range(0, classes, BLOCK):
            end = min(at + BLOCK, classes)
            middle = peak if at <= peak < end else end
            a, b = terms(
                z[at:middle], t[at:middle], e[at:middle], r[at:middle],
                high, base, share_of_all, share, missed,
            )  # fmt: skip
            value, mass = value + a, mass + b
            if middle < end:
                a, b = terms(
                    z[middle + 1 : end], t[middle + 1 : end], e[middle + 1 : end],
                    r[middle + 1 : end], high, base, share_of_all, share, missed,
                )  # fmt: skip
                value, mass = value + a, mass + b
        others, mass = mass, peak_mass + mass
        partial[row] = float64(weight) * value
        if VALUES:
            values[row] = real(value)
        if GRADIENT:
            portion = real(float64(weight) * factor)
            for at in range(0, classes, BLOCK):
                end = min(at + BLOCK, classes)
                slopes(t[at:end], e[at:end], r[at:end], share_of_all, real(mass), share, portion)
            if KL:  # p T - t at the likeliest class, where p is nearly 1
                own = float64(t[peak])
                e[peak] = real(((mass - own) - own * rest) / (1.0 + rest) * float64(portion))
            elif missed > zero:  # p (r - mass), likewise
                own = (top * rest / (1.0 + rest) - others) / (1.0 + rest)
                e[peak] = real((1.0 - beta) * own * float64(portion))


@functools.cache
def compiled(loss: str, dtype: str, flags: tuple[str, ...]) -> Any:
    """The kernel of ``kl_divergence`` or ``jensen_shannon``."""
    names = dict(softmax.names(dtype, dtype, flags))
    names |= {"__name__": __name__, "KL": loss == "kl_divergence", "SMOOTHED": False}
    mark = special.fingerprint(sys.modules[__name__], softmax, softmax_rows)
    variant = "_".join([loss, mark, dtype, *(name.lower() for name in flags)])
    for helper in (softmax_rows.highest, softmax_rows.find, powers):
        names[helper.__name__] = special.bind(helper, names, special.LOOSE, variant)
    parts = {
        "kl_divergence": (kullback_leibler, kullback_leibler_slope),
        "jensen_shannon": (jensen_shannon, jensen_shannon_slope),
    }[loss]
    names["terms"], names["slopes"] = (
        special.bind(part, names, special.LOOSE, variant) for part in parts
    )
    return special.entry(divergence, names, void(*[intp] * 9, float64, float64), variant)


class Divergence:
    """A divergence of distributions along the last axis as a program."""

    def __init__(self, loss: str) -> None:
        self.loss = loss

    def decline(
        self, shape: Shape, dtype: str, target_shape: Shape, target_dtype: str,
        parameters: Mapping[str, Any],
    ) -> str | None:  # fmt: skip
        if not shape or shape[-1] == 0:
            return f"a prediction of shape {shape} has no classes"
        if parameters.get("axis", -1) % len(shape) != len(shape) - 1:
            return "the class axis is not the last"
        if target_dtype != dtype or target_shape != shape:
            return "the target is not a distribution of the prediction's shape and dtype"
        return None

    def unit_axes(self, shape: Shape, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        return (len(shape) - 1,)

    def prepare(
        self, shape: Shape, dtype: str, target_dtype: str, purpose: Purpose,
        parameters: Mapping[str, Any],
    ) -> Launch:  # fmt: skip
        classes = shape[-1]
        samples = math.prod(shape) // classes
        names = ("WEIGHTED", "GRADIENT", "VALUES")
        flags = tuple(name for name, on in zip(names, purpose, strict=True) if on)
        run = compiled(self.loss, dtype, flags)
        beta = float(parameters.get("beta", 0.5))
        shares = -(-samples * classes // SMALLEST_SHARE)

        def launch(*memory: Any) -> float:
            *places, factor = memory
            partial = np.empty(samples)
            parts = min(pool.threads(), shares)
            pool.run(run, samples, parts, classes, *places, address(partial), beta, factor)
            return float(partial.sum()) * float(factor)

        return launch


PROGRAMS = {loss: Divergence(loss) for loss in ("kl_divergence", "jensen_shannon")}
