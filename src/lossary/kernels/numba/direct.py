"""Compiled kernels for libraries without a tape: what NumPy and eager JAX arrays share."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.kernels import Kernel, differentiated, inputs_of
from lossary.kernels.numba import available, memory, slices
from lossary.kernels.numba.program import (
    FROM_SIZE,
    REAL,
    Launch,
    Shape,
    Shapes,
    program,
    unit_shape,
)

Array = Any


class Direct:
    """The calls of one loss; a library says how its arrays are memory, and memory its arrays."""

    library: str

    def __init__(self, loss: str) -> None:
        self.loss = loss

    def strange(self, name: str, array: Array) -> str | None:
        """Why this array cannot be read as plain memory; None if it can."""
        raise NotImplementedError

    def address(self, array: Array) -> int:
        raise NotImplementedError

    def whole(self, array: Array, dtype: str) -> bool:
        """Whether these are numbers of this type, one after the other."""
        raise NotImplementedError

    def empty(self, shape: Shape, dtype: str) -> Array:
        return memory.buffer(shape, dtype)

    def copy(self, into: Array, array: Array) -> None:
        np.copyto(into, array)

    def array(self, buffer: np.ndarray) -> Array:
        """The buffer as an array of the library, without a copy."""
        raise NotImplementedError

    def scalar(self, number: float, like: Array) -> Array:
        raise NotImplementedError

    def contiguous(self, array: Array, dtype: Any) -> Array:
        """The numbers in this dtype, one after the other in memory."""
        raise NotImplementedError

    def kernel(self) -> Kernel:
        """The manifest's object."""
        return Kernel(
            "numba", self.loss, self.library, self.supports, self.values, self.scaled_sum,
            self.value_and_grad, from_size=FROM_SIZE, skips=True,
        )  # fmt: skip

    def supports(self, *arrays: Array, **parameters: Any) -> str | None:
        names = inputs_of(self.loss)
        reasons = (self.strange(*pair) for pair in zip(names, arrays, strict=True))
        reason = next(filter(None, reasons), None) or available.why_not()
        if reason is not None:
            return reason
        if arrays[0].dtype.name not in REAL:
            return f"the {names[0]} is {arrays[0].dtype}"
        shapes, dtypes = tuple(x.shape for x in arrays), tuple(x.dtype.name for x in arrays)
        return program(self.loss).decline(shapes, dtypes, parameters)

    def values(self, *arrays: Array, weights: Array | None = None, **parameters: Any) -> Array:
        shape = unit_shape(self.loss, arrays[0].shape, parameters)
        values = memory.buffer(shape, arrays[0].dtype)
        self._launch(arrays, weights, None, values, 1.0, parameters)
        return self.array(values)

    def scaled_sum(
        self, *arrays: Array, factor: float, weights: Array | None = None, **parameters: Any
    ) -> Array:
        total = self._launch(arrays, weights, None, None, factor, parameters)
        return self.scalar(total, arrays[0])

    def value_and_grad(
        self, *arrays: Array, factor: float, weights: Array | None = None, **parameters: Any
    ) -> tuple[Array, Array | tuple[Array, ...]]:
        buffers = [
            memory.buffer(arrays[place].shape, arrays[place].dtype)
            for place in differentiated(self.loss)
        ]
        total = self._launch(arrays, weights, buffers, None, factor, parameters)
        gradients = tuple(map(self.array, buffers))
        return self.scalar(total, arrays[0]), gradients if gradients[1:] else gradients[0]

    def _launch(
        self, arrays: tuple[Array, ...], weights: Array | None, gradients: list[np.ndarray] | None,
        values: np.ndarray | None, factor: float, parameters: Any,
    ) -> float:  # fmt: skip
        if weights is not None:
            weights = self.contiguous(weights, arrays[0].dtype)
        purpose = (weights is not None, gradients is not None, values is not None)
        dtypes = tuple(array.dtype.name for array in arrays)

        def launch(shapes: Shapes) -> Launch:
            return program(self.loss).prepare(shapes, dtypes, purpose, parameters)

        lacking = program(self.loss).unit_axes(arrays[0].shape, parameters)
        nowhere = (None,) * len(differentiated(self.loss))
        given = (*arrays, weights, *(gradients or nowhere), values)
        return slices.run(self, given, dtypes, lacking, launch, float(factor))
