# mypy: disable-error-code="no-untyped-call"
"""The three products of a slice of scores that stand as (columns, rows), in torch.

PyTorch multiplies in single precision by MKL, which takes a processor's 512-bit vectors on Intel's
alone. oneDNN, which PyTorch carries too, takes them on any: on an AMD EPYC of 2024, 310 to 450
GFLOP/s on two cores where MKL makes 210. It multiplies by rows, ``x @ y.T``, into memory of its
own: so a product is made in blocks that stay in the cache, and added or copied from there.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch

Tensor = torch.Tensor
_BLOCK = 1 << 19  # numbers of a block's result
_TURNED = 32 * 2**20  # bytes of an array that is turned once instead of block by block


@functools.cache
def _vectors_left_over() -> bool:
    """Whether this processor has vectors that MKL does not take."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkl.is_available():
        return False
    information = Path("/proc/cpuinfo")
    maker = information.read_text() if information.exists() else platform.processor()
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and "GenuineIntel" not in maker


def by_onednn(*arrays: Tensor) -> bool:
    """Whether products of these are oneDNN's."""
    for array in arrays:
        if array.dtype != torch.float32 or not array.is_cpu or not array.numel():
            return False
    return _vectors_left_over() and bool(torch.backends.mkldnn.enabled)


def _rows_times_rows(one: Tensor, other: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(one, other, None, "none", [], "")
    return found


def _blocks(columns: Tensor, width: int) -> range:
    return range(0, len(columns), max(1, _BLOCK // max(1, width)))


def turned(columns: Tensor) -> Tensor | None:
    """What :func:`gather` may be given for all slices, if that is worth its memory."""
    small = columns.nbytes <= _TURNED
    return columns.t().contiguous() if small and by_onednn(columns) else None


def score(columns: Tensor, rows: Tensor, out: Tensor) -> None:
    """``out`` becomes ``columns @ rows.T``."""
    if not by_onednn(columns, rows, out):
        torch.mm(columns, rows.t(), out=out)
        return
    blocks = _blocks(columns, len(rows))
    for low in blocks:
        out[low : low + blocks.step] = _rows_times_rows(columns[low : low + blocks.step], rows)


def gather(scores: Tensor, columns: Tensor, out: Tensor, turned: Tensor | None = None) -> None:
    """``out`` becomes ``scores.T @ columns``."""
    if not by_onednn(scores, columns, out):
        torch.mm(scores.t(), columns, out=out)
        return
    if turned is not None:
        out.copy_(_rows_times_rows(turned, scores.t()).t())
        return
    blocks = _blocks(columns, max(out.shape))
    found = torch.zeros_like(out.t(), memory_format=torch.contiguous_format)
    for low in blocks:
        block = slice(low, low + blocks.step)
        found += _rows_times_rows(columns[block].t(), scores[block].t())
    out.copy_(found.t())


def add(into: Tensor, scores: Tensor, rows: Tensor, *, first: bool = False) -> None:
    """``into`` grows by ``scores @ rows``; as the first, it does not read what stands there."""
    if not by_onednn(into, scores, rows):
        into.addmm_(scores, rows, beta=0 if first else 1)
        return
    across, blocks = rows.t().contiguous(), _blocks(scores, max(rows.shape))
    for low in blocks:
        block = slice(low, low + blocks.step)
        found = _rows_times_rows(scores[block], across)
        into[block] = found if first else found.add_(into[block])
