"""Special functions of definitions: differences that vanish somewhere, written without cancelling.

Like ``numerics``, each is right in value and in the derivative that a framework finds line by line.
"""

from __future__ import annotations

import math

from lossary.contract import Array
from lossary.numerics import stop_gradient
from lossary.xp import namespace


def quotient(x: Array, y: Array) -> Array:
    """``x / y``, differentiable wherever the derivative is representable.

    A library may form 1 / y^2 for the derivative by ``y``, which overflows or vanishes long before
    the derivative does. Here what is differentiated is divided by ``y`` first, as a constant.
    """
    xp = namespace(x, y)
    whole = stop_gradient(y)
    usable = xp.logical_and(whole != 0, xp.isfinite(whole))
    whole = xp.where(usable, whole, 1.0)
    return (x / whole) / (y / whole)


def root_one_plus_square(x: Array) -> Array:
    """``sqrt(1 + x^2)``, free of overflow."""
    xp = namespace(x)
    scale = xp.clip(xp.abs(stop_gradient(x)), 1.0, None)
    return scale * xp.sqrt(xp.square(x / scale) + xp.square(1.0 / scale))


def log_one_plus_square(x: Array) -> Array:
    """``log(1 + x^2)``, free of overflow."""
    xp = namespace(x)
    far = xp.abs(x) > 1.0
    inside, outside = xp.where(far, 0.0, x), xp.where(far, xp.abs(x), 1.0)
    beyond = 2.0 * xp.log(outside) + xp.log1p(xp.square(1.0 / outside))
    return xp.where(far, beyond, xp.log1p(xp.square(inside)))


def _terms(like: Array) -> int:
    """How many terms of a series with ratio 1/9 the dtype can tell apart."""
    return 17 if namespace(like).finfo(like.dtype).bits == 64 else 8


def _artanh_tail(t: Array) -> Array:
    """``(artanh(s)/s - 1)/t`` where ``t = s^2`` is at most 1/9: 1/3 + t/5 + t^2/7 + ..."""
    count = _terms(t)
    total = 0.0 * t + 1.0 / (2 * count + 3)
    for k in range(count - 1, -1, -1):
        total = 1.0 / (2 * k + 3) + t * total
    return total


def log_gap(excess: Array, ratio: Array) -> Array:
    """``excess - log(ratio)`` where ``ratio = 1 + excess``; about excess^2/2 near 0.

    Both come as arguments, because each is accurate where the other has lost its digits: the excess
    near 0, the ratio near 0. Near 1, log(ratio) = 2 artanh(s) with s = excess/(2 + excess).
    """
    xp = namespace(excess, ratio)
    near = xp.logical_and(ratio >= 0.5, ratio <= 2.0)
    small = xp.where(near, excess, 0.0)
    s = small / (2.0 + small)
    close = s * (small - 2.0 * xp.square(s) * _artanh_tail(xp.square(s)))
    return xp.where(near, close, excess - xp.log(xp.where(near, 1.0, ratio)))


def exp_gap(x: Array) -> Array:
    """``exp(x) - 1 - x``; about x^2/2 near 0."""
    xp = namespace(x)
    near = xp.abs(x) <= 1.0
    small = xp.where(near, x, 0.0)
    total = xp.ones_like(x)
    for k in range(_terms(x) + 2, 2, -1):
        total = 1.0 + small * total / k
    return xp.where(near, 0.5 * xp.square(small) * total, xp.expm1(xp.where(near, 0.0, x)) - x)


def power_gap(base: Array, log_base: Array, exponent: float) -> Array:
    """``(base^exponent - 1) / exponent``, and its limit ``log(base)`` (the Box-Cox transform).

    ``log_base`` comes as an argument, because near 1 the base has lost its digits.
    """
    xp = namespace(base, log_base)
    if abs(exponent) < 1e-20:
        return log_base
    growth = exponent * log_base
    # Far out the power is accurate and the exponential is not; near 1 it is the reverse.
    far = xp.logical_and(xp.abs(growth) > 1.0, xp.logical_or(base < 0.5, base > 1.4))
    power = xp.where(far, base, 1.0) ** exponent - 1.0
    return xp.where(far, power, xp.expm1(xp.where(far, 0.0, growth))) / exponent


# The polynomial in 1/x^2 nearest to x * stirling(1/x) for x >= 4 (relative error 2.4e-17), fitted
# with mpmath at 60 digits; its last coefficients approach the Bernoulli numbers' 1/12, -1/360, ...
_STIRLING = (
    -0.17390223978422367,
    0.08600886915362022,
    -0.02431970081518216,
    0.006210992276421007,
    -0.0019125368108574897,
    0.0008416721483780579,
    -0.0005952373672607474,
    0.0007936507901805894,
    -0.002777777777771288,
    0.08333333333333333,
)


def stirling(inverse: Array) -> Array:
    """What Stirling's formula lacks: log Gamma(x) - (x - 1/2) log x + x - log(2 pi)/2.

    ``inverse`` is 1/x, so that x may grow without bound: about inverse/12 near 0. Log-gammas in
    densities are huge and nearly cancel; their Stirling parts cancel on paper, and this is what
    stays (Loader 2000, "Fast and accurate computation of binomial probabilities").
    """
    xp = namespace(inverse)
    low = inverse > 0.25
    x = 1.0 / xp.where(low, inverse, 1.0)
    t = xp.where(low, 1.0 / (x + 4.0), inverse)
    square, series = xp.square(t), xp.zeros_like(t)
    for coefficient in _STIRLING:
        series = coefficient + square * series
    steps = xp.zeros_like(x)
    for k in range(4):  # stirling at x less stirling at x + 1, four times
        steps = steps + _stirling_step(x + float(k), first=k == 0)
    return t * series + xp.where(low, steps, 0.0)


def _stirling_step(x: Array, *, first: bool) -> Array:
    """``(x + 1/2) log(1 + 1/x) - 1``; only at the first step may ``x`` be less than 1."""
    xp = namespace(x)
    square = xp.square(1.0 / (2.0 * (xp.clip(x, 1.0, None) if first else x) + 1.0))
    step = square * _artanh_tail(square)
    if not first:
        return step
    below = x < 1.0
    inside = xp.where(below, x, 1.0)
    return xp.where(below, (inside + 0.5) * (xp.log1p(inside) - xp.log(inside)) - 1.0, step)


HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
