# mypy: disable-error-code="no-untyped-call"
"""A thread's share of a kernel's work, as a compiled function of one address.

There is no interpreter in it: to wait for its lock took a thread 100 microseconds.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from lossary.kernels.numba import machine

SHARE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
Share = Callable[[int], None]  # of that type

# At the address: the next block, how many are taken at a time, how many there are, whether memory
# ran out; then the kernel's arguments.
NEXT, STEP, BLOCKS, FAILED, REST = range(5)


@intrinsic
def taken(typing: Any, address: Any, count: Any) -> Any:
    """The integer at an address, to which ``count`` is added before another thread sees it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "monotonic")

    return types.intp(types.intp, types.intp), generate


class Worker:
    """The share of a compiled ``kernel(first, last, *integers and floats)``; kept on disk."""

    def __init__(self, kernel: Any) -> None:
        reals = [kind == types.float64 for kind in kernel.nopython_signatures[0].args[2:]]
        self._layout = struct.Struct("@4q" + "".join("qd"[real] for real in reals))
        given = (f"{'reals' if real else 'integers'}[{REST + i}]" for i, real in enumerate(reals))
        name = f"worker_{kernel.py_func.__name__}"
        text = f"""
def {name}(at):
    integers, reals = integers_at(at), doubles_at(at)
    step, blocks = integers[{STEP}], integers[{BLOCKS}]
    first = taken(at, step)
    while first < blocks:
        last = first + step if blocks - first > step else blocks
        try:
            kernel(first, last, {", ".join(given)})
        except Exception:
            integers[{FAILED}] = 1
        first = taken(at, step)
"""
        space: dict[str, Any] = {
            "__name__": __name__, "kernel": kernel, "taken": taken,
            "integers_at": machine.POINTER[np.int64], "doubles_at": machine.POINTER[np.float64],
        }  # fmt: skip
        # Compiled under this file's name: Numba keeps its cache beside the file of the source.
        kept = kernel.stats.cache_path is not None
        exec(compile(text, __file__, "exec"), space)
        self._compiled = numba.cfunc(types.void(types.intp), cache=kept)(space[name])
        self.share: Share = SHARE(self._compiled.address or 0)

    def arguments(self, blocks: int, step: int, rest: tuple[float, ...]) -> np.ndarray:
        """What stands at the address, for the kernel's arguments after the first two."""
        given = np.empty(self._layout.size // 8, np.int64)
        self._layout.pack_into(given.data, 0, 0, step, blocks, 0, *rest)
        return given


of = functools.cache(Worker)


def check(given: np.ndarray) -> None:
    """MemoryError if some block had no scratch."""
    if given[FAILED]:
        raise MemoryError("no memory for a kernel's scratch")
