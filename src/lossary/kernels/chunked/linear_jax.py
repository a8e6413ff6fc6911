"""A linear layer with softmax cross-entropy, slice by slice in JAX, under ``jit`` or not.

The logits of a slice of rows are made once; a block of classes at a time they become slopes and are
multiplied into the gradients, so that beside one slice only blocks exist. The rule is one of
forward mode, whose tangent is linear in gradients made along with the value: JAX transposes it for
reverse mode, and differentiates, maps and compiles it further as it does its own operations.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lossary.contract import LossError

Array = jax.Array
BUDGET = 16 * 2**20  # bytes of logits that exist at a time, unless told otherwise
_BLOCK = 800  # classes: two blocks of the weight stand by; products of fewer are slower


class Options(NamedTuple):
    """What is fixed when a sweep is compiled; ``rows`` of a slice, ``classes`` of a block."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    rows: int = 128
    classes: int = 4096


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
    """As ``chunked.linear_torch.linear_cross_entropy``: shapes, options and errors are the same.

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
    labels = target.reshape(-1)
    counts = jnp.ones(labels.shape, bool) if ignore is None else labels != ignore
    wrong = outside(labels, counts, classes, f" (ignore={ignore})")
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    options = options_of(
        len(labels), classes, wide.itemsize, budget, label_smoothing, z_loss, softcap
    )
    return _reduced(hidden, weight, target, bias, class_weights, counts, wrong, options, reduction)


# Called without jit, a program for each operation would cost seconds. A graph around is unchanged.
@functools.partial(jax.jit, static_argnames=("options", "reduction"), inline=True)
def _reduced(
    hidden: Array, weight: Array, target: Array, bias: Array | None, class_weights: Array | None,
    counts: Array, wrong: Array, options: Options, reduction: str,
) -> Array:  # fmt: skip
    classes, features = weight.shape
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    offset = jnp.zeros((classes,), wide) if bias is None else bias
    share = jnp.ones((classes,), wide) if class_weights is None else class_weights.astype(wide)
    labels = jnp.where(counts, target.reshape(-1), 0)
    arrays = (hidden.reshape(-1, features), weight, offset, labels, share)
    if reduction == "none":
        values = jnp.where(counts, row_values(*arrays, options), 0.0)
        values = jnp.where(wrong, jnp.nan, values)
        return values.astype(hidden.dtype).reshape(target.shape)
    factor = counts.astype(wide)
    if reduction == "mean":
        whole = jnp.where(counts, share[labels], 0.0).sum()
        factor = factor / jnp.where(whole == 0, 1.0, whole)
    factor = jnp.where(wrong, jnp.nan, factor)
    return weighted_sum(*arrays, factor, options).astype(hidden.dtype)


def outside(labels: Array, counts: Array, classes: int, hint: str = "") -> Array:
    """Where an index that counts is no class; an error where it can be seen."""
    wrong = counts & ((labels < 0) | (labels >= classes))
    if not isinstance(wrong, jax.core.Tracer) and bool(wrong.any()):
        raise LossError(
            f"linear_cross_entropy: target {int(labels[wrong][0])} is not a class of "
            f"0..{classes - 1}{hint}"
        )
    return wrong


def options_of(
    rows: int, classes: int, width: int, budget: int, label_smoothing: float, z_loss: float,
    softcap: float | None,
) -> Options:  # fmt: skip
    """Slices of up to 128 to 512 rows, as the budget allows, and blocks of classes."""
    most = min(512, max(128, budget // (classes * width) // 128 * 128))
    return Options(label_smoothing, z_loss, softcap, even(rows, most), even(classes, _BLOCK))


def even(whole: int, most: int) -> int:
    """The size of the fewest parts of even size, at most ``most``: little is filled up."""
    parts = max(1, -(-whole // most))
    return max(1, -(-whole // parts))


def _logits(hidden: Array, weight: Array, offset: Array, options: Options) -> Array:
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    # (classes, rows): of the two matrices the small one is transposed, for XLA would copy it.
    logits = jnp.matmul(weight, hidden.T, preferred_element_type=wide) + offset[:, None]
    if options.softcap is not None:
        logits = options.softcap * jnp.tanh(logits / options.softcap)
    return logits


class _Rows(NamedTuple):
    """What the slopes of a slice need of whole rows; all of shape (rows,)."""

    value: Array
    high: Array
    ratio: Array  # of exp(z - high) in the slope
    at_own: Array  # the slope at the own class


def _statistics(logits: Array, target: Array, share: Array, options: Options) -> _Rows:
    """With S the sum of exp(z - high) and ``others`` that sum without the own class: the surprise
    is log1p(others) where the own class is the likeliest, else high - z_y + log(S). Nothing
    cancels, nor in the own slope, -others / S.
    """
    smoothing, classes = options.label_smoothing, logits.shape[0]
    limit = float(np.finfo(logits.dtype).max)
    high = jnp.clip(jax.lax.stop_gradient(logits).max(0), -limit, limit)
    own = jnp.take_along_axis(logits, target[None], 0)[0]
    sure = own == high
    high = jnp.where(sure, own, high)  # a constant in the derivative, unless it is the own one
    others, spread = _sums(logits, high, target, share, options)
    power = jnp.exp(own - high)
    total = others + power
    log_total = jnp.where(sure, jnp.log1p(others), jnp.log(jnp.where(sure, 2.0, total)))
    hit = (1 - smoothing) * share[target]
    value = hit * ((high - own) + log_total)
    extra: Any = 0.0
    at_own = -hit * others
    if smoothing:
        extra = smoothing * share.mean()
        value = value + smoothing / classes * spread + extra * log_total
    if options.z_loss:
        log_sum = high + log_total
        value = value + options.z_loss * log_sum**2
        extra = extra + 2 * options.z_loss * log_sum
    at_own = (at_own + extra * power) / total - smoothing / classes * share[target]
    return _Rows(value, high, (hit + extra) / total, at_own)


def _places(classes: int, width: int) -> tuple[Array, Array]:
    """Where each block begins, and the first class that counts in it.

    The last begins early enough to be whole.
    """
    first = jnp.arange(math.ceil(classes / width)) * width
    return jnp.minimum(first, classes - width), first


def _sums(
    logits: Array, high: Array, target: Array, share: Array, options: Options
) -> tuple[Array, Array]:
    """Sums of exp(z - high) over other classes than the own, and of share (high - z) over all."""

    def block(sums: Any, place: Any) -> Any:
        start, first = place
        index = start + jnp.arange(options.classes)[:, None]
        below = jax.lax.dynamic_slice_in_dim(logits, start, options.classes, 0) - high
        others = jnp.where((index < first) | (index == target), 0.0, jnp.exp(below)).sum(0)
        if not options.label_smoothing:
            return (sums[0] + others, sums[1]), None
        weights = jax.lax.dynamic_slice_in_dim(share, start, options.classes)[:, None]
        gap = jnp.where(index < first, 0.0, -weights * below).sum(0)
        return (sums[0] + others, sums[1] + gap), None

    begin = (jnp.zeros_like(high), jnp.zeros_like(high))
    return jax.lax.scan(block, begin, _places(len(logits), options.classes))[0]


def slices(array: Array, rows: int) -> Array:
    """(slices, rows, ...), the last one filled up with zeros."""
    short = -array.shape[0] % rows
    padded = jnp.pad(array, [(0, short), *[(0, 0)] * (array.ndim - 1)])
    return padded.reshape(-1, rows, *array.shape[1:])


@functools.partial(jax.jit, static_argnames="options", inline=True)
def row_values(
    hidden: Array, weight: Array, offset: Array, target: Array, share: Array, options: Options
) -> Array:
    """Unreduced values; their derivative makes the logits of a slice once more."""

    @jax.checkpoint
    def one(part: tuple[Array, Array]) -> Array:
        logits = _logits(part[0], weight, offset, options)
        return _statistics(logits, part[1], share, options).value

    values = jax.lax.map(one, (slices(hidden, options.rows), slices(target, options.rows)))
    return values.reshape(-1)[: hidden.shape[0]]


@functools.partial(jax.jit, static_argnames="options", inline=True)
def weighted_sum(
    hidden: Array, weight: Array, offset: Array, target: Array, share: Array, factor: Array,
    options: Options,
) -> Array:  # fmt: skip
    """The sum of ``factor`` times values; where it is 0, whatever stands there stays out."""
    return _weighted_sum(hidden, weight, offset, target, share, factor, options)


@functools.partial(jax.custom_jvp, nondiff_argnums=(6,))
def _weighted_sum(
    hidden: Array, weight: Array, offset: Array, target: Array, share: Array, factor: Array,
    options: Options,
) -> Array:  # fmt: skip
    hidden = jnp.where(factor[:, None] == 0, 0, hidden)
    return (factor * row_values(hidden, weight, offset, target, share, options)).sum()


@_weighted_sum.defjvp
def _weighted_sum_jvp(options: Options, primals: Any, tangents: Any) -> tuple[Array, Array]:
    total, values, gradients = _sweep_whole(*primals, options)
    moved = (tangents[0], tangents[1], tangents[2], tangents[5])
    tangent = sum(
        (gradient.astype(total.dtype) * by.astype(total.dtype)).sum()
        for gradient, by in zip((*gradients, values), moved, strict=True)
    )
    return total, tangent


def _sweep(
    hidden: Array, weight: Array, offset: Array, target: Array, share: Array, factor: Array,
    options: Options,
) -> tuple[Array, Array, tuple[Array, Array, Array]]:  # fmt: skip
    """(sum(factor x values), values, its gradients by hidden, weight and offset)."""
    wide = jnp.promote_types(weight.dtype, jnp.float32)
    classes, width = weight.shape[0], options.classes

    def one(sums: Any, part: Any) -> Any:
        rows, labels, pull = part
        rows = jnp.where(pull[:, None] == 0, 0, rows)
        logits = _logits(rows, weight, offset, options)
        row = _statistics(logits, labels, share, options)

        def block(gradients: Any, place: Any) -> Any:
            start, first = place
            by_rows, by_weight, by_offset = gradients
            z = jax.lax.dynamic_slice_in_dim(logits, start, width, 0)
            index = start + jnp.arange(width)[:, None]
            slope = jnp.exp(z - row.high) * row.ratio
            if options.label_smoothing:
                weights = jax.lax.dynamic_slice_in_dim(share, start, width)
                slope = slope - options.label_smoothing / classes * weights[:, None]
            slope = jnp.where(labels == index, row.at_own, slope)
            if options.softcap is not None:
                slope = slope * (1 - (z / options.softcap) ** 2)
            slope = jnp.where(index < first, 0.0, slope * pull)
            narrow = slope.astype(rows.dtype)
            near = jax.lax.dynamic_slice_in_dim(weight, start, width, 0)
            by_rows = by_rows + jnp.matmul(narrow.T, near, preferred_element_type=wide)
            by_weight = _add(
                by_weight, jnp.matmul(narrow, rows, preferred_element_type=wide), start
            )
            return (by_rows, by_weight, _add(by_offset, slope.sum(1), start)), None

        begin = (jnp.zeros(rows.shape, wide), *sums[1:])
        (by_rows, *others), _ = jax.lax.scan(block, begin, _places(classes, width))
        total = sums[0] + (pull * row.value).sum()
        return (total, *others), (by_rows.astype(hidden.dtype), row.value)

    start = (
        jnp.zeros((), factor.dtype), jnp.zeros(weight.shape, wide), jnp.zeros(offset.shape, wide)
    )  # fmt: skip
    parts = tuple(slices(array, options.rows) for array in (hidden, target, factor))
    (total, by_weight, by_offset), (by_hidden, values) = jax.lax.scan(one, start, parts)
    by_hidden = by_hidden.reshape(-1, hidden.shape[1])[: hidden.shape[0]]
    gradients = (by_hidden, by_weight.astype(weight.dtype), by_offset.astype(offset.dtype))
    return total, values.reshape(-1)[: hidden.shape[0]], gradients


@functools.partial(jax.custom_jvp, nondiff_argnums=(6,))
def _sweep_whole(*arguments: Any) -> Any:
    """``_sweep`` as one operation: linearised, a scan would keep what each step has seen."""
    return _sweep(*arguments)


@_sweep_whole.defjvp
def _sweep_whole_jvp(options: Options, primals: Any, tangents: Any) -> Any:
    return jax.jvp(functools.partial(_sweep, options=options), primals, tangents)


def _add(total: Array, more: Array, start: Array) -> Array:
    """``more`` added from ``start`` on: the rest of ``total`` stays where it is."""
    here = jax.lax.dynamic_slice_in_dim(total, start, more.shape[0], 0)
    return jax.lax.dynamic_update_slice_in_dim(total, here + more, start, 0)
