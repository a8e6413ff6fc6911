"""Numbers and lists as readers want them: as many digits as mean something."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def settled(value: float, scale: float) -> float:
    """``value`` without what is rounding noise beside ``scale``: scores are kept to six digits."""
    if not (math.isfinite(value) and math.isfinite(scale) and scale):
        return value
    return round(value, 4 - math.floor(math.log10(abs(scale)))) + 0.0


def number(value: float, scale: float = 0.0, digits: int = 3) -> str:
    """``value`` to so many significant digits; 0 where it is lost beside ``scale``; never -0."""
    if not math.isfinite(value):
        return "-"
    text = f"{settled(value, scale):.{digits}g}"
    return "0" if float(text) == 0 else text


def percent(share: float | None) -> str:
    """``83 %``; below one, a digit more; a dash where undefined."""
    if share is None or not math.isfinite(share):
        return "-"
    return f"{100 * share:.0f} %" if not 0 < share < 0.01 else f"{100 * share:.1g} %"


def mean_and_spread(values: Sequence[float | None]) -> str:
    """``0.974 ±0.003``: mean and standard deviation over seeds; a dash where undefined."""
    numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
    if np.isnan(numbers).all():
        return "-"
    if np.isnan(numbers).any():
        return f"- ({int(np.isnan(numbers).sum())} failed)"
    mean, spread = numbers.mean(), numbers.std(ddof=1) if len(numbers) > 1 else 0.0
    mean = 0.0 if abs(mean) < 1e-9 else mean
    most = 3 if max(abs(mean), spread) >= 0.01 or not mean else 5
    digits = min(most, max(0, 3 - int(np.floor(np.log10(abs(mean)))))) if mean else most
    shown = f"{mean:.{digits}f}"
    return f"{shown} ±{spread:.{digits}f}" if len(numbers) > 1 else shown


def listed(names: Sequence[str]) -> str:
    """``a, b and c``; of more than six, five and the number of the others."""
    if len(names) < 2:
        return "".join(names)
    shown = list(names) if len(names) <= 6 else [*names[:5], f"{len(names) - 5} others"]
    return ", ".join(shown[:-1]) + " and " + shown[-1]
