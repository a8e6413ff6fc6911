# ruff: noqa: F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""Softmax cross-entropy in one pass over the logits: class indices, one-hot rows or distributions.

With ``a`` the likeliest class, ``d_k = z_a - z_k`` and ``rest`` the sum of ``exp(-d_k)`` over the
other classes, the surprise at class k is ``d_k + log1p(rest)``: nothing cancels. For target weights
q_k of sum Q (label smoothing and class weights are in them)

    value = sum_k q_k d_k + Q log1p(rest)
    slope = e_k Q / (1 + rest) - q_k, and (Q - q_a - q_a rest) / (1 + rest) at the likeliest class,

where Q - q_a is summed as such. Many classes go through ``softmax_rows``, dozens to hundreds
through ``softmax_lines``, few, and those not along the last axis, through ``softmax_tiles``.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import float64, intp, void

from lossary.contract import LossError
from lossary.kernels.numba import (
    machine,
    pool,
    scalar,
    softmax_lines,
    softmax_rows,
    softmax_tiles,
    special,
)
from lossary.kernels.numba.memory import address
from lossary.kernels.numba.program import (
    INDEX,
    Launch,
    NoSuchClassError,
    Purpose,
    Shape,
    Shapes,
    no_classes,
)
from lossary.kernels.numba.softmax_lines import LINES, MOST, WHOLE
from lossary.kernels.numba.softmax_tiles import TILE

_WAYS = (softmax_lines, softmax_rows, softmax_tiles)
FEW = 24  # classes up to which samples are transposed into tiles


def outside(samples, classes, target_at, weights_at):
    """The first sample that counts and whose class index lies outside, or -1."""
    target, weights = indices_at(target_at), reals_at(weights_at)
    found = 0
    for i in range(samples):  # to its end, for a loop that may stop takes no vectors
        found += (target[i] < 0) | (target[i] >= classes)
    for i in range(samples if found else 0):
        counts = not WEIGHTED or weights[i] != zero
        if counts and (target[i] < 0 or target[i] >= classes):
            return i
    return -1


def occurrences(samples, target_at, index):
    """How often a class index stands in the target."""
    target = indices_at(target_at)
    found = 0
    for i in range(samples):
        found += target[i] == index
    return found


def weight_behind(samples, target_at, ignore, classes, class_weights_at):
    """The sum of the weights of the target's classes, but for ``ignore``."""
    target, weights = indices_at(target_at), reals_at(class_weights_at)
    found = 0.0
    for i in range(samples):
        index = target[i]
        if index != ignore and 0 <= index < classes:
            found += float64(weights[index])
    return found


def names(dtype: str, target: str, flags: tuple[str, ...]) -> dict[str, Any]:
    """What the functions above mean in one variant."""
    real = np.float32 if dtype == "float32" else np.float64
    integer = np.int32 if dtype == "float32" else np.int64
    width = 8 * np.dtype(real).itemsize
    limits, soft = np.finfo(real), target not in INDEX
    return {
        **scalar.functions(real), "__name__": __name__, "np": np, "math": math,
        "real": real, "integer": integer, "float64": np.float64, "zero": real(0), "one": real(1),
        "infinity": real(math.inf), "deepest": -limits.max, "smallest": limits.smallest_normal,
        "sign_bit": integer(width - 1), "no_sign": integer((1 << (width - 1)) - 1),
        "lowest_key": integer(np.iinfo(integer).min),
        "bits": machine.bits, "from_bits": machine.from_bits, "full_width": machine.full_width,
        "always_inline": machine.always_inline, "past": machine.past,
        "borrow": machine.borrow, "give_back": machine.give_back,
        "reals_at": machine.POINTER[real], "doubles_at": machine.POINTER[np.float64],
        "int32s_at": machine.POINTER[np.int32],
        "indices_at": machine.POINTER[np.int32 if target == "int32" else np.int64],
        "SOFT": soft, "DENSE": soft or "SMOOTHED" in flags,
        **{name: name in flags for name in _FLAGS},
        **{name: value for way in _WAYS for name, value in vars(way).items() if name.isupper()},
    }  # fmt: skip


@functools.cache
def compiled(part: str, dtype: str, target: str, flags: tuple[str, ...]) -> Any:
    """``rows``, ``lines``, ``tiles``, or what looks at targets, for these dtypes and flags."""
    bound = names(dtype, target, flags)
    mark = special.fingerprint(sys.modules[__name__], *_WAYS)
    variant = "_".join([mark, dtype, target, *(name.lower() for name in flags)])
    for looking, found in ((outside, intp), (occurrences, intp), (weight_behind, float64)):
        if looking.__name__ == part:
            integers = [intp] * looking.__code__.co_argcount
            return special.entry(looking, bound, found(*integers), variant)
    functions = dict(each for way in _WAYS for each in inspect.getmembers(way, inspect.isfunction))
    for name, function in functions.items():  # by name: what others call comes before them
        bound[name] = special.bind(function, bound, special.LOOSE, variant)
    addresses = functions[part].__code__.co_argcount - 2  # and sizes; two scales follow
    return special.entry(
        functions[part], bound, void(*[intp] * addresses, float64, float64), variant
    )


_FLAGS = ("SMOOTHED", "CLASSES", "WEIGHTED", "GRADIENT", "VALUES")


class CrossEntropy:
    """Softmax cross-entropy as a program."""

    def decline(
        self, shapes: Shapes, dtypes: tuple[str, ...], parameters: Mapping[str, Any]
    ) -> str | None:
        (shape, target_shape), (dtype, target_dtype) = shapes, dtypes
        axis = parameters.get("axis", -1)
        reason = no_classes(shape, axis)
        if reason is not None:
            return reason
        units = shape[: axis % len(shape)] + shape[axis % len(shape) + 1 :]
        if target_dtype in INDEX and target_shape == units:
            return None
        if target_dtype == dtype and target_shape == shape:
            return None
        return (
            f"the target of shape {target_shape} and dtype {target_dtype} is neither class indices "
            f"nor a distribution for a prediction of shape {shape} and dtype {dtype}"
        )

    def unit_axes(self, shape: Shape, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        return (parameters.get("axis", -1) % len(shape),)

    def prepare(
        self, shapes: Shapes, dtypes: tuple[str, ...], purpose: Purpose,
        parameters: Mapping[str, Any],
    ) -> Launch:  # fmt: skip
        shape, (dtype, target_dtype) = shapes[0], dtypes
        axis = parameters.get("axis", -1) % len(shape)
        classes, inner = shape[axis], math.prod(shape[axis + 1 :])
        samples = math.prod(shape) // classes
        class_weights = parameters.get("class_weights")
        vector = None
        if class_weights is not None:
            vector = np.ascontiguousarray(class_weights, dtype)
            if vector.shape != (classes,):
                raise LossError(
                    f"cross_entropy: class_weights has shape {vector.shape}, expected ({classes},)"
                )
        smoothing = float(parameters.get("label_smoothing", 0.0))
        given = (smoothing != 0.0, vector is not None, *purpose)
        flags = tuple(name for name, on in zip(_FLAGS, given, strict=True) if on)
        outside = None
        if target_dtype in INDEX:
            kind = dtype if purpose[0] else "float32"  # weights are all that it reads of them
            outside = compiled("outside", kind, target_dtype, ("WEIGHTED",) * purpose[0])
        sizes: tuple[int, ...]
        if inner == 1 and FEW < classes <= MOST:
            width = -(-classes // WHOLE) * WHOLE
            most = LINES // width
            run, blocks = compiled("lines", dtype, target_dtype, flags), -(-samples // most)
            sizes = (classes, width, most, samples)
        elif inner == 1 and classes > MOST:
            run, blocks = compiled("rows", dtype, target_dtype, flags), samples
            sizes = (classes,)
        else:
            span = samples if inner == 1 else inner
            blocks = samples // max(span, 1) * -(-span // TILE)
            run, sizes = compiled("tiles", dtype, target_dtype, flags), (classes, inner, samples)

        def launch(
            prediction: int, target: int, weights: int, gradient: int, values: int, factor: float
        ) -> float:
            if outside is not None:
                where = outside(samples, classes, target, weights)
                if where >= 0:
                    raise NoSuchClassError("cross_entropy", where, classes)
            places = (prediction, target, weights, gradient, values)
            scales = (0 if vector is None else address(vector), smoothing, factor)
            if blocks == 1:  # for small calls an array and its sum take as long as the kernel
                total = ctypes.c_double()
                run(0, 1, *sizes, *places, ctypes.addressof(total), *scales)
                return total.value * factor
            partial = np.empty(blocks)
            parts = pool.parts(samples * classes)
            pool.run(run, blocks, parts, *sizes, *places, address(partial), *scales)
            return float(partial.sum()) * factor

        return launch


PROGRAMS = {"cross_entropy": CrossEntropy()}
