"""Losses whose largest intermediate is never whole: made of matrix products over slices of rows.

They need nothing but the framework, and make their gradients slice by slice along with the value,
so that no slice is kept for later. ``Loss`` takes them from a size on, by the manifest; called as
they are, on torch or JAX arrays, they take more than ``Loss`` does: a layer's bias, SigLIP's scale
and bias when they are learned, a budget of memory. ``linear_torch`` and ``contrast_torch`` say what
each takes.
"""

from __future__ import annotations

import importlib
from typing import Any

from lossary.contract import Array, LossError
from lossary.xp import library


def linear_cross_entropy(hidden: Array, weight: Array, target: Array, **options: Any) -> Array:
    """A linear layer with softmax cross-entropy; see ``linear_torch.linear_cross_entropy``."""
    home = _home("linear_cross_entropy", "linear_{}", hidden, weight, target)
    return home.linear_cross_entropy(hidden, weight, target, **options)


def info_nce(queries: Array, keys: Array, **options: Any) -> Array:
    """InfoNCE, or CLIP's symmetric loss; see ``contrast_torch.info_nce``."""
    return _home("info_nce", "contrast_{}", queries, keys).info_nce(queries, keys, **options)


def siglip(queries: Array, keys: Array, **options: Any) -> Array:
    """The sigmoid loss of all pairs; see ``contrast_torch.siglip``."""
    return _home("siglip", "contrast_{}", queries, keys).siglip(queries, keys, **options)


def supervised_contrastive(prediction: Array, target: Array, **options: Any) -> Array:
    """Supervised contrastive loss; see ``contrast_torch.supervised_contrastive``."""
    home = _home("supervised_contrastive", "contrast_{}", prediction, target)
    return home.supervised_contrastive(prediction, target, **options)


def _home(name: str, module: str, *arrays: Array) -> Any:
    where = library(*arrays)
    if where not in ("torch", "jax"):
        raise LossError(f"{name}: takes torch or JAX arrays, not {where}")
    return importlib.import_module(f"lossary.kernels.chunked.{module.format(where)}")
