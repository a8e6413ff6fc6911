"""Contrastive losses in JAX with memory linear in the batch, under ``jit`` or not.

A slice of rows at a time is scored against all the others, and its gradients are made while its
scores are at hand; a scan keeps what one slice needs. Shapes, options and errors are those of
``contrast_torch``; where that keeps the whole matrix within a budget, this always scores anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lossary.contract import LossError
from lossary.kernels.chunked.on_jax import BUDGET, _slices, linear_cross_entropy
from lossary.numerics import unit_rows

Array = jax.Array
# (rows of left, right, the rows' places, extras) -> a scalar whose gradients are wanted
SliceLoss = Callable[[Array, Array, Array, Any], Array]


def info_nce(
    queries: Array,
    keys: Array,
    *,
    temperature: float = 0.05,
    symmetric: bool = False,
    reduction: str = "mean",
    budget: int = BUDGET,
) -> Array:
    """``lossary.losses.contrastive.info_nce`` without the matrix of all scores.

    Shapes (pairs, features); ``symmetric`` is CLIP's loss. ``reduction``: mean or sum. ``budget``:
    bytes of scores at a time. Errors: ``LossError``.
    """
    _check("info_nce", queries, keys, reduction)
    left, right = unit_rows(queries) / temperature, unit_rows(keys)
    n = len(queries)
    if not symmetric:
        own = jnp.arange(n)
        return linear_cross_entropy(
            left, right, own, ignore=None, reduction=reduction, budget=budget
        )
    step = _step(n, left.dtype.itemsize, budget)
    others = jax.lax.stop_gradient(_columns(left, right, step))
    own = (left * right).sum(1)
    # The columns' surprises are values; their gradients come with the rows', slice by slice.
    gap = others - jax.lax.stop_gradient(own)
    by_column = jnp.logaddexp(gap, 0.0).sum()
    whole = others - gap + jnp.logaddexp(gap, 0.0)
    extras = (whole, jnp.exp(others - whole))
    rows = _sum(_both_ways, left, right, extras, step)
    # ``rows`` holds a term for the columns' gradients whose value is not wanted.
    unwanted = jax.lax.stop_gradient(rows - _sum(_one_way, left, right, (), step))
    return (0.5 * by_column + rows - unwanted) / (n if reduction == "mean" else 1)


def siglip(
    queries: Array,
    keys: Array,
    *,
    scale: Array | float = 10.0,
    bias: Array | float = -10.0,
    reduction: str = "mean",
    budget: int = BUDGET,
) -> Array:
    """Binary cross-entropy of every pair, ``scale * cosine + bias`` against own or not (Zhai 2023).

    Summed over a query's pairs; ``reduction`` over queries: mean or sum. ``scale`` and ``bias`` may
    be learned. Shapes (pairs, features). Errors: ``LossError``.
    """
    _check("siglip", queries, keys, reduction)
    left, right = unit_rows(queries) * scale, unit_rows(keys)
    # The bias rides along as one more feature, so its gradient needs no code of its own.
    offset = jnp.broadcast_to(jnp.asarray(bias, left.dtype), (len(left), 1))
    left = jnp.concatenate([left, offset], 1)
    right = jnp.concatenate([right, jnp.ones_like(right[:, :1])], 1)
    step = _step(len(right), left.dtype.itemsize, budget)
    whole = _sum(_pairs, left, right, (), step)
    return whole / (len(left) if reduction == "mean" else 1)


def supervised_contrastive(
    prediction: Array,
    target: Array,
    *,
    temperature: float = 0.07,
    reduction: str = "mean",
    budget: int = BUDGET,
) -> Array:
    """``lossary.losses.contrastive.supervised_contrastive`` without the matrix of all scores.

    Shapes (samples, features) and (samples,); the mean is over samples that share their label with
    another. Errors: ``LossError``.
    """
    _check("supervised_contrastive", prediction, prediction, reduction)
    if target.shape != prediction.shape[:1]:
        raise LossError(
            f"supervised_contrastive: target has shape {target.shape}, expected "
            f"({len(prediction)},)"
        )
    rows = unit_rows(prediction)
    ordered = jnp.sort(target)
    sizes = jnp.searchsorted(ordered, target, side="right") - jnp.searchsorted(ordered, target)
    partners = sizes - 1
    step = _step(len(rows), rows.dtype.itemsize, budget)
    whole = _sum(_partners, rows / temperature, rows, (target, partners), step)
    count = jnp.maximum((partners > 0).sum(), 1)
    return whole / (count if reduction == "mean" else 1)


def _check(name: str, left: Array, right: Array, reduction: str) -> None:
    if left.ndim != 2 or left.shape != right.shape:
        raise LossError(
            f"{name}: queries {left.shape} and keys {right.shape} must both be (pairs, features)"
        )
    if reduction not in ("mean", "sum"):
        raise LossError(f"{name}: reduction={reduction!r}; it can be mean or sum")
    if left.dtype not in (jnp.float32, jnp.float64):
        raise LossError(f"{name}: {left.dtype} embeddings; give float32 (scores need it)")


def _step(columns: int, width: int, budget: int) -> int:
    return max(1, min(columns, max(128, budget // (columns * width))))


# -- the loss of one slice of rows -----------------------------------------------------------------


def _scored(rows: Array, right: Array, place: Array) -> tuple[Array, Array, Array]:
    """(scores, which are pairs of one, 1 for rows that are there); absent rows are at -1."""
    scores = rows @ right.T
    own = place[:, None] == jnp.arange(len(right))
    return scores, own, (place >= 0).astype(scores.dtype)


def _one_way(rows: Array, right: Array, place: Array, extras: Any) -> Array:
    scores, own, there = _scored(rows, right, place)
    gap = jax.nn.logsumexp(jnp.where(own, -jnp.inf, scores), axis=1)
    gap = gap - jnp.where(own, scores, 0.0).sum(1)
    return 0.5 * (there * jnp.logaddexp(gap, 0.0)).sum()


def _both_ways(rows: Array, right: Array, place: Array, extras: Any) -> Array:
    whole, missed = extras
    scores, own, there = _scored(rows, right, place)
    # The columns' slopes: softmax off the diagonal, p - 1 on it; constants here.
    slope = jnp.exp(jax.lax.stop_gradient(scores) - whole)
    slope = there[:, None] * jnp.where(own, -missed, slope)
    return _one_way(rows, right, place, ()) + 0.5 * (slope * scores).sum()


def _pairs(rows: Array, right: Array, place: Array, extras: Any) -> Array:
    scores, own, there = _scored(rows, right, place)
    return (there[:, None] * jnp.logaddexp(jnp.where(own, -scores, scores), 0.0)).sum()


def _partners(rows: Array, right: Array, place: Array, extras: Any) -> Array:
    label, partners = extras
    scores, own, there = _scored(rows, right, place)
    mine, many = label[place], partners[place]
    same = (mine[:, None] == label) & ~own
    alone = (many == 0) | (there == 0)
    scores = jnp.where(own, -jnp.inf, scores)
    total = jax.nn.logsumexp(jnp.where(alone[:, None], 0.0, scores), axis=1)
    share = 1.0 / jnp.where(many == 0, 1, many).astype(scores.dtype)
    distance = jnp.where(same, total[:, None] - jnp.where(own, 0.0, scores), 0.0).sum(1)
    return jnp.where(alone, 0.0, share * distance).sum()


# -- all slices ------------------------------------------------------------------------------------


def _columns(left: Array, right: Array, step: int) -> Array:
    """The log of each column's sum of exp(score), its own pair left out."""

    def one(sums: Array, part: Any) -> Any:
        rows, place = part
        scores, own, there = _scored(rows, right, place)
        absent = own | (there == 0)[:, None]
        found = jax.nn.logsumexp(jnp.where(absent, -jnp.inf, scores), axis=0)
        return jnp.logaddexp(sums, found), None

    start = jnp.full((len(right),), -jnp.inf, left.dtype)
    left, right = jax.lax.stop_gradient((left, right))
    return jax.lax.scan(one, start, (_slices(left, step), _places(len(left), step)))[0]


def _places(n: int, step: int) -> Array:
    place = jnp.pad(jnp.arange(n), (0, -n % step), constant_values=-1)
    return place.reshape(-1, step)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 4))
def _sum(function: SliceLoss, left: Array, right: Array, extras: Any, step: int) -> Array:
    """The sum of ``function`` over slices of rows."""

    def one(total: Array, part: Any) -> Any:
        return total + function(part[0], right, part[1], extras), None

    parts = (_slices(left, step), _places(len(left), step))
    return jax.lax.scan(one, jnp.zeros((), left.dtype), parts)[0]


def _sum_forward(function: SliceLoss, left: Array, right: Array, extras: Any, step: int) -> Any:
    def one(sums: Any, part: Any) -> Any:
        value, pullback = jax.vjp(lambda r, k: function(r, k, part[1], extras), part[0], right)
        by_rows, by_right = pullback(jnp.ones_like(value))
        return (sums[0] + value, sums[1] + by_right), by_rows

    start = (jnp.zeros((), left.dtype), jnp.zeros_like(right))
    parts = (_slices(left, step), _places(len(left), step))
    (total, by_right), by_left = jax.lax.scan(one, start, parts)
    by_left = by_left.reshape(-1, left.shape[1])[: len(left)]
    return total, (by_left, by_right)


def _sum_backward(function: SliceLoss, step: int, gradients: Any, upstream: Array) -> Any:
    by_left, by_right = gradients
    return upstream * by_left, upstream * by_right, None


_sum.defvjp(_sum_forward, _sum_backward)
