# mypy: disable-error-code="no-untyped-call"
"""What Numba lacks: addresses as arrays, the bits of a float, and full-width vectors."""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
import numba
import numpy as np
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.extending import intrinsic

FEATURES = {name for name, on in get_host_cpu_features().items() if on}

njit: Any = numba.njit  # with options that its annotations leave out

# For functions that only compiled functions call: without the code that takes Python's objects.
HELPER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

_INTEGER: Any = {types.float32: types.int32, types.float64: types.int64}


@intrinsic
def bits(typing: Any, number: Any) -> Any:
    """The bit pattern of a float as an integer of its width."""
    integer = _INTEGER[number]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(integer))

    return integer(number), generate


@intrinsic
def from_bits(typing: Any, pattern: Any) -> Any:
    """The float of a bit pattern."""
    real = types.float32 if pattern == types.int32 else types.float64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(real))

    return real(pattern), generate


@intrinsic
def full_width(typing: Any) -> Any:
    """Use the widest vectors, stay a function of its own, and promise that its arrays are apart.

    Compilers prefer half-width vectors on processors that once lowered their clock for wide ones:
    full width is worth 1.5 times here. A loop left inside its caller loses the knowledge that its
    arrays are plain slices, and one over many arrays that might overlap is not vectorised at all:
    no array that the function writes may overlap another argument.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # llvmlite knows no free-form attributes, and its set refuses them.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        builder.function.attributes.add("noinline")
        for argument in builder.function.args:
            if isinstance(argument.type, ir.PointerType):
                argument.add_attribute("noalias")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def always_inline(typing: Any) -> Any:
    """Be part of the caller whatever the size: a call inside a loop keeps it from vectors."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("alwaysinline")
        return context.get_dummy_value()

    return types.void(), generate


def _pointer(number: Any) -> Any:
    @intrinsic
    def pointer(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(types.CPointer(number)))

        return types.CPointer(number)(types.intp), generate

    return pointer


# Kernels take addresses: one compiled signature whatever the flags of an array are, and half the
# cost of a call. Within them numbers are behind pointers, as in C: every slice of an array would
# be compiled with its bounds, its strides and its owner, which took longer than the arithmetic.
POINTER: dict[Any, Any] = {
    np.float32: _pointer(types.float32),
    np.float64: _pointer(types.float64),
    np.int32: _pointer(types.int32),
    np.int64: _pointer(types.int64),
}


@intrinsic
def past(typing: Any, pointer: Any, count: Any) -> Any:
    """The pointer to what lies ``count`` numbers further on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.intp), generate


@intrinsic
def borrow(typing: Any, size: Any) -> Any:
    """The address of ``size`` bytes of scratch memory; MemoryError if there are none."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = context.nrt.allocate(builder, arguments[0])
        return builder.ptrtoint(pointer, context.get_value_type(types.intp))

    return types.intp(types.intp), generate


@intrinsic
def give_back(typing: Any, address: Any) -> Any:
    """End of a ``borrow``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))
        context.nrt.free(builder, pointer)
        return context.get_dummy_value()

    return types.void(types.intp), generate
