"""Compiled kernels on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.kernels import Kernel
from lossary.kernels.numba import available, memory
from lossary.kernels.numba.program import REAL, from_size, program

Array = np.ndarray


def kernel(loss: str) -> Kernel:
    """The compiled kernel of ``loss`` for NumPy."""
    bound = _Bound(loss)
    return Kernel(
        "numba", loss, "numpy", bound.supports, bound.values, bound.scaled_sum,
        bound.value_and_grad, from_size=from_size("numpy", loss),
    )  # fmt: skip


def _strange(name: str, array: Any) -> str | None:
    if type(array) is not np.ndarray:
        return f"the {name} is a {type(array).__name__}"
    if not array.flags.c_contiguous:
        return f"the {name} is not contiguous"
    if not array.dtype.isnative or not array.flags.aligned:
        return f"the {name} is not in this machine's byte order and alignment"
    return None


class _Bound:
    """The calls of one loss."""

    def __init__(self, loss: str) -> None:
        self.loss = loss

    def supports(self, prediction: Array, target: Array, **parameters: Any) -> str | None:
        reason = _strange("prediction", prediction) or _strange("target", target)
        reason = reason or available.why_not()
        if reason is not None:
            return reason
        if prediction.dtype.name not in REAL:
            return f"the prediction is {prediction.dtype}"
        return program(self.loss).decline(
            prediction.shape, prediction.dtype.name, target.shape, target.dtype.name, parameters
        )

    def values(self, prediction: Array, target: Array, **parameters: Any) -> Array:
        plan = program(self.loss)
        shape, axis = list(prediction.shape), plan.unit_axis(parameters)
        if axis is not None:
            del shape[axis]
        values = memory.buffer(tuple(shape), prediction.dtype)
        self._launch(prediction, target, None, None, values, 1.0, parameters)
        return values

    def scaled_sum(
        self,
        prediction: Array,
        target: Array,
        *,
        factor: float,
        weights: Array | None = None,
        **parameters: Any,
    ) -> Any:
        total = self._launch(prediction, target, weights, None, None, factor, parameters)
        return prediction.dtype.type(total)

    def value_and_grad(
        self,
        prediction: Array,
        target: Array,
        *,
        factor: float,
        weights: Array | None = None,
        **parameters: Any,
    ) -> tuple[Any, Array]:
        gradient = memory.buffer(prediction.shape, prediction.dtype)
        total = self._launch(prediction, target, weights, gradient, None, factor, parameters)
        return prediction.dtype.type(total), gradient

    def _launch(
        self, prediction: Array, target: Array, weights: Array | None, gradient: Array | None,
        values: Array | None, factor: float, parameters: Any,
    ) -> float:  # fmt: skip
        if weights is not None:
            weights = np.ascontiguousarray(weights, prediction.dtype)
        return program(self.loss).launch(
            prediction.shape, prediction.dtype.name, target.dtype.name,
            prediction=memory.address(prediction), target=memory.address(target),
            weights=_address(weights), gradient=_address(gradient), values=_address(values),
            factor=float(factor), parameters=parameters,
        )  # fmt: skip


def _address(array: Array | None) -> int:
    return 0 if array is None else memory.address(array)
