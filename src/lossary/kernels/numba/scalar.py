# mypy: disable-error-code="call-arg"
"""The elementary functions that formulas use, accurate to 1.5 ulp and made to be vectorised.

Numba's own ``exp`` and ``log1p`` call the system's scalar library. These are polynomials after the
classical range reductions (Cody and Waite 1980; Tang 1990); their coefficients are Chebyshev fits
of (e^r - 1 - r) / r^2 on |r| <= 0.347 and of (log((1 + s) / (1 - s)) - 2 s) / s^3 in s^2. Only
``contract`` (fused multiply-add) is allowed: reassociation would undo the corrections.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import njit

from lossary.kernels.numba.machine import always_inline, bits, from_bits

_EXACT: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy"}

_SINGLE = SimpleNamespace(
    real=np.float32, integer=np.int32, mantissa=23, bias=127, shifter=12582912.0,
    ln2_high=0.693359375, ln2_low=-2.1219444005469057e-4,
    log_high=0.693145751953125, log_low=1.4286068203094172e-6,
    lowest=-104.0, highest=89.0, flat=-18.0,
    exponential=(0.5000000013557447, 0.16666666681725002, 0.041666464010785556,
                 0.0083333108239232112, 0.0013933751387987224, 0.00019891103420544327),
    unit=(0.66666666650023614, 0.40000010769949664, 0.28570305721883662, 0.22264711209001325,
          0.17464702465440774, 0.20787616855746752),
    reduced=(0.66666666545081146, 0.40000129463830023, 0.28549964490048431, 0.23353537011868429),
)  # fmt: skip
_DOUBLE = SimpleNamespace(
    real=np.float64, integer=np.int64, mantissa=52, bias=1023, shifter=6755399441055744.0,
    ln2_high=0.6931471803691238, ln2_low=1.9082149292705877e-10,
    log_high=0.6931471803691238, log_low=1.9082149292705877e-10,
    lowest=-746.0, highest=710.0, flat=-38.0,
    exponential=(0.5, 0.16666666666666667, 0.041666666666666677, 0.008333333333333334,
                 0.0013888888888878985, 0.0001984126984126324, 2.4801587336679384e-5,
                 2.7557319247376794e-6, 2.7557263025575629e-7, 2.5052070925322047e-8,
                 2.0918231419370054e-9, 1.6086690397461099e-10),
    unit=(0.66666666666666667, 0.4, 0.28571428571428822, 0.22222222222172789, 0.18181818186880556,
          0.15384615076709173, 0.13333345323305978, 0.11764394102673769, 0.10531837812039884,
          0.094571632072114847, 0.092319442733682474, 0.052834122281372716, 0.14938828485979846),
    reduced=(0.66666666666666666, 0.4000000000000101, 0.28571428570722847, 0.22222222409839561,
             0.18181793722741448, 0.15386342949303698, 0.13266035693718339, 0.13114969366725221),
)  # fmt: skip


def _polynomial(coefficients: tuple[float, ...], real: type) -> Any:
    """Horner's scheme as a compiled function; written out, for Numba unrolls no tuples."""
    terms = {f"c{i}": real(c) for i, c in enumerate(coefficients)}
    text = f"c{len(coefficients) - 1}"
    for i in reversed(range(len(coefficients) - 1)):
        text = f"(c{i} + x * {text})"
    namespace: dict[str, Any] = terms | {"always_inline": always_inline}
    exec(
        f"def polynomial(x):\n    always_inline()\n    return {text}", namespace
    )  # our own constants only
    return njit(**_EXACT)(namespace["polynomial"])


def functions(real: type) -> dict[str, Any]:
    """Name -> compiled scalar function of this precision."""
    p = _SINGLE if real is np.float32 else _DOUBLE
    zero, one, two, half = real(0), real(1), real(2), real(0.5)
    infinity, log2e, shifter = real(math.inf), real(1 / math.log(2)), real(p.shifter)
    ln2_high, ln2_low = real(p.ln2_high), real(p.ln2_low)
    log_high, log_low = real(p.log_high), real(p.log_low)
    lowest, highest, flat = real(p.lowest), real(p.highest), real(p.flat)
    integer, mantissa, bias = p.integer, p.integer(p.mantissa), p.integer(p.bias)
    origin = real(p.shifter).view(integer)
    root_half = real(math.sqrt(0.5)).view(integer)
    one_bits = one.view(integer)
    fraction = integer((1 << p.mantissa) - 1)
    shift_one = integer(1)
    exponential = _polynomial(p.exponential, real)
    unit_series = _polynomial(p.unit, real)
    reduced_series = _polynomial(p.reduced, real)

    @njit(**_EXACT)
    def where(condition, yes, no):  # type: ignore[no-untyped-def]
        always_inline()
        return yes if condition else no

    @njit(**_EXACT)
    def absolute(x):  # type: ignore[no-untyped-def]
        always_inline()
        return abs(x)

    @njit(**_EXACT)
    def sign(x):  # type: ignore[no-untyped-def]
        always_inline()
        # 0 and NaN stay what they are.
        return one if x > zero else (-one if x < zero else x)

    @njit(**_EXACT)
    def sqrt(x):  # type: ignore[no-untyped-def]
        always_inline()
        return math.sqrt(x)

    @njit(**_EXACT)
    def exp(x):  # type: ignore[no-untyped-def]
        always_inline()
        # Clamped by comparisons that are false for NaN, so NaN goes through.
        x = lowest if x < lowest else x
        x = highest if x > highest else x
        # Adding 1.5 * 2^mantissa rounds to an integer and leaves it in the low bits.
        shifted = x * log2e + shifter
        n = shifted - shifter
        r = (x - n * ln2_high) - n * ln2_low
        k = integer(bits(shifted) - origin)
        # Two factors, so that subnormal results and the last binade come out.
        first = integer(k >> shift_one)
        second = integer(k - first)
        value = one + (r + r * r * exponential(r))
        value = value * from_bits(integer((first + bias) << mantissa))
        return value * from_bits(integer((second + bias) << mantissa))

    @njit(**_EXACT)
    def expm1(x):  # type: ignore[no-untyped-def]
        """exp(x) - 1 for x <= 0."""
        always_inline()
        x = flat if x < flat else x
        shifted = x * log2e + shifter
        n = shifted - shifter
        r = (x - n * ln2_high) - n * ln2_low
        power = from_bits(integer((integer(bits(shifted) - origin) + bias) << mantissa))
        return (power - one) + power * (r + r * r * exponential(r))

    @njit(**_EXACT)
    def log1p_unit(u):  # type: ignore[no-untyped-def]
        """log(1 + u) for u in [0, 1]."""
        always_inline()
        s = u / (two + u)
        z = s * s
        return u - s * (u - z * unit_series(z))

    @njit(**_EXACT)
    def log1p(u):  # type: ignore[no-untyped-def]
        """log(1 + u) for u > -1."""
        always_inline()
        w = one + u
        moved = integer(bits(w) + (one_bits - root_half))
        k = integer((moved >> mantissa) - bias)
        lost = (u - (w - one)) / w
        m = from_bits(integer((moved & fraction) + root_half)) - one
        m = u if k == integer(0) else m
        lost = zero if k == integer(0) else lost
        s = m / (two + m)
        z = s * s
        square = half * m * m
        n = real(k)
        tail = s * (square + z * reduced_series(z)) + (n * log_low + lost)
        result = n * log_high + (m - (square - tail))
        return result if w < infinity else w

    @njit(**_EXACT)
    def log(x):  # type: ignore[no-untyped-def]
        """log(x) for normal x > 0."""
        always_inline()
        moved = integer(bits(x) + (one_bits - root_half))
        n = real(integer((moved >> mantissa) - bias))
        m = from_bits(integer((moved & fraction) + root_half)) - one
        s = m / (two + m)
        z = s * s
        square = half * m * m
        tail = s * (square + z * reduced_series(z)) + n * log_low
        result = n * log_high + (m - (square - tail))
        return result if x < infinity else x

    return {
        "where": where, "absolute": absolute, "sign": sign, "sqrt": sqrt, "exp": exp,
        "expm1": expm1, "log1p_unit": log1p_unit, "log1p": log1p, "log": log,
    }  # fmt: skip
