# mypy: disable-error-code="call-arg"
"""The elementary functions of one precision, compiled into whatever calls them."""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any

import numpy as np
from numba import njit

from lossary.kernels import elementary
from lossary.kernels.numba import machine
from lossary.kernels.numba.machine import always_inline, bits, from_bits
from lossary.kernels.numba.source import inlined

_EXACT: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy"}
# An estimate of 14 bits and one step of Newton's; older processors estimate 12, which is too few.
_ESTIMATED = {"contract", "arcp", "ninf"} if "avx512f" in machine.FEATURES else {"contract"}


@njit(**_EXACT)
def where(condition, yes, no):  # type: ignore[no-untyped-def]  # noqa: D103
    always_inline()
    return yes if condition else no


@njit(**_EXACT)
def absolute(x):  # type: ignore[no-untyped-def]  # noqa: D103
    always_inline()
    return abs(x)


@njit(**_EXACT)
def sqrt(x):  # type: ignore[no-untyped-def]  # noqa: D103
    always_inline()
    return math.sqrt(x)


@njit(fastmath=_ESTIMATED, error_model="numpy")
def ratio(a, b):  # type: ignore[no-untyped-def]  # noqa: D103
    always_inline()
    return a / b


@functools.cache
def functions(real: type) -> dict[str, Any]:
    """Name -> compiled scalar function of this precision."""
    single = real is np.float32
    precision = elementary.SINGLE if single else elementary.DOUBLE
    integer = np.int32 if single else np.int64
    numbers, patterns = elementary.constants(precision)
    found: dict[str, Any] = {"where": where, "absolute": absolute, "sqrt": sqrt, "ratio": ratio}
    space = {
        **found, **{name: real(value) for name, value in numbers.items()},
        **{name: integer(value) for name, value in patterns.items()},
        "bits": bits, "from_bits": from_bits, "integer": integer, "real": real,
    }  # fmt: skip
    for name in ("exponential", "unit", "reduced"):
        text = elementary.polynomial(getattr(precision, name))
        text = f"def {name}(x):\n    return {text}"
        space[name] = njit(**_EXACT)(inlined(text, name, elementary.__file__, space, real))
    for name, function in inspect.getmembers(elementary, inspect.isfunction):
        if name in ("polynomial", "constants"):
            continue
        text = inspect.getsource(function)
        found[name] = njit(**_EXACT)(inlined(text, name, elementary.__file__, space, real))
    return found
