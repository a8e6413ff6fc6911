"""Buffers for results: aligned, and from huge pages that are used again where they are large.

The system clears a page when it is first touched, which for a large gradient takes longer than the
loss. A large buffer that nobody holds any longer is therefore kept for the next result of its size;
its pages are the system's to take when memory is short.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import math
import mmap
import os
import sys
import threading
from typing import Any

import numpy as np

LARGE = 1 << 25  # bytes from which a buffer is worth keeping: the C library keeps smaller ones
MOST_IDLE = 1 << 30  # bytes that are kept in all
_HUGE_PAGE = 1 << 21
_LINE = 64  # XLA takes a buffer of this alignment without a copy
_KEEPS = hasattr(mmap, "MADV_HUGEPAGE") and hasattr(mmap, "MADV_FREE")  # Linux


class _Region:
    """Memory of its own, aligned to huge pages."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = mmap.mmap(-1, size + _HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a system without huge pages
            self.memory.madvise(mmap.MADV_HUGEPAGE)
        start = address(np.frombuffer(self.memory, np.uint8))
        self.offset = -start % _HUGE_PAGE
        self.address = start + self.offset


class _Loan:
    """A region in use. Every array and tensor on it holds the loan, whichever is left last."""

    def __init__(self, region: _Region, shape: tuple[int, ...], dtype: Any) -> None:
        self.region = region
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": np.dtype(dtype).str,
            "data": (region.address, False),
        }  # fmt: skip

    def __del__(self) -> None:
        if not sys.is_finalizing():
            _keep(self.region)


# A finalizer may run anywhere, even in a thread that has the lock: ``_returned`` needs none.
_returned: collections.deque[_Region] = collections.deque()
_idle: list[_Region] = []  # the longest idle first
_lock = threading.Lock()


def _settle() -> None:
    """Returned regions become idle ones, as many as may; the caller has the lock."""
    while _returned:
        _idle.append(_returned.popleft())
    excess = sum(region.size for region in _idle) - MOST_IDLE
    while excess > 0:
        excess -= _idle.pop(0).size


def _keep(region: _Region) -> None:
    if region.size > MOST_IDLE:
        return
    with contextlib.suppress(OSError):  # an older Linux
        region.memory.madvise(mmap.MADV_FREE, region.offset, region.size)
    _returned.append(region)
    if _lock.acquire(blocking=False):  # else whoever has it, or comes next, settles
        try:
            _settle()
        finally:
            _lock.release()


def _region(size: int) -> _Region:
    # Sizes in steps of at most an eighth, so that batches of nearly the same size share regions.
    step = max(_HUGE_PAGE, 1 << (size.bit_length() - 4))
    size = -(-size // step) * step
    with _lock:
        _settle()
        for place in reversed(range(len(_idle))):  # the last one may still be in the cache
            if _idle[place].size == size:
                return _idle.pop(place)
    return _Region(size)


def _after_fork() -> None:
    # The lock may be held by a thread that is gone, and shared pages would be copied when written.
    global _lock
    _lock = threading.Lock()
    _idle.clear()
    _returned.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def buffer(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uninitialised memory that starts at a multiple of 64 bytes."""
    size, width = math.prod(shape), np.dtype(dtype).itemsize
    if _KEEPS and size * width >= LARGE:
        with contextlib.suppress(OSError):  # no memory: NumPy says so in its own words
            return np.asarray(_Loan(_region(size * width), shape, dtype))
    raw = np.empty(size + _LINE // width, dtype)
    offset = -address(raw) % _LINE // width
    return raw[offset : offset + size].reshape(shape)


def tensor(like: Any, *, contiguous: bool = False) -> Any:
    """The same for torch: a CPU tensor of the shape, dtype and order of axes of ``like``."""
    import torch

    size = like.numel() * like.element_size()
    order = torch.contiguous_format if contiguous else torch.preserve_format
    if size < LARGE:
        return torch.empty_like(like, memory_format=order)
    strides = torch.empty_like(like, device="meta", memory_format=order).stride()
    flat = torch.from_numpy(buffer((size,), np.uint8)).view(like.dtype)
    return flat.as_strided(like.shape, strides)


def address(array: np.ndarray) -> int:
    """Where the array's data begins."""
    return int(array.__array_interface__["data"][0])


def read(at: int, size: int, real: Any) -> np.ndarray:
    """The numbers at an address, as an array over the same memory."""
    kind = ctypes.c_float if real is np.float32 else ctypes.c_double
    return np.ctypeslib.as_array((kind * size).from_address(at))
