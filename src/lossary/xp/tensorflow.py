"""TensorFlow by the array API standard, as far as definitions need it (see ``vocabulary``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import tensorflow as tf

Tensor = Any
Axis = int | Sequence[int] | None

abs = tf.abs
cos = tf.cos
equal = tf.equal
exp = tf.exp
expm1 = tf.math.expm1
floor = tf.floor
isfinite = tf.math.is_finite
isnan = tf.math.is_nan
log = tf.math.log
log1p = tf.math.log1p
log_gamma = tf.math.lgamma
logical_and = tf.logical_and
logical_not = tf.logical_not
logical_or = tf.logical_or
matrix_transpose = tf.linalg.matrix_transpose
maximum = tf.maximum
minimum = tf.minimum
ones_like = tf.ones_like
sign = tf.sign
sqrt = tf.sqrt
square = tf.square
stop_gradient = tf.stop_gradient
tanh = tf.tanh
zeros_like = tf.zeros_like

bool = tf.bool
float32 = tf.float32
float64 = tf.float64
int32 = tf.int32
int64 = tf.int64


def isdtype(dtype: Any, kind: Any) -> Any:
    if isinstance(kind, tuple):
        return True in [isdtype(dtype, item) for item in kind]
    if kind == "real floating":
        return dtype.is_floating
    if kind == "complex floating":
        return dtype.is_complex
    if kind == "bool":
        return dtype == tf.bool
    if kind == "integral":
        return dtype.is_integer
    return dtype == kind


def finfo(dtype: Any) -> Any:
    return ml_dtypes.finfo(  # type: ignore[no-untyped-call]
        tf.as_dtype(getattr(dtype, "dtype", dtype)).as_numpy_dtype
    )


def astype(x: Tensor, dtype: Any, /, *, copy: Any = True) -> Tensor:
    return tf.cast(x, dtype)


def asarray(x: Any, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    return tf.convert_to_tensor(x, dtype=dtype)


def full_like(x: Tensor, value: Any) -> Tensor:
    return tf.ones_like(x) * tf.cast(value, x.dtype)


def arange(start: int, stop: int | None = None, step: int = 1, *, dtype: Any = None,
           device: Any = None) -> Tensor:  # fmt: skip
    if stop is None:
        start, stop = 0, start
    if stop is None:  # tf.range would be empty
        raise ValueError("the size of an axis is not known when the graph is built; fix it")
    return tf.range(start, stop, step, dtype=dtype or tf.int64)


def where(condition: Tensor, one: Any, other: Any) -> Tensor:
    return tf.where(condition, *_same_type(one, other))


def _same_type(one: Any, other: Any) -> tuple[Tensor, Tensor]:
    """A Python number takes the type of its partner."""
    kind = one.dtype if tf.is_tensor(one) else other.dtype if tf.is_tensor(other) else None
    return tf.convert_to_tensor(one, kind), tf.convert_to_tensor(other, kind)


def clip(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    # tf.clip_by_value passes NaN through on neither side; the two halves do.
    if low is not None:
        x = tf.maximum(x, tf.convert_to_tensor(low, x.dtype))
    if high is not None:
        x = tf.minimum(x, tf.convert_to_tensor(high, x.dtype))
    return x


def sum(x: Tensor, *, axis: Axis = None, keepdims: Any = False) -> Tensor:
    return tf.reduce_sum(x, axis, keepdims)


def mean(x: Tensor, *, axis: Axis = None, keepdims: Any = False) -> Tensor:
    return tf.reduce_mean(x, axis, keepdims)


def max(x: Tensor, *, axis: Axis = None, keepdims: Any = False) -> Tensor:
    return tf.reduce_max(x, axis, keepdims)


def min(x: Tensor, *, axis: Axis = None, keepdims: Any = False) -> Tensor:
    return tf.reduce_min(x, axis, keepdims)


def any(x: Tensor, *, axis: Axis = None, keepdims: Any = False) -> Tensor:
    return tf.reduce_any(x, axis, keepdims)


def all(x: Tensor, *, axis: Axis = None, keepdims: Any = False) -> Tensor:
    return tf.reduce_all(x, axis, keepdims)


def argmax(x: Tensor, *, axis: int | None = None, keepdims: Any = False) -> Tensor:
    index = tf.argmax(x, axis)
    return tf.expand_dims(index, axis) if keepdims else index


def argmin(x: Tensor, *, axis: int | None = None, keepdims: Any = False) -> Tensor:
    index = tf.argmin(x, axis)
    return tf.expand_dims(index, axis) if keepdims else index


def sort(x: Tensor, *, axis: int = -1, descending: Any = False) -> Tensor:
    return tf.sort(x, axis, "DESCENDING" if descending else "ASCENDING")


def argsort(x: Tensor, *, axis: int = -1, descending: Any = False) -> Tensor:
    return tf.argsort(x, axis, "DESCENDING" if descending else "ASCENDING", stable=True)


def cumulative_sum(x: Tensor, *, axis: int = -1) -> Tensor:
    return tf.cumsum(x, axis)


def matmul(one: Tensor, other: Tensor) -> Tensor:
    if other.shape.rank == 1:
        return tf.linalg.matvec(one, other)
    return tf.matmul(one, other)


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    # In a graph the batch may have no size yet; one unknown size follows from the others.
    return tf.reshape(x, [-1 if size is None else size for size in shape])


def broadcast_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    if None in tuple(shape):  # sizes that a graph does not know yet are those of x
        known = [1 if size is None else size for size in shape]
        return tf.broadcast_to(x, tf.broadcast_dynamic_shape(tf.shape(x), known))
    return tf.broadcast_to(x, shape)


def expand_dims(x: Tensor, *, axis: int = 0) -> Tensor:
    return tf.expand_dims(x, axis)


def squeeze(x: Tensor, axis: Axis) -> Tensor:
    return tf.squeeze(x, axis)


def concat(arrays: Sequence[Tensor], *, axis: int = 0) -> Tensor:
    return tf.concat(arrays, axis)


def stack(arrays: Sequence[Tensor], *, axis: int = 0) -> Tensor:
    return tf.stack(arrays, axis)


def unstack(x: Tensor, *, axis: int = 0) -> Sequence[Tensor]:
    return tf.unstack(x, axis=axis)


def permute_dims(x: Tensor, axes: Sequence[int]) -> Tensor:
    return tf.transpose(x, axes)


def moveaxis(x: Tensor, source: int, destination: int) -> Tensor:
    rank = x.shape.rank
    order = [axis for axis in range(rank) if axis != source % rank]
    order.insert(destination % rank, source % rank)
    return tf.transpose(x, order)


def take(x: Tensor, indices: Tensor, *, axis: int | None = None) -> Tensor:
    return tf.gather(x, indices, axis=axis)


def take_along_axis(x: Tensor, indices: Tensor, *, axis: int = -1) -> Tensor:
    rank = x.shape.rank
    if axis % rank == rank - 1:
        return tf.gather(x, indices, batch_dims=rank - 1)
    found = tf.gather(moveaxis(x, axis, -1), moveaxis(indices, axis, -1), batch_dims=rank - 1)
    return moveaxis(found, -1, axis)
