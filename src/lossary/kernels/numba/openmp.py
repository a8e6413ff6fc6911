"""torch's own threads, where they are libgomp's: they are awake when a kernel follows torch's work.

After each operation these threads spin for some milliseconds on the CPUs that a pool beside them
would want: cross-entropy of 4096 x 1000 after an operation of torch's took 1.5 times as long there.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from contextlib import suppress
from pathlib import Path

from lossary.kernels.numba.worker import SHARE, Share

_SOFT = 1  # omp_pause_soft


def ready() -> bool:
    """Whether torch is loaded and computes with these threads."""
    return "torch" in sys.modules and _libgomp() is not None


def run(share: Share, at: int, parts: int) -> None:
    """``share(at)`` on as many threads as there are parts, this one among them."""
    libgomp = _libgomp()
    assert libgomp is not None
    libgomp.GOMP_parallel(share, at, parts, 0)


@functools.cache
def _libgomp() -> ctypes.CDLL | None:
    """The library that torch has loaded; None where it computes with other threads."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    for path in (Path(sys.modules["torch"].__file__ or "").parent / "lib").glob("libgomp*"):
        # By its name, for torch uses another one that was loaded under this name before it.
        with suppress(OSError, AttributeError):  # not loaded, or of another kind
            return _prepared(ctypes.CDLL(path.name, mode=os.RTLD_NOLOAD))
    return None


def _prepared(library: ctypes.CDLL) -> ctypes.CDLL:
    library.GOMP_parallel.argtypes = [SHARE, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    library.GOMP_parallel.restype = None
    pause = library.omp_pause_resource_all
    # Threads do not survive a fork, and the child would wait for them for ever.
    os.register_at_fork(before=lambda: pause(_SOFT))
    return library
