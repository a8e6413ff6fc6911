"""Kernels on arrays with gaps, such as all steps of each sample but the last, without a copy.

From some axis on such arrays lie in one piece of memory, a part; the axes before it are one regular
step from part to part. The kernel runs part by part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lossary.kernels.numba.program import (
    INDEX,
    Launch,
    NoSuchClassError,
    Purpose,
    Shape,
    program,
    unit_shape,
)

PART = 1024  # numbers for which a launch takes less time than the definition


class Memory(NamedTuple):
    """How an array lies; strides in numbers."""

    shape: Shape
    dtype: str
    strides: Shape

    def whole_from(self) -> int:
        """The first axis from which on there is no gap."""
        numbers = 1
        if 0 in self.shape:
            return 0
        for axis in reversed(range(len(self.shape))):
            if self.shape[axis] != 1 and self.strides[axis] != numbers:
                return axis + 1
            numbers *= self.shape[axis]
        return 0

    def step(self, axis: int) -> int | None:
        """From part to part, along all axes before ``axis``; None if it is not always the same."""
        step, count = 0, 1
        for length, stride in zip(self.shape[:axis][::-1], self.strides[:axis][::-1], strict=True):
            if length == 1:
                continue
            if count == 1:
                step = stride
            elif stride != step * count:
                return None
            count *= length
        return step


def whole(shape: Shape, dtype: str) -> Memory:
    """Without gaps."""
    return Memory(shape, dtype, tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))))


def of_tensor(tensor: Any) -> Memory:
    """How a torch tensor lies."""
    return Memory(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.stride())


def scattered(
    loss: str, prediction: Memory, target: Memory, parameters: Mapping[str, Any]
) -> str | None:
    """Why kernels cannot read what lies so; None if they can.

    Class indices, few beside the logits, may lie as they will: who launches copies them.
    """
    if target.dtype in INDEX:
        target = whole(target.shape, target.dtype)
    axis = max(prediction.whole_from(), target.whole_from())
    if not axis:
        return None
    first = min(program(loss).unit_axes(prediction.shape, parameters), default=axis)
    regular = None not in (prediction.step(axis), target.step(axis))
    if regular and axis <= first and math.prod(prediction.shape[axis:]) >= PART:
        return None
    name = "prediction" if prediction.whole_from() else "target"
    return f"the {name} is not contiguous: its gaps are many or irregular"


def launch(
    loss: str, prediction: Memory, target: Memory, purpose: Purpose, parameters: Mapping[str, Any]
) -> Launch:
    """The function that runs for arrays that are not ``scattered``."""
    axis = max(prediction.whole_from(), target.whole_from())
    shape = (1,) * axis + prediction.shape[axis:]
    one: Any = program(loss).prepare(shape, prediction.dtype, target.dtype, purpose, parameters)
    if not axis:
        return one  # type: ignore[no-any-return]
    width = np.dtype(prediction.dtype).itemsize
    units = math.prod(unit_shape(loss, shape, parameters))
    from_prediction, from_target = prediction.step(axis), target.step(axis)
    assert from_prediction is not None and from_target is not None
    steps = (
        from_prediction * width, from_target * np.dtype(target.dtype).itemsize,
        units * width, math.prod(shape) * width, units * width,
    )  # fmt: skip

    def parts(*given: Any) -> float:
        *places, factor = given
        total = 0.0
        for part in range(math.prod(prediction.shape[:axis])):
            here = (at and at + part * step for at, step in zip(places, steps, strict=True))
            try:
                total += one(*here, factor)
            except NoSuchClassError as wrong:
                raise NoSuchClassError(loss, part * units + wrong.position, wrong.classes) from None
        return total

    return parts
