"""Losses whose largest intermediate is never whole: made of matrix products over slices of rows.

``on_torch`` and ``on_jax`` need nothing but the framework, and derive their gradients by hand, so
that no slice is kept for later; ``contrast_torch`` has the contrastive losses. Unlike the other
kernels they take arrays that no definition takes (a layer's weight): call them as they are.
"""

from __future__ import annotations

import importlib
from typing import Any

from lossary.contract import Array, LossError
from lossary.xp import library

_HOMES = {"torch": "on_torch", "jax": "on_jax"}


def linear_cross_entropy(hidden: Array, weight: Array, target: Array, **options: Any) -> Array:
    """A linear layer with softmax cross-entropy on torch or JAX arrays; see ``on_torch``."""
    where = library(hidden, weight, target)
    if where not in _HOMES:
        raise LossError(f"linear_cross_entropy: takes torch or JAX arrays, not {where}")
    home = importlib.import_module(f"lossary.kernels.chunked.{_HOMES[where]}")
    return home.linear_cross_entropy(hidden, weight, target, **options)
