"""What a compiled kernel is to the libraries: a program over memory, free of any array type."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping
from typing import Any, Protocol

from lossary.kernels import WHOLE_ARRAY, formulas, manifest

Shape = tuple[int, ...]
REAL = ("float32", "float64")
INDEX = ("int32", "int64")


class Program(Protocol):
    """One loss over contiguous CPU memory.

    ``decline`` looks at shapes and dtype names; ``unit_axis`` is the axis of the prediction that
    units lack (None: one unit per element); ``launch`` takes addresses, 0 for what is not wanted,
    and returns ``factor * sum(weights * values)``. ``gradient`` receives ``factor * weight *
    slope``.
    """

    def decline(
        self, shape: Shape, dtype: str, target_shape: Shape, target_dtype: str,
        parameters: Mapping[str, Any],
    ) -> str | None: ...  # fmt: skip

    def unit_axis(self, parameters: Mapping[str, Any]) -> int | None: ...

    def launch(
        self, shape: Shape, dtype: str, target_dtype: str, *, prediction: int, target: int,
        weights: int, gradient: int, values: int, factor: float, parameters: Mapping[str, Any],
    ) -> float: ...  # fmt: skip


def from_size(library: str, loss: str) -> int:
    """From how many elements on a compiled kernel is worth its call.

    Below, the definition's few operations are quicker than loading Numba; where the framework has a
    fused operation of its own, that stays ahead until the arrays leave the cache.
    """
    return 32768 if len(manifest()[loss, library]) > 1 else 256


@functools.cache
def program(loss: str) -> Program:
    """The program of a loss of the manifest."""
    if loss in WHOLE_ARRAY:
        module = importlib.import_module(f"lossary.kernels.numba.{WHOLE_ARRAY[loss]}")
        return module.PROGRAMS[loss]  # type: ignore[no-any-return]
    return Pointwise(loss)


class Pointwise:
    """A loss of ``formulas``: one unit per element."""

    def __init__(self, loss: str) -> None:
        self.loss = loss
        self.names = tuple(inspect.signature(getattr(formulas, loss)).parameters)[2:]

    def decline(
        self, shape: Shape, dtype: str, target_shape: Shape, target_dtype: str,
        parameters: Mapping[str, Any],
    ) -> str | None:  # fmt: skip
        if target_dtype != dtype:
            return f"the target is {target_dtype}, the prediction {dtype}"
        if target_shape != shape:
            return f"the target has shape {target_shape}, the prediction {shape}"
        for name, value in parameters.items():
            unused = value is None or value is False
            if name not in self.names and not unused:
                return f"{name} has no compiled form"
            if name in self.names and not (unused or isinstance(value, (int, float))):
                return f"{name} is {type(value).__name__}, the compiled form takes a number"
        return None

    def unit_axis(self, parameters: Mapping[str, Any]) -> int | None:
        return None

    def launch(
        self, shape: Shape, dtype: str, target_dtype: str, *, prediction: int, target: int,
        weights: int, gradient: int, values: int, factor: float, parameters: Mapping[str, Any],
    ) -> float:  # fmt: skip
        from lossary.kernels.numba import pointwise

        given = tuple(
            -1.0 if parameters[name] is None else float(parameters[name]) for name in self.names
        )
        total = pointwise.launch(
            self.loss, dtype, shape, prediction, target, weights, gradient, values, factor, given
        )
        return total * factor
