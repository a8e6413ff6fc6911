"""torch's own threads, where they are libgomp's: they are awake when a kernel follows torch's work.

After each operation these threads spin for some milliseconds on the CPUs that a pool beside them
would want: cross-entropy of 4096 x 1000 after an operation of torch's took 1.5 times as long there.
They run compiled code only: to wait for the interpreter's lock took a thread 100 microseconds.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lossary.kernels.numba import worker

_SOFT = 1  # omp_pause_soft


def ready() -> bool:
    """Whether torch is loaded and computes with these threads."""
    return "torch" in sys.modules and _libgomp() is not None


def run(function: Callable[..., Any], blocks: int, parts: int, step: int, rest: Any) -> None:
    """``function(first, last, *rest)`` over all blocks, ``step`` at a time, on as many threads as
    there are parts, this one among them.
    """
    libgomp = _libgomp()
    assert libgomp is not None
    parallel = libgomp.GOMP_parallel
    worker.of(function).run(lambda share, at: parallel(share, at, parts, 0), blocks, step, rest)


@functools.cache
def _libgomp() -> ctypes.CDLL | None:
    """The library that torch has loaded; None where it computes with other threads."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    for path in (Path(sys.modules["torch"].__file__ or "").parent / "lib").glob("libgomp*"):
        with suppress(OSError, AttributeError):  # not loaded, or of another kind
            return _prepared(ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD))
    return None


def _prepared(library: ctypes.CDLL) -> ctypes.CDLL:
    unsigned, pointer = ctypes.c_uint, ctypes.c_void_p
    library.GOMP_parallel.argtypes = [pointer, pointer, unsigned, unsigned]
    library.GOMP_parallel.restype = None
    pause = library.omp_pause_resource_all
    # Threads do not survive a fork, and the child would wait for them for ever.
    os.register_at_fork(before=lambda: pause(_SOFT))
    return library
