"""Buffers for results: aligned, and from huge pages where they are large."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_LARGE = 1 << 22  # bytes from which NumPy asks Linux for huge pages; torch and XLA do not
_LINE = 64  # XLA takes a buffer of this alignment without a copy


def buffer(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uninitialised memory; first touching it costs a third of what ordinary pages cost."""
    size = math.prod(shape)
    width = np.dtype(dtype).itemsize
    raw = np.empty(size + _LINE // width, dtype)
    offset = -address(raw) % _LINE // width
    return raw[offset : offset + size].reshape(shape)


def tensor(like: Any) -> Any:
    """The same for torch: a contiguous CPU tensor of the shape and dtype of ``like``."""
    import torch

    if like.numel() * like.element_size() < _LARGE:
        return torch.empty_like(like, memory_format=torch.contiguous_format)
    return torch.from_numpy(buffer(tuple(like.shape), str(like.dtype).removeprefix("torch.")))


def address(array: np.ndarray) -> int:
    """Where the array's data begins."""
    return int(array.__array_interface__["data"][0])
