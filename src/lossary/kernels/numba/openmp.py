"""torch's own threads, where they are libgomp's: they are awake when a kernel follows torch's work.

After each operation these threads spin for some milliseconds on the CPUs that a pool beside them
would want: cross-entropy of 4096 x 1000 after an operation of torch's took 1.5 times as long there.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_SHARE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_SOFT = 1  # omp_pause_soft


def ready() -> bool:
    """Whether torch is loaded and computes with these threads."""
    return "torch" in sys.modules and _libgomp() is not None


def run(function: Callable[..., Any], ranges: Iterator[Any], parts: int, rest: Any) -> None:
    """``function(first, last, *rest)`` of all ranges, by ``parts`` threads, this one among them."""
    errors: list[BaseException] = []

    def share(_: Any) -> None:
        try:
            # A list's iterator hands each range to exactly one thread.
            for first, last in ranges:
                function(first, last, *rest)
        except BaseException as error:  # raised again on the caller's thread
            errors.append(error)

    libgomp = _libgomp()
    assert libgomp is not None
    libgomp.GOMP_parallel(_SHARE(share), None, parts, 0)
    if errors:
        raise errors[0]


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
    library.GOMP_parallel.argtypes = [_SHARE, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    library.GOMP_parallel.restype = None
    pause = library.omp_pause_resource_all
    # Threads do not survive a fork, and the child would wait for them for ever.
    os.register_at_fork(before=lambda: pause(_SOFT))
    return library
