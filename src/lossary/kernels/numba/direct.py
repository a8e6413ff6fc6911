"""Compiled kernels for libraries without a tape: what NumPy and eager JAX arrays share."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.kernels import Kernel
from lossary.kernels.numba import available, memory, slices
from lossary.kernels.numba.program import REAL, Launch, Shape, from_size, program, unit_shape

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
            self.value_and_grad, from_size=from_size(self.library, self.loss), skips=True,
        )  # fmt: skip

    def supports(self, prediction: Array, target: Array, **parameters: Any) -> str | None:
        reason = self.strange("prediction", prediction) or self.strange("target", target)
        reason = reason or available.why_not()
        if reason is not None:
            return reason
        if prediction.dtype.name not in REAL:
            return f"the prediction is {prediction.dtype}"
        return program(self.loss).decline(
            prediction.shape, prediction.dtype.name, target.shape, target.dtype.name, parameters
        )

    def values(
        self, prediction: Array, target: Array, *, weights: Array | None = None, **parameters: Any
    ) -> Array:
        shape = unit_shape(self.loss, prediction.shape, parameters)
        values = memory.buffer(shape, prediction.dtype)
        self._launch(prediction, target, weights, None, values, 1.0, parameters)
        return self.array(values)

    def scaled_sum(
        self,
        prediction: Array,
        target: Array,
        *,
        factor: float,
        weights: Array | None = None,
        **parameters: Any,
    ) -> Array:
        total = self._launch(prediction, target, weights, None, None, factor, parameters)
        return self.scalar(total, prediction)

    def value_and_grad(
        self,
        prediction: Array,
        target: Array,
        *,
        factor: float,
        weights: Array | None = None,
        **parameters: Any,
    ) -> tuple[Array, Array]:
        gradient = memory.buffer(prediction.shape, prediction.dtype)
        total = self._launch(prediction, target, weights, gradient, None, factor, parameters)
        return self.scalar(total, prediction), self.array(gradient)

    def _launch(
        self, prediction: Array, target: Array, weights: Array | None,
        gradient: np.ndarray | None, values: np.ndarray | None, factor: float, parameters: Any,
    ) -> float:  # fmt: skip
        if weights is not None:
            weights = self.contiguous(weights, prediction.dtype)
        purpose = (weights is not None, gradient is not None, values is not None)
        real, kind = prediction.dtype.name, target.dtype.name

        def launch(shape: Shape) -> Launch:
            return program(self.loss).prepare(shape, real, kind, purpose, parameters)

        lacking = program(self.loss).unit_axes(prediction.shape, parameters)
        arrays = (prediction, target, weights, gradient, values)
        return slices.run(self, arrays, (real, kind), lacking, launch, float(factor))
