"""Arrays as the doctor reads them: of any library, and too large to copy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossary.contract import LossError

BLOCK_BYTES = 2 * 2**20
MANY_LABELS = 4096

_LIBRARIES = {
    "torch": "torch",
    "jax": "jax",
    "jaxlib": "jax",
    "tensorflow": "tensorflow",
    "keras": "keras",
}


def library_of(value: Any) -> str:
    """The array library that this value belongs to: ``numpy`` for lists and numbers."""
    for kind in type(value).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in _LIBRARIES:
            return _LIBRARIES[root]
    return "numpy"


def dtype_name(value: Any) -> str:
    """``float32``, ``bfloat16``, ``int64`` ... without the library's prefix."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        dtype = np.asarray(value).dtype
    return getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]


def to_numpy(value: Any, name: str) -> np.ndarray:
    """A NumPy view where the library allows one; bfloat16, which NumPy lacks, is widened."""
    if isinstance(value, np.ndarray):
        array = value
    elif library_of(value) == "torch":
        value = value.detach().cpu()
        array = (value.float() if dtype_name(value) == "bfloat16" else value).numpy()
    elif hasattr(value, "to_numpy"):
        array = value.to_numpy()
    else:
        try:
            array = np.asarray(value)
        except ValueError:
            raise LossError(
                f"{name} is ragged: its rows have unlike lengths; pad them and pass a mask"
            ) from None
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise LossError(
            f"{name} has dtype {array.dtype}, which is not numeric; encode it as numbers first"
        )
    return array


def like(array: np.ndarray, library: str, dtype: str | None = None, device: Any = None) -> Any:
    """A NumPy array as an array of ``library``, in ``dtype`` where one is given."""
    if library == "torch":
        import torch

        tensor = torch.from_numpy(np.array(array, copy=True))
        return tensor.to(device=device, dtype=getattr(torch, dtype) if dtype else None)
    if library == "jax":
        import jax.numpy as jnp

        return jnp.asarray(array, dtype=dtype)
    if library == "tensorflow":
        import tensorflow

        return tensorflow.convert_to_tensor(array if dtype is None else array.astype(dtype))
    if library == "keras":
        import keras

        return keras.ops.convert_to_tensor(array, dtype=dtype)
    return np.array(array, dtype=dtype, copy=True)  # a callable may write into what it gets


def as_keras_reads(target: np.ndarray, shape: tuple[int, ...], space: str) -> np.ndarray:
    """The target as Keras' losses take it: a last axis of 1 comes and goes, 0 and 1 are signs."""
    if target.ndim == len(shape) - 1 and shape[-1] == 1 and target.shape == shape[:-1]:
        target = target[..., None]
    elif target.ndim and target.shape[-1] == 1 and target.shape != shape:
        more = target.ndim - len(shape)
        target = target[..., 0] if more == 1 or (more == 0 and space == "classes") else target
    if space == "sign" and bool(((target == 0) | (target == 1)).all()):
        target = 2.0 * target - 1.0
    return target


def precise(library: str, dtype: str | None) -> AbstractContextManager[Any]:
    """A context in which float64 is float64: JAX narrows it otherwise."""
    if library != "jax" or dtype != "float64":
        return nullcontext()
    import jax

    wide: AbstractContextManager[Any] = jax.enable_x64(True)
    return wide


def blocks(*arrays: np.ndarray | None) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Slices of equal rows of the arrays, some 16 MB at a time: (first row, slices)."""
    first = next(array for array in arrays if array is not None)
    if first.ndim == 0:
        yield 0, arrays
        return
    rows = len(first)
    row_bytes = max(array[:1].nbytes for array in arrays if array is not None and array.ndim)
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, rows, step):
        yield (
            start,
            tuple(
                array[start : start + step]
                if array is not None and array.ndim and len(array) == rows
                else array
                for array in arrays
            ),
        )


def spread(rows: int, limit: int) -> slice:
    """At most ``limit`` rows, evenly spread over all of them."""
    return slice(None, None, max(1, math.ceil(rows / limit)))


@dataclass(frozen=True)
class Summary:
    """What one pass over an array tells. Statistics are of the finite values that count."""

    size: int
    finite: int
    nan: int
    infinite: int
    low: float
    high: float
    mean: float
    variance: float
    zeros: int
    negative: int
    outside_unit: int
    integral: bool
    labels: Any  # distinct values in order, None when there are very many
    label_counts: Any
    first_bad: tuple[int, ...] | None  # where the first non-finite value stands


def summarize(array: np.ndarray, counts: np.ndarray | None = None) -> Summary:
    """One pass in blocks. ``counts`` is True where a value counts, of the same leading shape."""
    size = finite = nan = infinite = zeros = negative = outside = 0
    low, high, total, squares = math.inf, -math.inf, 0.0, 0.0
    shift = None
    integral = True
    labels: dict[float, int] | None = {}
    bad: tuple[int, ...] | None = None
    for start, (block, keep) in blocks(array, counts):
        if keep is not None:
            block = _kept(block, keep)
        size += block.size
        if block.dtype.kind == "f":
            well = np.isfinite(block)
            if not well.all():
                nan += int(np.isnan(block).sum())
                infinite += int(np.isinf(block).sum())
                if bad is None and keep is None:
                    position = np.unravel_index(int(np.argmin(well)), block.shape)
                    bad = (start + int(position[0]), *map(int, position[1:])) if position else ()
                block = block[well]
        if not block.size:
            continue
        finite += block.size
        lowest, highest = float(block.min()), float(block.max())
        low, high = min(low, lowest), max(high, highest)
        shift = 0.5 * (lowest + highest) if shift is None else shift
        moved = (
            block.astype(np.float64) - shift
            if block.size < 2**16
            else block - block.dtype.type(shift)
        )
        total += float(moved.sum(dtype=np.float64))
        flat = moved.ravel()
        squares += float(np.dot(flat, flat))
        zeros += int(block.size - np.count_nonzero(block))
        if lowest < 0:
            negative += int((block < 0).sum())
        if lowest < 0 or highest > 1:
            outside += int(((block < 0) | (block > 1)).sum())
        if integral and block.dtype.kind == "f":
            integral = bool((block == np.rint(block)).all())
        if labels is not None:
            labels = _count_labels(labels, block) if integral else None
    mean_moved = total / finite if finite else math.nan
    variance = squares / finite - mean_moved * mean_moved if finite else math.nan
    if math.isnan(variance) and finite:
        variance = math.inf  # the squares are beyond the largest number
    return Summary(
        size,
        finite,
        nan,
        infinite,
        low,
        high,
        mean=mean_moved + (shift or 0.0),
        variance=max(0.0, variance) if finite else math.nan,
        zeros=zeros,
        negative=negative,
        outside_unit=outside,
        integral=integral and finite > 0,
        labels=np.array(sorted(labels)) if labels is not None else None,
        label_counts=np.array([labels[key] for key in sorted(labels)])
        if labels is not None
        else None,
        first_bad=bad,
    )


def _kept(block: np.ndarray, keep: np.ndarray) -> Any:
    if keep.shape == block.shape[: keep.ndim]:
        return block[keep.astype(bool)]
    return block[np.broadcast_to(keep.astype(bool), block.shape)]


def _count_labels(labels: dict[float, int], block: np.ndarray) -> dict[float, int] | None:
    found, times = np.unique(
        block[: MANY_LABELS * 4] if block.size > 2**22 else block, return_counts=True
    )
    if len(found) > MANY_LABELS:
        return None
    if block.size > 2**22:
        found, times = np.unique(block, return_counts=True)
    for value, count in zip(found.tolist(), times.tolist(), strict=True):
        labels[value] = labels.get(value, 0) + count
    return labels if len(labels) <= MANY_LABELS else None


def row_deviation(array: np.ndarray, axis: int, *, exponential: bool, tolerance: float) -> float:
    """The largest |Σ row − 1| over the class axis (of exp(row) if asked), up to tolerance."""
    worst = 0.0
    for _, (block,) in blocks(array):
        with np.errstate(over="ignore"):
            sums = (np.exp(block) if exponential else block).sum(axis=axis, dtype=np.float64)
        deviation = float(np.max(np.abs(sums - 1.0), initial=0.0))
        worst = max(worst, deviation) if deviation == deviation else math.inf
        if worst > tolerance:
            break
    return worst
