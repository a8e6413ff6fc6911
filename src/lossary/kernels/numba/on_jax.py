"""Compiled kernels on JAX arrays outside ``jit``; inside, XLA compiles the definition."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lossary.kernels import Kernel
from lossary.kernels.numba import available, memory
from lossary.kernels.numba.program import REAL, from_size, program

Array = jax.Array


def kernel(loss: str) -> Kernel:
    """The compiled kernel of ``loss`` for JAX."""
    bound = _Bound(loss)
    return Kernel(
        "numba", loss, "jax", bound.supports, bound.values, bound.scaled_sum,
        bound.value_and_grad, from_size=from_size("jax", loss),
    )  # fmt: skip


def _strange(name: str, array: Any) -> str | None:
    if isinstance(array, jax.core.Tracer):
        return "inside a JAX transformation XLA compiles the definition"
    if not isinstance(array, jax.Array):
        return f"the {name} is a {type(array).__name__}"
    devices = array.devices()
    if len(devices) != 1 or next(iter(devices)).platform != "cpu":
        return f"the {name} is not on one CPU device"
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
        self._launch(prediction, target, None, 0, memory.address(values), 1.0, parameters)
        return _adopt(values)

    def scaled_sum(
        self,
        prediction: Array,
        target: Array,
        *,
        factor: float,
        weights: Array | None = None,
        **parameters: Any,
    ) -> Array:
        total = self._launch(prediction, target, weights, 0, 0, factor, parameters)
        return jnp.asarray(total, prediction.dtype)

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
        at = memory.address(gradient)
        total = self._launch(prediction, target, weights, at, 0, factor, parameters)
        return jnp.asarray(total, prediction.dtype), _adopt(gradient)

    def _launch(
        self, prediction: Array, target: Array, weights: Array | None, gradient: int,
        values: int, factor: float, parameters: Any,
    ) -> float:  # fmt: skip
        if weights is not None:
            weights = jnp.asarray(weights, prediction.dtype)
        return program(self.loss).launch(
            prediction.shape, prediction.dtype.name, target.dtype.name,
            prediction=_address(prediction), target=_address(target),
            weights=0 if weights is None else _address(weights), gradient=gradient, values=values,
            factor=float(factor), parameters=parameters,
        )  # fmt: skip


def _address(array: Array) -> int:
    # JAX computes ahead of the program: the numbers may not be there yet.
    return int(array.block_until_ready().unsafe_buffer_pointer())


def _adopt(buffer: Any) -> Array:
    """The buffer as a JAX array; it is aligned, so nothing is copied."""
    return jax.dlpack.from_dlpack(buffer)
