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
cancels where t and p are close. Log-probabilities are used as they are, and have a pointwise
formula.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import float64, intp, void

from lossary.kernels.numba import pointwise, pool, softmax, softmax_rows, special
from lossary.kernels.numba.memory import address, read
from lossary.kernels.numba.program import Launch, Purpose, Shape, Shapes, no_classes


def powers(z, e, n, high):
    """exp(z - high) into ``e``, and their sum."""
    full_width()
    total = zero
    for i in range(n):
        power = exp_below(z[i] - high)
        e[i] = power
        total += power
    return total


def kullback_leibler(z, t, e, r, n, high, lack, share_of_all, beta, missed):
    """Terms of the value, and of T."""
    full_width()
    value, mass = zero, zero
    for i in range(n):
        # A weight of 0 wins over an infinite surprise; smaller than any, it is multiplied by 0.
        some = t[i] if t[i] > smallest else one
        below = z[i] - high
        below = deepest if below < deepest else below
        value += t[i] * ((log(some) - below) + lack)
        value += infinity if z[i] - high < deepest and t[i] > zero else zero
        mass += t[i]
    return value, mass


def kullback_leibler_slope(t, e, r, n, share_of_all, mass, beta, factor):
    full_width()
    for i in range(n):
        e[i] = (e[i] * (share_of_all * mass) - t[i]) * factor


def jensen_shannon(z, t, e, r, n, high, base, share_of_all, beta, missed):
    """Terms of the value, and of sum p r; r, less ``base``, is kept for the slope.

    Where ``missed`` is 1, ``base`` is what r becomes without any target, -log(1 - beta): then
    r - base = -log1p(beta / (1 - beta) t / p).
    """
    full_width()
    value, mass = zero, zero
    scale, here = beta / (one - missed * beta), one - missed
    above = base if missed > zero else zero
    below = base - above
    for i in range(n):
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


def jensen_shannon_slope(t, e, r, n, share_of_all, mass, beta, factor):
    full_width()
    for i in range(n):
        e[i] = (one - beta) * (e[i] * share_of_all) * (r[i] - mass) * factor


def divergence(
    first, last, classes, prediction_at, target_at, weights_at, gradient_at, values_at,
    partial_at, beta, factor,
):  # fmt: skip
    """Class axis last; ``partial`` receives each row's weighted value."""
    z_all, t_all, g_all = reals_at(prediction_at), reals_at(target_at), reals_at(gradient_at)
    weights, values = reals_at(weights_at), reals_at(values_at)
    partial = doubles_at(partial_at)
    line = 8 * classes + 64  # bytes of a row of scratch memory
    borrowed = borrow(64 + 2 * line)
    at = (borrowed + 63) & -64
    r, spare = reals_at(at), reals_at((at + line) & -64)
    share = real(beta)
    for row in range(first, last):
        z, t = past(z_all, row * classes), past(t_all, row * classes)
        e = past(g_all, row * classes) if GRADIENT else spare
        weight = weights[row] if WEIGHTED else one
        if weight == zero:
            partial[row] = 0.0
            if GRADIENT:
                for k in range(classes):
                    e[k] = zero
            if VALUES:
                values[row] = zero
            continue
        key, best = lowest_key, 0
        for low in range(0, classes, BLOCK):
            n = BLOCK if classes - low > BLOCK else classes - low
            grown, _ = highest(past(z, low), n, key)
            best = low if grown > key else best
            key = grown
        high = from_bits(integer(key ^ integer(integer(key >> sign_bit) & no_sign)))
        n = BLOCK if classes - best > BLOCK else classes - best
        peak = best + find(past(z, best), n, high)
        rest = 0.0
        low = 0
        while low < classes:
            end = stop(low, classes, peak)
            rest += powers(past(z, low), past(e, low), end - low, high)
            low = end + 1 if end == peak else end
        e[peak] = one
        lack, share_of_all = real(math.log1p(rest)), real(1.0 / (1.0 + rest))
        base, missed = lack if KL else zero, zero
        if not KL and t[peak] + t[peak] < share_of_all:
            base, missed = real(-math.log1p(-beta)), one
        value, mass = terms(
            past(z, peak), past(t, peak), past(e, peak), past(r, peak), 1,
            high, base, share_of_all, share, missed,
        )  # fmt: skip
        value, mass = float64(value), float64(mass)
        if not KL and missed == zero:
            # Slopes are differences of r: taken from the likeliest class's, where p is nearly 1,
            # they do not cancel; nor from the r of classes that the target lacks, if it is one.
            base, mass, r[peak] = r[peak], 0.0, zero
        top, peak_mass, mass = float64(r[peak]), mass, 0.0
        low = 0
        while low < classes:
            end = stop(low, classes, peak)
            a, b = terms(
                past(z, low), past(t, low), past(e, low), past(r, low), end - low,
                high, base, share_of_all, share, missed,
            )  # fmt: skip
            value, mass = value + a, mass + b
            low = end + 1 if end == peak else end
        others, mass = mass, peak_mass + mass
        partial[row] = float64(weight) * value
        if VALUES:
            values[row] = real(value)
        if GRADIENT:
            portion = real(float64(weight) * factor)
            slopes(t, e, r, classes, share_of_all, real(mass), share, portion)
            if KL:  # p T - t at the likeliest class, where p is nearly 1
                own = float64(t[peak])
                e[peak] = real(((mass - own) - own * rest) / (1.0 + rest) * float64(portion))
            elif missed > zero:  # p (r - mass), likewise
                own = (top * rest / (1.0 + rest) - others) / (1.0 + rest)
                e[peak] = real((1.0 - beta) * own * float64(portion))
    give_back(borrowed)


@functools.cache
def compiled(loss: str, dtype: str, flags: tuple[str, ...]) -> Any:
    """The kernel of ``kl_divergence`` or ``jensen_shannon``."""
    names = dict(softmax.names(dtype, dtype, flags))
    names |= {"__name__": __name__, "KL": loss == "kl_divergence", "SMOOTHED": False}
    mark = special.fingerprint(sys.modules[__name__], softmax, softmax_rows)
    variant = "_".join([loss, mark, dtype, *(name.lower() for name in flags)])
    for helper in (softmax_rows.highest, softmax_rows.find, softmax_rows.stop, powers):
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
        self, shapes: Shapes, dtypes: tuple[str, ...], parameters: Mapping[str, Any]
    ) -> str | None:
        (shape, target_shape), (dtype, target_dtype) = shapes, dtypes
        reason = no_classes(shape, parameters.get("axis", -1), last=True)
        if reason is not None:
            return reason
        if target_dtype != dtype or target_shape != shape:
            return "the target is not a distribution of the prediction's shape and dtype"
        return None

    def unit_axes(self, shape: Shape, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        return (parameters.get("axis", -1) % len(shape),)

    def prepare(
        self, shapes: Shapes, dtypes: tuple[str, ...], purpose: Purpose,
        parameters: Mapping[str, Any],
    ) -> Launch:  # fmt: skip
        shape, dtype = shapes[0], dtypes[0]
        classes = shape[-1]
        samples = math.prod(shape) // classes
        names = ("WEIGHTED", "GRADIENT", "VALUES")
        flags = tuple(name for name, on in zip(names, purpose, strict=True) if on)
        run = compiled(self.loss, dtype, flags)
        beta = float(parameters.get("beta", 0.5))

        def launch(*memory: Any) -> float:
            *places, factor = memory
            partial = np.empty(samples)
            parts = pool.parts(samples * classes)
            pool.run(run, samples, parts, classes, *places, address(partial), beta, factor)
            return float(partial.sum()) * float(factor)

        return launch


class OfLogProbabilities(Divergence):
    """The Kullback-Leibler divergence of log-probabilities: a sum over classes of a formula."""

    def prepare(
        self, shapes: Shapes, dtypes: tuple[str, ...], purpose: Purpose,
        parameters: Mapping[str, Any],
    ) -> Launch:  # fmt: skip
        shape, dtype = shapes[0], dtypes[0]
        run = pointwise.prepared(self.loss, dtype, shape, purpose, ())
        weighted, _, valued = purpose
        classes, real = shape[-1], pointwise.REAL[dtype]
        if classes == 1 or not (weighted or valued):  # in no sum but that over everything
            return run
        samples = math.prod(shape) // classes

        def launch(
            prediction: int, target: int, weights: int, gradient: int, values: int, factor: float
        ) -> float:
            each = np.empty((samples, classes) if valued else 0, real)
            wide = np.empty(0, real)
            if weighted:
                wide = np.repeat(read(weights, samples, real), classes)
            total = run(prediction, target, address(wide), gradient, address(each), factor)
            if valued:
                each.sum(axis=-1, out=read(values, samples, real))
            return total

        return launch


PROGRAMS: dict[str, Divergence] = {
    "kl_divergence": Divergence("kl_divergence"),
    "jensen_shannon": Divergence("jensen_shannon"),
    "kl_divergence_of_log_probabilities": OfLogProbabilities("kl_divergence_of_log_probabilities"),
}
