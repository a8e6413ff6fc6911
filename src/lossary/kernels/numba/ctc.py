# ruff: noqa: F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""Connectionist temporal classification by the forward-backward algorithm, row by row.

``B[i]`` is the state of the blank after label i (from 0), ``Y[i]`` that of label i (from 1):

    B'[i] = p(blank) (B[i] + Y[i]),   Y'[i] = p(label i) (Y[i] + B[i - 1] + Y[i - 1]),

the last term where label i differs from the one before. A label among hundreds is easily 1e-400 as
likely as another reading of the steps so far, so every number is a fraction and a power of two, the
exponent itself a double (-inf for nothing): no logarithm on the way, and nothing underflows.

Where the target is nearly certain, the value is found again from what is lost, a sum of positive
terms (``leak``), and the slope at the likeliest class from the other slopes, whose sum it is.
``ctc_steps`` reads the logits, ``ctc_states`` goes forward and backward.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import float64, intp, void

from lossary.contract import LossError
from lossary.kernels import elementary
from lossary.kernels.numba import ctc_states as states
from lossary.kernels.numba import ctc_steps as of_step
from lossary.kernels.numba import machine, pool, scalar, softmax, special
from lossary.kernels.numba.ctc_states import LANES
from lossary.kernels.numba.ctc_steps import CHUNK, FEW
from lossary.kernels.numba.machine import HELPER, njit
from lossary.kernels.numba.memory import address
from lossary.kernels.numba.program import (
    INDEX,
    REAL,
    Launch,
    NoSuchClassError,
    Purpose,
    Shape,
    Shapes,
)
from lossary.kernels.numba.source import inlined

STATE = 8  # logits whose work takes as long as a label's two states
SURE = 1.0  # values below are found from what is lost


def integer_at(at, index, wide):
    """One of an array of either type."""
    always_inline()
    return int64s_at(at)[index] if wide else int64(int32s_at(at)[index])


def outside(
    batch, steps, classes, length, blank, target_at, wide_target, inputs_at, wide_inputs,
    lengths_at, wide_lengths, weights_at,
):  # fmt: skip
    """The first place that counts and holds no label, -1 for none; -2 - row: no such length."""
    weights = reals_at(weights_at)
    for row in range(batch):
        if weights_at != 0 and weights[row] == zero:
            continue
        running = integer_at(inputs_at, row, wide_inputs)
        count = integer_at(lengths_at, row, wide_lengths)
        if running < 0 or running > steps or count < 0 or count > length:
            return -2 - row
        for i in range(row * length, row * length + count):
            label = integer_at(target_at, i, wide_target)
            if label < 0 or label >= classes or label == blank:
                return i
    return -1


def furnished(at, steps, classes, stride):
    """The ``Room`` there, and where it ends."""
    line = 8 * stride
    states_at, steps_at = at + 14 * line, at + (22 + 4 * (steps + 1 if GRADIENT else 2)) * line
    table_at = steps_at + 3 * 8 * steps
    spare_at = table_at + 8 * classes
    room = Room(
        doubles_at(at), doubles_at(at + line), doubles_at(at + 2 * line),
        doubles_at(at + 3 * line), doubles_at(at + 4 * line), doubles_at(at + 5 * line),
        doubles_at(at + 6 * line), doubles_at(at + 7 * line), doubles_at(at + 8 * line),
        doubles_at(at + 9 * line), doubles_at(at + 10 * line), int64s_at(at + 11 * line),
        int64s_at(at + 12 * line), int64s_at(at + 13 * line),
        # States are read one before the first.
        doubles_at(states_at + 8 * LANES), doubles_at(states_at + 8 * line + 8 * LANES),
        doubles_at(steps_at), doubles_at(steps_at + 8 * steps), doubles_at(steps_at + 16 * steps),
        int64s_at(table_at), reals_at(spare_at),
    )  # fmt: skip
    return room, spare_at + 8 * (CHUNK if classes <= FEW else classes)


def rows(
    first, last, steps, classes, length, blank, zero_infinity, prediction_at, target_at,
    wide_target, inputs_at, wide_inputs, lengths_at, wide_lengths, weights_at, gradient_at,
    values_at, partial_at, factor,
):  # fmt: skip
    """``partial`` receives each row's weighted value."""
    weights, values, partial = reals_at(weights_at), reals_at(values_at), doubles_at(partial_at)
    stride = (length + LANES) // LANES * LANES + 2 * LANES
    borrowed = borrow(64 + furnished(0, steps, classes, stride)[1])
    room = furnished((borrowed + 63) & -64, steps, classes, stride)[0]
    for at in range(first, last):
        z = past(reals_at(prediction_at), at * steps * classes)
        g = past(reals_at(gradient_at), at * steps * classes)
        weight = float64(weights[at]) if weights_at != 0 else 1.0
        if weight == 0.0:
            partial[at] = 0.0
            if GRADIENT:
                fill(g, zero, steps * classes)
            if values_at != 0:
                values[at] = zero
            continue
        count = integer_at(lengths_at, at, wide_lengths)
        running = integer_at(inputs_at, at, wide_inputs)
        fill(room.x, -math.inf, stride)
        fill(room.bar, -math.inf, stride)
        fill(room.may, 0.0, stride)
        fill(room.firsts, 0.0, stride)
        distinct, needed = read_labels(room, target_at, wide_target, at * length, count, blank)
        width = (count + LANES) // LANES * LANES
        row = Row(z, g, running, count, distinct, classes, stride, width)
        total_m, total_e, broken, infinite = all_forward(room, row, running >= needed)
        found = total_e > -math.inf
        value = 0.0 if zero_infinity != 0 else math.inf
        if broken:
            value = math.nan
        elif found:
            value = -(total_e * ln2_high + (total_e * ln2_low + math.log(total_m)))
            value = value_of_lost(room, row) if value < SURE else value
        partial[at] = weight * value
        if values_at != 0:
            values[at] = real(value)
        if not GRADIENT:
            continue
        fill(past(g, running * classes), zero, (steps - running) * classes)
        if found:
            all_backward(room, row, total_m, total_e, weight * factor)
        else:
            fill(g, real(math.nan) if broken else zero, running * classes)
        if infinite and not broken:  # an endless logit has no derivative
            for i in range(running * classes):
                if z[i] == infinity:
                    g[i] = real(math.nan)
    give_back(borrowed)


# What calls others comes after them. Terms of the sums may be reordered.
_PARTS = (
    of_step.two, of_step.split, of_step.heights, of_step.powers, of_step.sums,
    of_step.sum_of_powers, of_step.shares, of_step.slopes, of_step.scale_steps, of_step.fill,
    of_step.look_up, of_step.total_of, of_step.read_steps, of_step.target_shares,
    of_step.target_slopes, integer_at, states.forward, states.backward, states.normalize,
    states.leak, states.read_labels, states.span, states.states_before, states.go_forward,
    states.all_forward, states.all_backward, states.split_off, states.value_of_lost, furnished,
)  # fmt: skip
_SUMS = (
    of_step.heights, of_step.powers, of_step.sums, of_step.sum_of_powers, of_step.shares,
    of_step.slopes, of_step.scale_steps, of_step.total_of,
)  # fmt: skip


@functools.cache
def _fraction() -> Any:
    """exp of a number near 0."""
    polynomial = elementary.polynomial(elementary.DOUBLE.exponential)
    text = f"def fraction(x):\n    return 1.0 + (x + x * x * {polynomial})"
    return njit(fastmath={"contract"}, **HELPER)(
        inlined(text, "fraction", elementary.__file__, {}, np.float64)
    )


@functools.cache
def compiled(part: str, dtype: str, gradient: bool) -> Any:
    """``rows``, or what looks at targets, for this dtype."""
    flags = ("GRADIENT",) if gradient else ()
    double = elementary.DOUBLE
    sizes = {name: value for way in (of_step, states) for name, value in vars(way).items()
             if name.isupper()}  # fmt: skip
    names = softmax.names(dtype, "int64", flags) | sizes | {
        "__name__": __name__, "fraction": _fraction(), "log2e": 1 / math.log(2),
        "where": scalar.where, "shifter": double.shifter, "lifter": double.shifter + double.bias,
        "ln2_high": double.ln2_high, "ln2_low": double.ln2_low, "int64": np.int64,
        "int64s_at": machine.POINTER[np.int64], "SURE": SURE,
        "Room": of_step.Room, "Row": of_step.Row,
    }  # fmt: skip
    mark = special.fingerprint(sys.modules[__name__], of_step, states, softmax)
    variant = "_".join([mark, dtype, *flags])
    for helper in _PARTS:
        kind = special.LOOSE if helper in _SUMS else special.EXACT
        names[helper.__name__] = special.bind(helper, names, kind, variant)
    if part == "outside":
        return special.entry(outside, names, intp(*[intp] * 12), variant)
    return special.entry(rows, names, void(*[intp] * 18, float64), variant)


def _number(at: int, index: int, wide: int) -> int:
    kind = ctypes.c_int64 if wide else ctypes.c_int32
    return kind.from_address(at + index * ctypes.sizeof(kind)).value


class Ctc:
    """Connectionist temporal classification as a program."""

    def decline(
        self, shapes: Shapes, dtypes: tuple[str, ...], parameters: Mapping[str, Any]
    ) -> str | None:
        prediction, target, *lengths = shapes
        if len(prediction) != 3 or prediction[2] == 0 or dtypes[0] not in REAL:
            return f"a prediction of shape {prediction} is not logits (batch, steps, classes)"
        if len(target) != 2 or target[0] != prediction[0] or dtypes[1] not in INDEX:
            return f"a target of shape {target} is not class indices (batch, length)"
        if any(shape != prediction[:1] for shape in lengths) or not set(dtypes[2:]) <= set(INDEX):
            return "lengths are not one integer for each sample"
        if not 0 <= parameters.get("blank", 0) < prediction[2]:
            return "the blank is not among the classes"
        return None

    def unit_axes(self, shape: Shape, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        return (1, 2)

    def prepare(
        self, shapes: Shapes, dtypes: tuple[str, ...], purpose: Purpose,
        parameters: Mapping[str, Any],
    ) -> Launch:  # fmt: skip
        batch, steps, classes = shapes[0]
        length = shapes[1][1]
        check, run = compiled("outside", dtypes[0], False), compiled("rows", dtypes[0], purpose[1])
        wide_target, wide_inputs, wide_lengths = (int(dtype == "int64") for dtype in dtypes[1:])
        blank = int(parameters.get("blank", 0))
        zero_infinity = int(parameters.get("zero_infinity", False))
        sizes = (steps, classes, length, blank, zero_infinity)
        work = batch * steps * (classes + STATE * (length + 1))  # in terms of logits

        def refuse(where: int, target: int, inputs: int, lengths: int) -> None:
            """Raise what the definition's checks say, who have not run."""
            if where <= -2:
                name, most = "input_lengths", steps
                wrong = _number(inputs, -2 - where, wide_inputs)
                if 0 <= wrong <= steps:
                    name, most = "target_lengths", length
                    wrong = _number(lengths, -2 - where, wide_lengths)
                raise LossError(f"ctc: {name} holds {wrong}, expected lengths from 0 to {most}")
            if _number(target, where, wide_target) != blank:
                raise NoSuchClassError("ctc", where, classes)
            raise LossError(
                f"ctc: target holds {blank} within target_lengths, expected classes from 0 to "
                f"{classes - 1} without the blank, {blank}; shorten the length"
            )

        def launch(
            prediction: int, target: int, inputs: int, lengths: int, weights: int, gradient: int,
            values: int, factor: float,
        ) -> float:  # fmt: skip
            where = check(
                batch, steps, classes, length, blank, target, wide_target, inputs, wide_inputs,
                lengths, wide_lengths, weights,
            )  # fmt: skip
            if where != -1:
                refuse(where, target, inputs, lengths)
            partial = np.empty(batch)
            memory = (
                prediction, target, wide_target, inputs, wide_inputs, lengths, wide_lengths,
                weights, gradient, values, address(partial),
            )  # fmt: skip
            pool.run(run, batch, pool.parts(work), *sizes, *memory, factor)
            return float(partial.sum()) * float(factor)

        return launch


PROGRAMS = {"ctc": Ctc()}
