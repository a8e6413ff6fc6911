"""Special functions of definitions: differences that vanish somewhere, written without cancelling.

Like ``numerics``, each is right in value and in the derivative that a framework finds line by line.
"""

from __future__ import annotations

import math

from lossary.contract import Array
from lossary.numerics import computed_once, quotient, stop_gradient
from lossary.xp import namespace


def graft(value: Array, source: Array) -> Array:
    """``value``, differentiated as ``source``: for formulas whose derivative wants another form."""
    xp = namespace(value, source)
    root = stop_gradient(source)
    return stop_gradient(value) + (source - xp.where(xp.isfinite(root), root, 0.0))


def sloped(slope: Array, x: Array) -> Array:
    """0, whose derivative by ``x`` is ``slope``: for derivatives written out by hand.

    ``slope`` may depend on ``x``: the second derivative is the slope's own (where the matrix of
    second derivatives is symmetric, as every loss's is).
    """
    xp = namespace(slope, x)
    root = stop_gradient(x)
    step = xp.where(xp.isfinite(root), x - root, 0.0)
    return 0.5 * (slope + stop_gradient(slope)) * step


def reciprocal(x: Array) -> Array:
    """``1 / x``, differentiable as ``quotient``."""
    return quotient(namespace(x).ones_like(x), x)


def log_of_ratio(ratio: Array, difference: Array) -> Array:
    """``log(ratio)`` where ``difference`` is the same as a difference of logarithms.

    The first has the digits, unless the ratio leaves the range of numbers, the second the
    derivative.
    """
    xp = namespace(ratio, difference)
    known = xp.logical_and(ratio > 1e-30, ratio < 1e30)
    return xp.where(known, graft(xp.log(xp.where(known, ratio, 1.0)), difference), difference)


def exp_minus_one(x: Array) -> Array:
    """``exp(x) - 1``, by its series near 0.

    The libraries' derivative of their expm1, result + 1, cancels below 0; and torch.compile makes
    exp(x) - 1 of it.
    """
    xp = namespace(x)
    near = xp.abs(x) <= 1.0
    small = xp.where(near, x, 0.0)
    return xp.where(near, small * _exp_series(small, 1), xp.exp(xp.where(near, 0.0, x)) - 1.0)


def _exp_series(x: Array, start: int) -> Array:
    """``start!`` times the sum of x^k/(k + start)! over k = 0, 1, ...; for x up to 1."""
    x = computed_once(x)
    total = namespace(x).ones_like(x)
    for k in range(20 if _is_double(x) else 12, start, -1):
        total = 1.0 + x * total / k
    return total


def hypotenuse(x: Array, side: float = 1.0) -> Array:
    """``sqrt(x^2 + side^2)``, free of overflow."""
    xp = namespace(x)
    far = xp.abs(x) > 1e9 * side  # there the other side is less than a rounding
    return xp.where(far, xp.abs(x), side * xp.sqrt(1.0 + xp.square(xp.where(far, 0.0, x) / side)))


def log_one_plus_square(x: Array) -> Array:
    """``log(1 + x^2)``, free of overflow."""
    xp = namespace(x)
    far = xp.abs(x) > 1.0
    inside, outside = xp.where(far, 0.0, x), xp.where(far, xp.abs(x), 1.0)
    beyond = 2.0 * xp.log(outside) + xp.log1p(xp.square(1.0 / outside))
    return xp.where(far, beyond, xp.log1p(xp.square(inside)))


def _is_double(like: Array) -> bool:
    return bool(namespace(like).finfo(like.dtype).bits == 64)


def _polynomial(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    """The polynomial with these coefficients, the highest power's first: float64's or float32's."""
    first, *others = coefficients[0 if _is_double(x) else 1]
    x = computed_once(x)
    total = 0.0 * x + first
    for coefficient in others:
        total = coefficient + x * total
    return total


# Polynomials fitted with mpmath at 60 digits, one for float64 and a shorter one for float32. Their
# relative errors, and those of the derivative of what they are a factor of, are below a rounding.
# Nearest to (artanh(s)/s - 1)/s^2 in s^2 <= 1/9, whose series is 1/3, 1/5, ...;
_ARTANH = (
    (
        0.07815288900461426,
        0.03746071897775383,
        0.05422589197440007,
        0.05867139530651599,
        0.06667589315724629,
        0.07692271982430275,
        0.09090909948981357,
        0.11111111099118386,
        0.1428571428580005,
        0.19999999999999762,
        0.3333333333333333,
    ),
    (
        0.09532894472904432,
        0.07223047417690645,
        0.0912765172439636,
        0.11109655860158806,
        0.1428574151703626,
        0.1999999980990146,
        0.33333333333549087,
    ),
)
# to x * stirling(1/x) in 1/x^2 <= 0.09, whose series is 1/12, -1/360, ...;
_STIRLING = (
    (
        13.542902108882462,
        -9.68008100560129,
        3.344469838364613,
        -0.7790740451230598,
        0.14936979544704776,
        -0.02841439060709022,
        0.0063792548296677225,
        -0.0019169383267957267,
        0.0008417434851598089,
        -0.0005952380395158216,
        0.0007936507934284016,
        -0.002777777777777425,
        0.08333333333333333,
    ),
    (
        0.0005482753120097858,
        -0.0005749251269227787,
        0.0007930336552551836,
        -0.002777771003839575,
        0.08333333332118682,
    ),
)
# and to the same in 1/x - 0.65 for 1/x from 0.3 to 1.
_STIRLING_AT_FEW = (
    (
        2.304144651132312e-06,
        -5.516987397676573e-06,
        6.597315571168438e-06,
        -5.3477215636682396e-06,
        2.117194876720818e-06,
        3.2886896713310796e-06,
        -1.0264632013115923e-05,
        1.6659872016169588e-05,
        -1.851834104737146e-05,
        1.0139713897947106e-05,
        1.445451422561616e-05,
        -5.6515862462913855e-05,
        0.0001001259092947112,
        -8.648390870806126e-05,
        -0.00012588614271756993,
        0.0007578806516174251,
        -0.001586149651603109,
        -0.0029884522277855013,
        0.0822714262132475,
    ),
    (
        1.5380276980080146e-05,
        8.189141542670358e-06,
        -5.7081238728282244e-05,
        0.00010081716579341999,
        -8.645911342848151e-05,
        -0.00012591676441687513,
        0.0007578802715620492,
        -0.0015861491801050852,
        -0.002988452226854192,
        0.08227142621209112,
    ),
)


def log_gap(excess: Array, log_ratio: Array) -> Array:
    """``excess - log_ratio`` where it is the logarithm of ``1 + excess``; about excess^2/2 near 0.

    Both come as arguments, because each is accurate where the other has lost its digits: the
    excess near 0, the logarithm far from it.
    """
    xp = namespace(excess, log_ratio)
    near = _near_zero(excess)
    small = xp.where(near, excess, 0.0)
    return xp.where(near, small * _slope_near_zero(small), excess - log_ratio)


def log_gap_slope(excess: Array, ratio: Array) -> Array:
    """``log_gap(excess, log(ratio)) / excess`` of ``ratio = 1 + excess``; about excess/2 near 0."""
    xp = namespace(excess, ratio)
    near = _near_zero(excess)
    far = 1.0 - quotient(xp.log(xp.where(near, 1.0, ratio)), xp.where(near, 1.0, excess))
    return xp.where(near, _slope_near_zero(xp.where(near, excess, 0.0)), far)


def entropy_gap(excess: Array, ratio: Array) -> Array:
    """``ratio * log(ratio) - excess`` of ``ratio = 1 + excess``; about excess^2/2 near 0."""
    xp = namespace(excess, ratio)
    near = _near_zero(excess)
    far = ratio * xp.log(xp.where(xp.logical_or(near, ratio == 0), 1.0, ratio)) - excess
    del ratio  # as large as the input
    excess = xp.where(near, excess, 0.0)
    return xp.where(near, _slope_near_zero(-excess / (1.0 + excess)) * -excess, far)


def _near_zero(excess: Array) -> Array:
    return namespace(excess).logical_and(excess >= -0.5, excess <= 1.0)


def _slope_near_zero(excess: Array) -> Array:
    """``1 - log(1 + excess)/excess``, by the series of 2 artanh(s), s = excess/(2 + excess)."""
    square = namespace(excess).square(excess / (2.0 + excess))
    return (excess - 2.0 * square * _polynomial(_ARTANH, square)) / (2.0 + excess)


def exp_gap(x: Array) -> Array:
    """``exp(x) - 1 - x``; about x^2/2 near 0."""
    xp = namespace(x)
    near = xp.abs(x) <= 1.0
    small = xp.where(near, x, 0.0)
    close = 0.5 * xp.square(small) * _exp_series(small, 2)
    # Beyond 1e4 the exponential is infinite; so the result stays when x is.
    far = (xp.exp(xp.where(near, 0.0, x)) - 1.0) - xp.clip(x, None, 1e4)
    return xp.where(near, close, far)


def power_gap(base: Array, log_base: Array, exponent: float) -> Array:
    """``(base^exponent - 1) / exponent``, and its limit ``log(base)`` (the Box-Cox transform).

    ``log_base`` comes as an argument, because near 1 the base has lost its digits.
    """
    xp = namespace(base, log_base)
    if exponent == 0.0:
        return log_base
    growth = exponent * log_base
    least = xp.abs(growth) < 1e-8
    # Far out the power is accurate and the exponential is not; near 1 it is the reverse.
    far = xp.logical_and(xp.abs(growth) > 1.0, xp.logical_or(base < 0.5, base > 1.4))
    gap = exp_minus_one(xp.where(xp.logical_or(far, least), 0.0, growth))
    gap = xp.where(far, xp.where(far, base, 1.0) ** exponent - 1.0, gap) / exponent
    return xp.where(least, log_base * (1.0 + 0.5 * growth), gap)


def stirling(inverse: Array) -> Array:
    """What Stirling's formula lacks: log Gamma(x) - (x - 1/2) log x + x - log(2 pi)/2.

    ``inverse`` is 1/x, so that x may grow without bound: about inverse/12 near 0. Log-gammas in
    densities are huge and nearly cancel; their Stirling parts cancel on paper, and this is what
    stays (Loader 2000, "Fast and accurate computation of binomial probabilities").
    """
    xp = namespace(inverse)
    below = inverse > 1.0  # there it is that of x + 1, and the step from x to it
    x = reciprocal(xp.where(below, inverse, 1.0))
    inverse = xp.where(below, 1.0 / (x + 1.0), inverse)
    many = inverse <= 0.3
    few = xp.where(many, 0.65, inverse)
    few = few * _polynomial(_STIRLING_AT_FEW, few - 0.65)
    rest = xp.where(many, inverse, 0.0)
    del inverse  # what is not needed any more would add to what is held at once
    rest = rest * _polynomial(_STIRLING, xp.square(rest))
    step = (x + 0.5) * (xp.log1p(x) - xp.log(x)) - 1.0
    return xp.where(many, rest, few) + xp.where(below, step, 0.0)


HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
