"""A linear layer with softmax cross-entropy slice by slice in JAX, under ``jit`` or not."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lossary.contract import LossError

Array = jax.Array
BUDGET = 64 * 2**20  # bytes of logits that exist at a time, unless told otherwise


class _Options(NamedTuple):
    label_smoothing: float
    z_loss: float
    softcap: float | None
    rows: int


def linear_cross_entropy(
    hidden: Array,
    weight: Array,
    target: Array,
    *,
    bias: Array | None = None,
    label_smoothing: float = 0.0,
    ignore: int | None = -100,
    class_weights: Array | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
    budget: int = BUDGET,
) -> Array:
    """As ``chunked.on_torch.linear_cross_entropy``: shapes, options and errors are the same.

    An index outside the classes cannot be seen under ``jit``; there its value is NaN.
    """
    features = hidden.shape[-1]
    if weight.ndim != 2 or weight.shape[1] != features or target.shape != hidden.shape[:-1]:
        raise LossError(
            f"linear_cross_entropy: hidden {hidden.shape}, weight {weight.shape} and target "
            f"{target.shape} do not fit; expected (..., features), (classes, features), (...)"
        )
    if reduction not in ("none", "sum", "mean"):
        raise LossError(f"linear_cross_entropy: reduction={reduction!r}; it can be none, sum, mean")
    classes = weight.shape[0]
    for name, vector in (("bias", bias), ("class_weights", class_weights)):
        if vector is not None and vector.shape != (classes,):
            raise LossError(
                f"linear_cross_entropy: {name} has shape {vector.shape}, expected ({classes},)"
            )
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    labels = target.reshape(-1)
    counts = jnp.ones(labels.shape, bool) if ignore is None else labels != ignore
    wrong = counts & ((labels < 0) | (labels >= classes))
    if not isinstance(wrong, jax.core.Tracer) and bool(wrong.any()):
        raise LossError(
            f"linear_cross_entropy: target {int(labels[wrong][0])} is not a class of "
            f"0..{classes - 1} (ignore={ignore})"
        )
    rows = max(1, min(labels.shape[0], max(128, budget // (classes * wide.itemsize))))
    options = _Options(label_smoothing, z_loss, softcap, rows)
    offset = jnp.zeros((classes,), wide) if bias is None else bias
    share = jnp.ones((classes,), wide) if class_weights is None else class_weights.astype(wide)
    labels = jnp.where(counts, labels, 0)
    arrays = (hidden.reshape(-1, features), weight, offset, labels, share)
    if reduction == "none":
        values = jnp.where(counts, _rows(*arrays, options), 0.0)
        values = jnp.where(wrong, jnp.nan, values)
        return values.astype(hidden.dtype).reshape(target.shape)
    factor = counts.astype(wide)
    if reduction == "mean":
        whole = jnp.where(counts, share[labels], 0.0).sum()
        factor = factor / jnp.where(whole == 0, 1.0, whole)
    total = jnp.where(wrong.any(), jnp.nan, _sum(*arrays, factor, options))
    return total.astype(hidden.dtype)


def _values(
    hidden: Array, weight: Array, offset: Array, target: Array, share: Array, options: _Options
) -> Array:
    """The values of one slice, by plain operations that JAX differentiates."""
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    logits = jnp.matmul(hidden, weight.T, preferred_element_type=wide) + offset
    if options.softcap is not None:
        logits = options.softcap * jnp.tanh(logits / options.softcap)
    hot = target[:, None] == jnp.arange(logits.shape[1])
    # softplus(log sum of the others - own): nothing cancels, in value or derivative.
    own = jnp.take_along_axis(logits, target[:, None], 1)[:, 0]
    others = jax.nn.logsumexp(jnp.where(hot, -jnp.inf, logits), axis=1)
    surprise = jnp.logaddexp(others - own, 0.0)
    value = (1 - options.label_smoothing) * share[target] * surprise
    if options.label_smoothing or options.z_loss:
        total = own + surprise
        if options.label_smoothing:
            spread = ((total[:, None] - logits) * share).mean(1)
            value = value + options.label_smoothing * spread
        value = value + options.z_loss * total**2
    return value


def _slices(array: Array, rows: int) -> Array:
    """(slices, rows, ...), the last one filled up with zeros."""
    short = -array.shape[0] % rows
    padded = jnp.pad(array, [(0, short), *[(0, 0)] * (array.ndim - 1)])
    return padded.reshape(-1, rows, *array.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _rows(
    hidden: Array, weight: Array, offset: Array, target: Array, share: Array, options: _Options
) -> Array:
    def one(part: tuple[Array, Array]) -> Array:
        return _values(part[0], weight, offset, part[1], share, options)

    values = jax.lax.map(one, (_slices(hidden, options.rows), _slices(target, options.rows)))
    return values.reshape(-1)[: hidden.shape[0]]


def _forward(
    hidden: Array, weight: Array, offset: Array, target: Array, share: Array, options: _Options
) -> tuple[Array, Any]:
    kept = (hidden, weight, offset, target, share)
    return _rows(hidden, weight, offset, target, share, options), kept


def _backward(options: _Options, kept: Any, upstream: Array) -> Any:
    hidden, weight, offset, target, share = kept
    return (*_sweep(hidden, weight, offset, target, share, upstream, options)[1], None, None)


def _sweep(
    hidden: Array, weight: Array, offset: Array, target: Array, share: Array, pull: Array,
    options: _Options,
) -> tuple[Array, tuple[Array, Array, Array]]:  # fmt: skip
    """sum(pull x values) and its gradients by hidden, weight and offset."""
    wide = jnp.promote_types(weight.dtype, jnp.float32)

    def one(sums: Any, part: Any) -> Any:
        rows, labels, factor = part
        values, pullback = jax.vjp(
            lambda h, w, b: _values(h, w, b, labels, share, options), rows, weight, offset
        )
        # Where nothing counts, whatever stands there stays out of the sum.
        total = sums[0] + jnp.where(factor == 0, 0.0, factor * values).sum()
        by_rows, by_weight, by_offset = pullback(factor)
        sums = (total, sums[1] + by_weight.astype(wide), sums[2] + by_offset.astype(wide))
        return sums, by_rows

    start = (
        jnp.zeros((), pull.dtype), jnp.zeros(weight.shape, wide), jnp.zeros(offset.shape, wide)
    )  # fmt: skip
    parts = tuple(_slices(array, options.rows) for array in (hidden, target, pull))
    (total, by_weight, by_offset), by_hidden = jax.lax.scan(one, start, parts)
    by_hidden = by_hidden.reshape(-1, hidden.shape[1])[: hidden.shape[0]]
    return total, (by_hidden, by_weight.astype(weight.dtype), by_offset.astype(offset.dtype))


_rows.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _sum(
    hidden: Array, weight: Array, offset: Array, target: Array, share: Array, factor: Array,
    options: _Options,
) -> Array:  # fmt: skip
    values = _rows(hidden, weight, offset, target, share, options)
    return jnp.where(factor == 0, 0.0, factor * values).sum()


def _sum_forward(*arguments: Any) -> tuple[Array, Any]:
    # The logits of a slice are at hand: its gradients now save a product of matrices later.
    return _sweep(*arguments)


def _sum_backward(options: _Options, gradients: Any, upstream: Array) -> Any:
    return (*(upstream.astype(g.dtype) * g for g in gradients), None, None, None)


_sum.defvjp(_sum_forward, _sum_backward)
