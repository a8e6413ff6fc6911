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
from lossary.kernels.chunked.linear_jax import even, slices
from lossary.numerics import unit_rows

Array = jax.Array
BUDGET = 16 * 2**20  # bytes of scores that exist at a time, unless told; more is no quicker
# (scores of rows, which are pairs of one, the rows' places or -1, extras) -> values
Values = Callable[[Array, Array, Array, Any], Array]


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

    Shapes (pairs, features); ``symmetric`` is CLIP's loss. ``reduction``: none, mean or sum.
    ``budget``: bytes of scores at a time. Errors: ``LossError``.
    """
    _check("info_nce", queries, keys, reduction)
    given = {"temperature": temperature, "symmetric": symmetric}
    return _reduced("info_nce", (queries, keys), reduction, given, budget)


def siglip(
    queries: Array,
    keys: Array,
    *,
    scale: Array | float = 10.0,
    bias: Array | float = -10.0,
    reduction: str = "mean",
    budget: int = BUDGET,
) -> Array:
    """``lossary.losses.contrastive.siglip`` without the matrix of all scores.

    ``scale`` and ``bias`` may be learned. Shapes (pairs, features); ``reduction`` over queries:
    none, mean or sum. Errors: ``LossError``.
    """
    _check("siglip", queries, keys, reduction)
    return _reduced("siglip", (queries, keys), reduction, {"scale": scale, "bias": bias}, budget)


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
    count = jnp.maximum((_others_of_class(target) > 0).sum(), 1)
    given = {"temperature": temperature}
    arrays = (prediction, target)
    return _reduced("supervised_contrastive", arrays, reduction, given, budget, count)


def _reduced(
    name: str, arrays: Any, reduction: str, given: Any, budget: int, count: Any = None
) -> Array:
    if reduction == "none":
        return values(name, *arrays, budget=budget, **given)
    units = max(len(arrays[0]), 1) if count is None else count
    factor = 1.0 / units if reduction == "mean" else 1.0
    return scaled_sum(name, *arrays, factor=factor, budget=budget, **given)


def _check(name: str, left: Array, right: Array, reduction: str) -> None:
    if left.ndim != 2 or left.shape != right.shape:
        raise LossError(
            f"{name}: queries {left.shape} and keys {right.shape} must both be (pairs, features)"
        )
    if reduction not in ("none", "mean", "sum"):
        raise LossError(f"{name}: reduction={reduction!r}; it can be none, mean or sum")
    if left.dtype not in (jnp.float32, jnp.float64):
        raise LossError(f"{name}: {left.dtype} embeddings; give float32 (scores need it)")


# -- what the manifest calls -----------------------------------------------------------------------

# Called without jit, a program for each operation would cost seconds. A graph around is unchanged.
_compiled = functools.partial(
    jax.jit, static_argnums=0, static_argnames=("symmetric", "budget"), inline=True
)


@_compiled
def scaled_sum(
    name: str, *arrays: Array, factor: Any, weights: Array | None = None, budget: int = BUDGET,
    **parameters: Any,
) -> Array:  # fmt: skip
    """``factor * sum(weights * values)`` of the loss of this name."""
    function, left, right, extras, step = _prepared(name, arrays, parameters, budget)
    pull = jnp.full((len(left),), factor, left.dtype)
    if weights is not None:
        pull = pull * weights.astype(left.dtype)
    return _sum(function, left, right, pull, extras, step)


@_compiled
def values(name: str, *arrays: Array, budget: int = BUDGET, **parameters: Any) -> Array:
    """One value per row; the derivative scores each slice once more."""
    function, left, right, extras, step = _prepared(name, arrays, parameters, budget)
    return _values(function, left, right, extras, step)


def _prepared(name: str, arrays: Any, parameters: Any, budget: int) -> Any:
    """(values of a slice, rows, what they are scored against, extras, rows of a slice)."""
    first, second = arrays
    most = max(128, budget // max(1, len(first) * first.dtype.itemsize))
    step = even(len(first), most)
    left = unit_rows(first)
    if name == "supervised_contrastive":
        extras = (second, _others_of_class(second))
        return _partners, left / parameters["temperature"], left, extras, step
    right = unit_rows(second)
    if name == "info_nce":
        way = _both_ways if parameters["symmetric"] else _one_way
        return way, left / parameters["temperature"], right, (), step
    # The bias rides along as one more feature, so its gradient needs no code of its own.
    left = left * parameters["scale"]
    offset = jnp.broadcast_to(jnp.asarray(parameters["bias"], left.dtype), (len(left), 1))
    left = jnp.concatenate([left, offset], 1)
    return _pairs, left, jnp.concatenate([right, jnp.ones_like(right[:, :1])], 1), (), step


@functools.partial(jax.jit, inline=True)
def _others_of_class(target: Array) -> Array:
    ordered = jnp.sort(target)
    return jnp.searchsorted(ordered, target, side="right") - jnp.searchsorted(ordered, target) - 1


# -- the values of one slice of rows ---------------------------------------------------------------


def _gap(scores: Array, own: Array, axis: int = 1) -> Array:
    """The log of the sum of the others' exponentials."""
    return jax.nn.logsumexp(jnp.where(own, -jnp.inf, scores), axis=axis)


def _one_way(scores: Array, own: Array, place: Array, extras: Any) -> Array:
    mine = jnp.where(own, scores, 0.0).sum(1)
    return jnp.logaddexp(_gap(scores, own) - mine, 0.0)


def _both_ways(scores: Array, own: Array, place: Array, extras: Any) -> Array:
    (columns,) = extras
    mine = jnp.where(own, scores, 0.0).sum(1)
    back = jnp.logaddexp(columns[place] - mine, 0.0)
    return 0.5 * (_one_way(scores, own, place, extras) + back)


def _pairs(scores: Array, own: Array, place: Array, extras: Any) -> Array:
    return jnp.logaddexp(jnp.where(own, -scores, scores), 0.0).sum(1)


def _partners(scores: Array, own: Array, place: Array, extras: Any) -> Array:
    label, partners = extras
    mine, many = label[place], partners[place]
    same = (mine[:, None] == label) & ~own
    alone = (many == 0) | (place < 0)
    total = _gap(jnp.where(alone[:, None], 0.0, scores), own)
    share = 1.0 / jnp.where(many == 0, 1, many).astype(scores.dtype)
    distance = jnp.where(same, total[:, None] - scores, 0.0).sum(1)
    # The only value that can vanish is that of a single partner.
    near = same | own
    usual = (many != 1) | alone | jnp.all(near, 1)
    strangers = _gap(jnp.where(usual[:, None], 0.0, scores), near & ~usual[:, None])
    single = jnp.logaddexp(strangers - jnp.where(same, scores, 0.0).sum(1), 0.0)
    values = jnp.where(usual, share * distance, single)
    return jnp.where(alone | jnp.all(near, 1) & (many == 1), 0.0, values)


# -- all slices ------------------------------------------------------------------------------------


def _places(n: int, step: int) -> Array:
    place = jnp.pad(jnp.arange(n), (0, -n % step), constant_values=-1)
    return place.reshape(-1, step)


def _scores(rows: Array, right: Array, place: Array) -> tuple[Array, Array]:
    """(scores, which are pairs of one); absent rows are at -1."""
    return rows @ right.T, place[:, None] == jnp.arange(len(right))


def _columns(left: Array, right: Array, step: int) -> Array:
    """The log of each column's sum of exp(score), its own pair left out."""

    @jax.checkpoint
    def one(sums: Array, part: Any) -> Any:
        rows, place = part
        scores, own = _scores(rows, right, place)
        found = _gap(scores, own | (place < 0)[:, None], axis=0)
        return jnp.logaddexp(sums, found), None

    start = jnp.full((len(right),), -jnp.inf, left.dtype)
    return jax.lax.scan(one, start, (slices(left, step), _places(len(left), step)))[0]


def _values(function: Values, left: Array, right: Array, extras: Any, step: int) -> Array:
    if function is _both_ways:
        extras = (_columns(left, right, step),)

    @jax.checkpoint
    def one(part: Any) -> Array:
        return function(*_scores(part[0], right, part[1]), part[1], extras)

    found = jax.lax.map(one, (slices(left, step), _places(len(left), step)))
    return found.reshape(-1)[: len(left)]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 5))
def _sum(function: Values, left: Array, right: Array, pull: Array, extras: Any, step: int) -> Array:
    """The sum of ``pull`` times values."""
    return (pull * _values(function, left, right, extras, step)).sum()


@_sum.defjvp
def _sum_jvp(function: Values, step: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    # Linear in gradients made along with the value: JAX transposes it for reverse mode.
    gradients = _sweep_whole(function, *primals, step)
    tangent = sum((g * by).sum() for g, by in zip(gradients, tangents[:3], strict=True))
    return (primals[2] * gradients[2]).sum(), tangent


def _sweep(
    function: Values, left: Array, right: Array, pull: Array, extras: Any, step: int
) -> tuple[Array, Array, Array]:
    """The gradients of the sum by left, right and pull; the last are the values."""
    both = function is _both_ways
    if both:
        extras = (_columns(left, right, step),)

    def one(by_right: Array, part: Any) -> Any:
        rows, place, factor = part
        scores, own = _scores(rows, right, place)
        found, pullback = jax.vjp(lambda s: function(s, own, place, extras), scores)
        (slopes,) = pullback(factor)
        if both:  # the slopes of the other rows' values: through the columns' sums
            (others,) = extras
            whole = jnp.logaddexp(others, (right * left).sum(1))
            through = 0.5 * pull * jnp.exp(scores - whole)
            slopes = slopes + jnp.where(own | (place < 0)[:, None], 0.0, through)
        return by_right + slopes.T @ rows, (slopes @ right, found)

    parts = (slices(left, step), _places(len(left), step), slices(pull, step))
    by_right, (by_left, found) = jax.lax.scan(one, jnp.zeros_like(right), parts)
    by_left = by_left.reshape(-1, left.shape[1])[: len(left)]
    return by_left, by_right, found.reshape(-1)[: len(left)]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 5))
def _sweep_whole(function: Values, *arguments: Any) -> Any:
    """``_sweep`` as one operation: linearised, a scan would keep what each step has seen."""
    return _sweep(function, *arguments)


@_sweep_whole.defjvp
def _sweep_whole_jvp(function: Values, step: int, primals: Any, tangents: Any) -> Any:
    return jax.jvp(functools.partial(_sweep, function, step=step), primals, tangents)
