"""The elementary functions that formulas use, accurate to 1.5 ulp and made to be vectorised.

Each once, as mathematics, in single or double precision; the toolchains compile them with their own
``where``, ``bits`` (of a float, as an integer of its width), ``from_bits``, ``integer``, ``real``,
``ratio`` (a quotient by a number near 1, right to an ulp or so: many processors have a quicker way)
and with the constants of the precision. Numba's ``exp`` and ``log1p`` call the system's scalar
library, a GPU's multiply by log2(e) first and lose what that rounds. These are polynomials after
the classical range reductions (Cody and Waite 1980; Tang 1990); the coefficients are minimax fits
of (e^r - 1 - r) / r^2 on |r| <= 0.347 and of (log((1 + s) / (1 - s)) - 2 s) / s^3 in s^2, and those
of log-gammas that ``surprise_at_best`` says. A product and a sum may be fused; reassociation would
undo the corrections.
"""

# ruff: noqa: D103, F821  (the names of functions and constants are bound by the toolchains)
# mypy: ignore-errors

from __future__ import annotations

import math
from types import SimpleNamespace

SINGLE = SimpleNamespace(
    mantissa=23, bias=127, shifter=12582912.0,
    origin=0x4B400000, one_bits=0x3F800000, root_half=0x3F3504F3,
    ln2_high=0.693359375, ln2_low=-2.1219444005469057e-4,
    log_high=0.693145751953125, log_low=1.4286068203094172e-6,
    lowest=-104.0, highest=89.0, flat=-18.0, smallest=2.0**-126, below_one=1.0 - 2.0**-24,
    heads=-(1 << 12), lift=2.0**62, log_lift=62 * math.log(2),
    exponential=(0.5000000081998259, 0.16666525425770717, 0.04166623332751649,
                 0.008368283525128207, 0.0013949117811800713),
    unit=(0.6666652876039442, 0.4001610625951662, 0.2807945980061605, 0.27668360473066644),
    reduced=(0.6666675507310892, 0.3997960870759053, 0.2982531334937359),
    gamma_of_few=(0.7261468221027549, 1.487574612185056, 0.7352808067869494, 1.838485475485953,
                  1.4391693728904276, 3.869061470133129, 1.7533097201396515),
    gamma_of_many=(0.08333333708659905, 0.041666118974756576, 0.018068205580666165,
                   0.0061447594858345875, 0.0022257307458851527, 0.0004643749310569024,
                   0.0014768814464715886),
)  # fmt: skip
DOUBLE = SimpleNamespace(
    mantissa=52, bias=1023, shifter=6755399441055744.0,
    origin=0x4338000000000000, one_bits=0x3FF0000000000000, root_half=0x3FE6A09E667F3BCD,
    ln2_high=0.6931471803691238, ln2_low=1.9082149292705877e-10,
    log_high=0.6931471803691238, log_low=1.9082149292705877e-10,
    lowest=-746.0, highest=710.0, flat=-38.0, smallest=2.0**-1022, below_one=1.0 - 2.0**-53,
    heads=-(1 << 27), lift=2.0**510, log_lift=510 * math.log(2),
    exponential=(0.5, 0.16666666666666667, 0.041666666666666677, 0.008333333333333334,
                 0.0013888888888878985, 0.0001984126984126324, 2.4801587336679384e-5,
                 2.7557319247376794e-6, 2.7557263025575629e-7, 2.5052070925322047e-8,
                 2.0918231419370054e-9, 1.6086690397461099e-10),
    unit=(0.66666666666666667, 0.4, 0.28571428571428822, 0.22222222222172789, 0.18181818186880556,
          0.15384615076709173, 0.13333345323305978, 0.11764394102673769, 0.10531837812039884,
          0.094571632072114847, 0.092319442733682474, 0.052834122281372716, 0.14938828485979846),
    reduced=(0.66666666666666666, 0.4000000000000101, 0.28571428570722847, 0.22222222409839561,
             0.18181793722741448, 0.15386342949303698, 0.13266035693718339, 0.13114969366725221),
    gamma_of_few=(0.7261468182015299, 1.4875746788214577, 0.7352956073418209, 1.8384543237631332,
                  1.4305361371104572, 3.8384560043905984, 3.050795709129702, 9.472130803076057,
                  6.6007145033433865, 25.766006275158205, 13.297507091028267, 75.90636535393249,
                  22.923718077033726, 210.50254821519428, -332.41560142502846),
    gamma_of_many=(0.08333333333333338, 0.041666666666622415, 0.018055555562747506,
                   0.006249999534557238, 0.0018353334156165546, 0.0011157374604207726,
                   0.001083505915054726, 0.0001720662452071696, -0.00042876060749865336,
                   -0.0015539303990176818, 0.007853083130772551, -0.015332522460804332,
                   0.018407642312856683, -0.014304550101459538, 0.006733926237417555,
                   -0.0013628922773858965, -0.00022475923985877273, 0.0001270566724140349),
)  # fmt: skip


POLYNOMIALS = ("exponential", "unit", "reduced", "gamma_of_few", "gamma_of_many")
LIMITS = ("smallest", "below_one", "infinity")  # what formulas ask of the precision


def polynomial(coefficients: tuple[float, ...]) -> str:
    """Horner's scheme in x as an expression; written out, for compilers unroll no tuples."""
    text = repr(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        text = f"({coefficient!r} + x * {text})"
    return text


def constants(precision: SimpleNamespace) -> tuple[dict[str, float], dict[str, int]]:
    """(numbers of the precision, integers of its width) by the names used below."""
    reals = ("shifter", "ln2_high", "ln2_low", "log_high", "log_low", "lowest", "highest", "flat")
    reals += ("lift", "log_lift", *LIMITS[:2])
    integers = ("mantissa", "bias", "origin", "one_bits", "root_half", "heads")
    lift = 64  # the smallest results are computed 2^64 times as large
    numbers = {name: getattr(precision, name) for name in reals}
    patterns = {name: getattr(precision, name) for name in integers}
    numbers |= {"log2e": 1 / math.log(2), "infinity": math.inf, "lowered": 2.0**-lift}
    numbers |= {"lifter": precision.shifter + precision.bias + lift}
    return numbers, patterns | {"fraction": (1 << precision.mantissa) - 1, "shift_one": 1}


def sign(x):
    # 0 and NaN stay what they are.
    return where(x > 0.0, 1.0, where(x < 0.0, -1.0, x))


def exp(x):
    # Clamped by comparisons that are false for NaN, so NaN goes through.
    nothing = x < lowest
    x = where(nothing, lowest, x)
    x = where(x > highest, highest, x)
    # Adding 1.5 * 2^mantissa rounds to an integer and leaves it in the low bits.
    shifted = x * log2e + shifter
    n = shifted - shifter
    r = (x - n * ln2_high) - n * ln2_low
    k = integer(bits(shifted) - origin)
    # Two factors, so that subnormal results and the last binade come out.
    first = integer(k >> shift_one)
    second = integer(k - first)
    value = 1.0 + (r + r * r * exponential(r))
    value = value * from_bits(integer((first + bias) << mantissa))
    # A product that underflows takes processors a hundred times as long.
    return where(nothing, 0.0, value) * from_bits(integer((second + bias) << mantissa))


def exp_below(x):
    """exp(x) for x <= 0."""
    nothing = x < lowest
    x = where(nothing, lowest, x)
    shifted = x * log2e + lifter
    n = shifted - lifter
    r = (x - n * ln2_high) - n * ln2_low
    value = 1.0 + (r + r * r * exponential(r))
    # The shift leaves the low bits, n + 64 + bias. 2^(n + 64) is a normal number, and 2^-64 rounds
    # once.
    value = value * from_bits(integer(bits(shifted) << mantissa))
    return where(nothing, 0.0, value) * lowered  # for the same reason


def expm1(x):
    """exp(x) - 1 for x <= 1."""
    x = where(x < flat, flat, x)
    shifted = x * log2e + shifter
    n = shifted - shifter
    r = (x - n * ln2_high) - n * ln2_low
    power = from_bits(integer((bits(shifted) + bias) << mantissa))
    return (power - 1.0) + power * (r + r * r * exponential(r))


def exp_gap(x):
    """exp(x) - 1 - x for x in [-1.38, 1.38]: x^2/2 near 0."""
    r = 0.25 * x
    gap = r * r * exponential(r)
    # e^2r - 1 - 2r = (e^r - 1)^2 + 2 (e^r - 1 - r), twice.
    power = r + gap
    gap = power * power + 2.0 * gap
    power = 2.0 * r + gap
    return power * power + 2.0 * gap


def log1p_unit(u):
    """log(1 + u) for u in [0, 1]."""
    s = ratio(u, 2.0 + u)
    z = s * s
    return u - s * (u - z * unit(z))


def log1p_gap(u):
    """u - log(1 + u) for u in [-1/2, 1]: u^2/2 near 0."""
    s = ratio(u, 2.0 + u)
    z = s * s
    return s * (u - z * unit(z))


def log1p(u):
    """log(1 + u) for u > -1."""
    w = 1.0 + u
    moved = integer(bits(w) + (one_bits - root_half))
    k = integer((moved >> mantissa) - bias)
    lost = (u - (w - 1.0)) / w
    m = from_bits(integer((moved & fraction) + root_half)) - 1.0
    m = where(k == 0, u, m)
    lost = where(k == 0, 0.0, lost)
    s = ratio(m, 2.0 + m)
    z = s * s
    square = 0.5 * m * m
    n = real(k)
    tail = s * (square + z * reduced(z)) + (n * log_low + lost)
    result = n * log_high + (m - (square - tail))
    return where(w < infinity, result, w)


def log(x):
    """log(x) for normal x > 0."""
    moved = integer(bits(x) + (one_bits - root_half))
    n = real(integer((moved >> mantissa) - bias))
    m = from_bits(integer((moved & fraction) + root_half)) - 1.0
    s = ratio(m, 2.0 + m)
    z = s * s
    square = 0.5 * m * m
    tail = s * (square + z * reduced(z)) + n * log_low
    result = n * log_high + (m - (square - tail))
    return where(x < infinity, result, x)


def log_any(x):
    """log(x) for any x: minus infinity at 0, NaN below."""
    small = x < smallest
    result = log(where(small, 18446744073709551616.0 * x, x)) - where(small, 44.36141955583650, 0.0)
    return where(x > 0.0, result, where(x == 0.0, -infinity, infinity - infinity))


def log_ratio(a, b):
    """log(a / b) for a >= 0 and b > 0, also where the quotient is no number."""
    low = a < b / lift
    high = b < a / lift
    a = where(low, lift * a, where(high, a / lift, a))
    b = where(low, b / lift, where(high, lift * b, b))
    moved = where(low, -2.0 * log_lift, where(high, 2.0 * log_lift, 0.0))
    return log_any(a / b) + moved


def power_of(x, rest, exponent):
    """(x + rest)^exponent for x > 0; the rest is what rounding took from x.

    To 3 ulp where the result lies between 1e-40 and 1e40.
    """
    small = x < smallest
    moved = integer(bits(where(small, 18446744073709551616.0 * x, x)) + (one_bits - root_half))
    n = real(integer((moved >> mantissa) - bias)) - where(small, 64.0, 0.0)
    u = from_bits(integer((moved & fraction) + root_half)) - 1.0
    # The logarithm in two parts, for the exponential sees its absolute error. Products of heads,
    # numbers without their last bits, are exact.
    s_head = from_bits(integer(bits(ratio(u, 2.0 + u)) & heads))
    u_head = from_bits(integer(bits(u) & heads))
    left = ((u - 2.0 * s_head) - s_head * u_head) - s_head * (u - u_head)
    s_tail = ratio(left, 2.0 + u)
    s = s_head + s_tail
    z = s * s
    tail = 2.0 * s_tail + s * (z * reduced(z)) + (n * log_low + rest / x)
    whole = n * log_high
    head = from_bits(integer(bits(whole + 2.0 * s_head) & heads))
    tail = ((whole - head) + 2.0 * s_head) + tail
    exponent = where(x < infinity, exponent, x)  # NaN goes through
    exponent_head = from_bits(integer(bits(exponent) & heads))
    growth = exponent_head * head
    more = exponent_head * tail + (exponent - exponent_head) * (head + tail)
    nothing = growth + more < lowest
    most = growth + more > highest
    growth = where(nothing, lowest, where(most, highest, growth))
    more = where(nothing, 0.0, where(most, 0.0, more))
    shifted = (growth + more) * log2e + shifter
    n = shifted - shifter
    r = ((growth - n * ln2_high) + more) - n * ln2_low
    k = integer(bits(shifted) - origin)
    first = integer(k >> shift_one)
    second = integer(k - first)
    value = 1.0 + (r + r * r * exponential(r))
    value = value * from_bits(integer((first + bias) << mantissa))
    return where(nothing, 0.0, value) * from_bits(integer((second + bias) << mantissa))


def relative_entropy(y, rate, log_rise):
    """rate - y - y log(rate / y) for y > 0; the logarithm is read where rate and y lie apart."""
    excess = (rate - y) / y
    near = (excess >= -0.5) & (excess <= 1.0)
    gap = log1p_gap(where(near, excess, 0.0))
    return where(near, y * gap, (rate - y) - y * log_rise)


def surprise_at_best(y):
    """log(y!) - y log(y) + y for y > 0, a count's Poisson surprise under its own rate.

    The polynomials: up to 1 (log(y!)/y + 0.577...)/y, in 1/(y + 2) - 7/16; beyond, what Stirling's
    formula lacks over t = 1/(y + 1/2), in t.
    """
    few = y <= 1.0
    t = 1.0 / (y + where(few, 2.0, 0.5))
    s = t - 0.4375
    log_count = log_any(y)
    least = y * ((y * gamma_of_few(s) - log_count) + 0.42278433509846714)
    return where(few, least, (0.5 * log_count + 0.9189385332046727) + t * gamma_of_many(t))


def surprise_of_logit(z, yes, no, mass):
    """yes log(1 + e^-z) + no log(1 + e^z), with mass = yes + no; and its slope by z."""
    # Seen from the likelier answer: what speaks against it, and what for it.
    positive = z > 0.0
    against = where(positive, no, yes)
    agreeing = where(positive, yes, no)
    distance = absolute(z)
    odds = exp_below(-distance)
    # A weight of exactly zero wins over an infinite logit.
    miss = where(against == 0.0, 0.0, against * distance)
    pull = ratio(against - agreeing * odds, 1.0 + odds)
    return mass * log1p_unit(odds) + miss, where(positive, pull, -pull)
