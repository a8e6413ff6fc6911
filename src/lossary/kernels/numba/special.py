"""Compile a plain function several times, with other names bound: precision, flags, helpers.

Numba's disk cache does not know closures again in another process. A function object with its own
globals it does: the source stays in one file, and the name tells the variants apart. Helpers need
such a name as well: Numba numbers functions per process, the linker keeps the first of two equal
symbols, and so a kernel from disk would lend its helper to one that was compiled just now.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from lossary.kernels import elementary, formulas
from lossary.kernels.numba import machine, scalar, source, sums
from lossary.kernels.numba.machine import HELPER, njit

# A sum may be reordered; a difference may not, and NaN and infinity keep their meaning.
LOOSE = {"reassoc", "contract", "nsz"}
EXACT = {"contract"}


@functools.cache
def fingerprint(*modules: ModuleType) -> str:
    """A short hash of the sources that a kernel is made of: part of its name in the disk cache."""
    parts = (elementary, *formulas.MODULES, machine, scalar, source, sums, *modules)
    files = [module.__file__ for module in parts] + [__file__]
    contents = b"".join(Path(str(file)).read_bytes() for file in files)
    return hashlib.sha256(contents).hexdigest()[:12]


def bind(
    function: Callable[..., Any], names: Mapping[str, Any], flags: set[str], variant: str
) -> Any:
    """``function`` compiled as a helper, with ``names`` as its globals."""
    return njit(fastmath=flags, **HELPER)(_variant(function, names, variant))


def entry(
    function: Callable[..., Any], names: Mapping[str, Any], signature: Any, variant: str
) -> Any:
    """``function`` compiled for one signature, kept on disk, run without the interpreter's lock."""
    bound = _variant(function, names, variant)
    kept = {"nogil": True, "cache": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    return njit(signature, **kept)(bound)


def _variant(
    function: Callable[..., Any], names: Mapping[str, Any], variant: str
) -> Callable[..., Any]:
    bound = FunctionType(function.__code__, dict(names), f"{function.__name__}_{variant}")
    bound.__qualname__ = bound.__name__
    return bound
