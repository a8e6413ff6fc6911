"""How close is close enough: one function of dtype and condition gives every tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

ULPS = 4
FLUSHED = 32
# The dtypes in which losses are computed; half precision is rounded from float32.
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Exact:
    """Real numbers beyond float64: the unevaluated sums ``high + low``.

    ``wobble`` holds, for each dtype, how far the truth moves when its inputs move by one rounding
    of that dtype: what no algorithm in that dtype can be asked to know.
    """

    high: np.ndarray
    low: np.ndarray
    wobble: dict[str, np.ndarray]

    def rounded(self, dtype: str) -> np.ndarray:
        """The truth as the dtype can show it; infinite where it overflows."""
        with np.errstate(over="ignore"):
            return self.high.astype(dtype)


def tolerance(magnitude: Any, dtype: str, wobble: Any = 0.0, ulps: float = ULPS) -> np.ndarray:
    """The largest error allowed of a number of this magnitude.

    ``ulps`` units in the last place where the problem is well conditioned; else as many times what
    a rounding of the inputs does to the result. A unit is never less than ``FLUSHED`` times the
    smallest normal number, because compilers flush what lies below it to zero, also where a
    definition then multiplies it.
    """
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):
        size = np.abs(np.asarray(magnitude, dtype=np.float64))
        held = np.minimum(size, float(info.max)).astype(dtype)
        last_place = np.spacing(held).astype(np.float64)
    least = np.maximum(last_place, FLUSHED * float(info.smallest_normal))
    return ulps * np.maximum(least, wobble)


def excess(computed: np.ndarray, low: Exact, high: Exact, dtype: str) -> np.ndarray:
    """By which factor each number's error exceeds its tolerance; above 1 is a failure.

    The truth is a number (``low is high``) or, at a kink, anything from ``low`` to ``high``.
    """
    with np.errstate(all="ignore"):
        given = np.asarray(computed).astype(np.float64)
        below = (low.high - given) + low.low
        above = (given - high.high) - high.low
        error = np.maximum(np.maximum(below, above), 0.0)
        size = np.maximum(np.abs(low.high), np.abs(high.high))
        wobble = np.maximum(low.wobble[dtype], high.wobble[dtype])
        ratio = error / tolerance(size, dtype, wobble)
        edge = float(np.finfo(dtype).max)
        overflows = np.isinf(low.rounded(dtype)) | np.isinf(high.rounded(dtype))
        infinite = np.isinf(given) & (np.sign(given) == np.sign(high.high + low.high))
        # Beyond the largest number the dtype shows infinity or its edge; nothing else will do.
        saturated = infinite | ((np.abs(given) >= edge * (1 - 1e-6)) & np.isfinite(given))
        outside = overflows & (error > 0)  # a kink may reach beyond, with this number between
        ratio = np.where(outside, np.where(saturated, 0.0, np.inf), ratio)
        # An error that the inputs' own roundings explain up to overflow is no error.
        near_edge = ~overflows & (size + 4 * wobble > edge) & infinite
        ratio = np.where(near_edge | (np.isinf(given) & (given == low.high)), 0.0, ratio)
        return np.where(np.isnan(low.high), 0.0, np.where(np.isnan(given), np.inf, ratio))


def agree(one: np.ndarray, other: np.ndarray, ulps: float = ULPS, scale: Any = None) -> bool:
    """Whether two results are equal but for rounding, in the coarser of their dtypes.

    ``scale`` is the magnitude of the terms that were added up (by default the results' own).
    """
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
        return False
    dtype = min((one.dtype.name, other.dtype.name), key=lambda name: np.dtype(name).itemsize)
    first, second = one.astype(np.float64), other.astype(np.float64)
    size = np.maximum(np.abs(first), np.abs(second)) if scale is None else scale
    with np.errstate(all="ignore"):
        close = np.abs(first - second) <= tolerance(size, dtype, ulps=ulps)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    return bool(np.all(close | same))
