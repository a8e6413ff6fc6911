"""Compiled kernels on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.kernels import Kernel
from lossary.kernels.numba import memory
from lossary.kernels.numba.direct import Direct


def kernel(loss: str) -> Kernel:
    """The compiled kernel of ``loss`` for NumPy."""
    return _OnNumpy(loss).kernel()


class _OnNumpy(Direct):
    library = "numpy"

    def strange(self, name: str, array: Any) -> str | None:
        if type(array) is not np.ndarray:
            return f"the {name} is a {type(array).__name__}"
        if not array.dtype.isnative or not array.flags.aligned:
            return f"the {name} is not in this machine's byte order and alignment"
        return None

    def address(self, array: Any) -> int:
        return memory.address(array)

    def whole(self, array: Any, dtype: str) -> bool:
        return array.flags.c_contiguous and array.dtype == dtype  # type: ignore[no-any-return]

    def array(self, buffer: np.ndarray) -> Any:
        return buffer

    def scalar(self, number: float, like: Any) -> Any:
        return like.dtype.type(number)

    def contiguous(self, array: Any, dtype: Any) -> Any:
        return np.asarray(array, dtype, order="C")
