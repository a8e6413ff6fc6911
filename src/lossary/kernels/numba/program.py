"""What a compiled kernel is to the libraries: a program over memory, free of any array type."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lossary.contract import LossError, contract_of
from lossary.kernels import WHOLE_ARRAY, pointwise

Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]
# From how many elements on a compiled kernel is worth its call: below, the definition's few
# operations are quicker than loading Numba.
FROM_SIZE = 256
REAL = ("float32", "float64")
INDEX = ("int32", "int64")


# Whether weights, gradients and values are given.
Purpose = tuple[bool, bool, bool]
# (addresses of the inputs, weights, a gradient for each prediction, values: 0 for what is not
# given; factor) -> factor * sum(weights * values); gradients receive factor * weight * slope.
Launch = Callable[..., float]


class Program(Protocol):
    """One loss over contiguous CPU memory.

    ``decline`` looks at the shapes and dtype names of the inputs; ``unit_axes`` are the axes of
    the first input that units lack, from the front; ``prepare`` returns the function that runs.
    """

    def decline(
        self, shapes: Shapes, dtypes: tuple[str, ...], parameters: Mapping[str, Any]
    ) -> str | None: ...

    def unit_axes(self, shape: Shape, parameters: Mapping[str, Any]) -> tuple[int, ...]: ...

    def prepare(
        self, shapes: Shapes, dtypes: tuple[str, ...], purpose: Purpose,
        parameters: Mapping[str, Any],
    ) -> Launch: ...  # fmt: skip


@functools.cache
def program(loss: str) -> Program:
    """The program of a loss of the manifest."""
    if loss in WHOLE_ARRAY:
        module = importlib.import_module(f"lossary.kernels.numba.{WHOLE_ARRAY[loss]}")
        return module.PROGRAMS[loss]  # type: ignore[no-any-return]
    return Pointwise(loss)


def no_classes(shape: Shape, axis: int, *, last: bool = False) -> str | None:
    """Why a prediction holds no classes along this axis, or ``last``: not along the last."""
    if not shape or not -len(shape) <= axis < len(shape) or shape[axis] == 0:
        return f"a prediction of shape {shape} has no classes along axis {axis}"
    if last and axis not in (-1, len(shape) - 1):
        return "the class axis is not the last"
    return None


class NoSuchClassError(LossError):
    """A class index outside the classes."""

    def __init__(self, loss: str, position: int, classes: int) -> None:
        target = contract_of(loss).target
        # A class that is ignored is a sample's only one, and a label of a sequence is not.
        alone = target is None or target.layout != "sequence"
        super().__init__(
            f"{loss}: the target's class index at position {position} is not in 0..{classes - 1}; "
            f"give such samples weight 0{', or set ignore=' if alone else ''}"
        )
        self.loss, self.position, self.classes = loss, position, classes


def unit_shape(loss: str, shape: Shape, parameters: Mapping[str, Any]) -> Shape:
    """The shape of the unreduced values."""
    lacking = program(loss).unit_axes(shape, parameters)
    return tuple(length for axis, length in enumerate(shape) if axis not in lacking)


class Pointwise:
    """A loss of ``formulas``: one unit per element."""

    def __init__(self, loss: str) -> None:
        self.loss = loss

    def decline(
        self, shapes: Shapes, dtypes: tuple[str, ...], parameters: Mapping[str, Any]
    ) -> str | None:
        # One number for each index of the last axis is read as an array.
        given = {
            name: 1.0 if isinstance(value, tuple) and shapes[0][-1:] == (len(value),) else value
            for name, value in parameters.items()
        }
        return pointwise.decline(self.loss, shapes, dtypes, given)

    def unit_axes(self, shape: Shape, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        return ()

    def prepare(
        self, shapes: Shapes, dtypes: tuple[str, ...], purpose: Purpose,
        parameters: Mapping[str, Any],
    ) -> Launch:  # fmt: skip
        from lossary.kernels.numba import pointwise as blocks

        numbers = pointwise.numbers(self.loss, parameters)
        return blocks.prepared(self.loss, dtypes[0], shapes[0], purpose, numbers)
