# mypy: disable-error-code="no-untyped-call"
"""The elementary functions of one precision, compiled into whatever calls them."""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from lossary.kernels import elementary
from lossary.kernels.numba import machine
from lossary.kernels.numba.machine import HELPER, bits, from_bits, njit
from lossary.kernels.numba.source import inlined

# An estimate of 14 bits and one step of Newton's; older processors estimate 12, which is too few.
_ESTIMATED = ("contract", "arcp", "ninf") if "avx512f" in machine.FEATURES else ("contract",)


# Written as instructions, for every function that Numba compiles has its price.
@intrinsic
def where(typing: Any, condition: Any, yes: Any, no: Any) -> Any:
    """``yes`` where the condition holds, else ``no``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    unified = typing.unify_types(yes, no)
    return unified(types.boolean, unified, unified), generate


def _of_llvm(name: str) -> Any:
    """How to call the function of one float that LLVM knows by this name."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        return builder.call(builder.module.declare_intrinsic(name, [kind]), arguments)

    return generate


@intrinsic
def absolute(typing: Any, x: Any) -> Any:
    """The size of a float."""
    return x(x), _of_llvm("llvm.fabs")


@intrinsic
def sqrt(typing: Any, x: Any) -> Any:
    """The square root of a float; NaN of a negative one."""
    return x(x), _of_llvm("llvm.sqrt")


@intrinsic
def ratio(typing: Any, a: Any, b: Any) -> Any:
    """a / b, by an estimate where the processor has a good one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fdiv(*arguments, flags=_ESTIMATED)

    return a(a, a), generate


@functools.cache
def functions(real: type) -> dict[str, Any]:
    """Name -> compiled scalar function of this precision, and its limits."""
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
    for name, function in inspect.getmembers(elementary, inspect.isfunction):
        if name in ("polynomial", "constants"):
            continue
        text = _written_out(inspect.getsource(function), precision)
        plain = inlined(text, name, elementary.__file__, {**space, **found}, real)
        found[name] = njit(fastmath={"contract"}, **HELPER)(plain)
    return found | {name: space[name] for name in elementary.LIMITS}


def _written_out(text: str, precision: Any) -> str:
    """The source of a function with its polynomials in place."""
    for name in elementary.POLYNOMIALS:
        polynomial = elementary.polynomial(getattr(precision, name))
        for variable in re.findall(rf"\b{name}\((\w+)\)", text):
            there = re.sub(r"\bx\b", variable, polynomial)
            text = re.sub(rf"\b{name}\({variable}\)", there, text)
    return text
