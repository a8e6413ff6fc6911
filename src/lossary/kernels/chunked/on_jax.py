"""The manifest's objects for JAX; they run inside its transformations, and out."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from lossary.kernels import Kernel
from lossary.kernels.chunked import contrast_jax, linear_jax

Array = jax.Array
FROM_SCORES = 1 << 20  # 1M to 16M scores: 1.1 to 3.3 times as quick, 0.9 to 1/17 of the memory


def kernel(loss: str) -> Kernel:
    """The sliced kernel of ``loss``."""
    if loss == "linear_cross_entropy":
        return Kernel(
            "chunked", loss, "jax", _linear_supports, _linear_values, _linear_sum,
            from_size=FROM_SCORES, size=_linear_scores, counted="scores", traced=True,
        )  # fmt: skip
    return Kernel(
        "chunked", loss, "jax", _contrast_supports,
        functools.partial(contrast_jax.values, loss),
        functools.partial(contrast_jax.scaled_sum, loss),
        from_size=FROM_SCORES, size=lambda first, *others: len(first) ** 2, counted="scores",
        traced=True,
    )  # fmt: skip


def _contrast_supports(first: Array, *others: Array, **parameters: Any) -> str | None:
    return None if first.ndim == 2 else f"the {first.ndim} dimensions are not (rows, features)"


def _linear_supports(hidden: Array, weight: Array, target: Array, **parameters: Any) -> str | None:
    return "there are no classes" if 0 in weight.shape else None


def _linear_scores(hidden: Array, weight: Array, target: Array) -> int:
    return math.prod(hidden.shape[:-1]) * weight.shape[0]


def _linear_arrays(
    hidden: Array, weight: Array, target: Array, counts: Array | None,
    class_weights: Array | None = None, **parameters: Any,
) -> tuple[Any, Array]:  # fmt: skip
    """(what a sweep takes, where an index that counts is no class)."""
    classes, labels = weight.shape[0], target.reshape(-1)
    counts = jnp.ones(labels.shape, bool) if counts is None else counts
    wrong = linear_jax.outside(labels, counts, classes)
    options = linear_jax.options_of(
        len(labels), classes, hidden.dtype.itemsize, linear_jax.BUDGET, **parameters
    )
    nothing, alike = jnp.zeros((classes,), hidden.dtype), jnp.ones((classes,), hidden.dtype)
    share = alike if class_weights is None else class_weights
    flat, safe = hidden.reshape(-1, hidden.shape[-1]), jnp.where(counts & ~wrong, labels, 0)
    return (flat, weight, nothing, safe, share, options), wrong


def _linear_values(hidden: Array, weight: Array, target: Array, **parameters: Any) -> Array:
    arrays, wrong = _linear_arrays(hidden, weight, target, None, **parameters)
    return jnp.where(wrong, jnp.nan, linear_jax.row_values(*arrays)).reshape(target.shape)


def _linear_sum(
    hidden: Array, weight: Array, target: Array, *, factor: Any, weights: Array | None = None,
    **parameters: Any,
) -> Array:  # fmt: skip
    pull = jnp.full((target.size,), factor, hidden.dtype)
    counts = None
    if weights is not None:
        pull, counts = pull * weights.reshape(-1), weights.reshape(-1) != 0
    (*arrays, options), wrong = _linear_arrays(hidden, weight, target, counts, **parameters)
    return linear_jax.weighted_sum(*arrays, jnp.where(wrong, jnp.nan, pull), options)
