"""Compiled kernels on JAX arrays outside ``jit``; inside, XLA compiles the definition."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lossary.kernels import Kernel
from lossary.kernels.numba import memory
from lossary.kernels.numba.direct import Direct


def kernel(loss: str) -> Kernel:
    """The compiled kernel of ``loss`` for JAX."""
    return _OnJax(loss).kernel()


class _OnJax(Direct):
    library = "jax"

    def strange(self, name: str, array: Any) -> str | None:
        if isinstance(array, jax.core.Tracer):
            return "inside a JAX transformation XLA compiles the definition"
        if not isinstance(array, jax.Array):
            return f"the {name} is a {type(array).__name__}"
        devices = array.devices()
        if len(devices) != 1 or next(iter(devices)).platform != "cpu":
            return f"the {name} is not on one CPU device"
        return None

    def address(self, array: Any) -> int:
        if isinstance(array, np.ndarray):  # what the kernel writes
            return memory.address(array)
        # JAX computes ahead of the program: the numbers may not be there yet.
        return int(array.block_until_ready().unsafe_buffer_pointer())

    def whole(self, array: Any, dtype: str) -> bool:
        return True

    def array(self, buffer: np.ndarray) -> Any:
        return jax.dlpack.from_dlpack(buffer)  # it is aligned, so nothing is copied

    def scalar(self, number: float, like: Any) -> Any:
        return jnp.asarray(number, like.dtype)

    def contiguous(self, array: Any, dtype: Any) -> Any:
        return jnp.asarray(array, dtype)
