"""Losses of the kind that people write: broken ones, and correct ones that look alike."""

# ruff: noqa: D103 - the names of these losses say what they are

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "batch_dice",
    "branches_on_values",
    "changes_its_input",
    "forgets_delta",
    "image_dice",
    "leaves_its_input",
    "log_with_half_epsilon",
    "log_with_tiny_epsilon",
    "masked_mean_over_all",
    "masked_rightly",
    "masked_wrongly",
    "smooth_l1_called_huber",
    "torch_clamped",
    "torch_float_sum",
    "torch_half_sum",
    "torch_info_nce",
    "torch_kl",
    "torch_root_error",
    "torch_safe_root_error",
    "uses_delta",
]


def on_torch(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Run a loss on torch tensors although NumPy arrays come."""
    loss.__lossary_library__ = "torch"  # type: ignore[attr-defined]
    return loss


def batch_dice(prediction: Any, target: Any) -> Any:
    return 1 - 2 * (prediction * target).sum() / (prediction.sum() + target.sum())


def image_dice(prediction: Any, target: Any) -> Any:
    inside = (prediction * target).reshape(len(target), -1).sum(-1)
    sizes = prediction.reshape(len(target), -1).sum(-1) + target.reshape(len(target), -1).sum(-1)
    return (1 - 2 * inside / sizes).mean()


def masked_wrongly(prediction: Any, target: Any, mask: Any) -> Any:
    return ((prediction - target * mask) ** 2).sum() / mask.sum()


def masked_rightly(prediction: Any, target: Any, mask: Any) -> Any:
    return (((prediction - target) * mask) ** 2).sum() / mask.sum()


def masked_mean_over_all(prediction: Any, target: Any, mask: Any) -> Any:
    return (((prediction - target) * mask) ** 2).mean()


def forgets_delta(prediction: Any, target: Any, delta: float = 1.0) -> Any:
    return abs(prediction - target).mean()


def uses_delta(prediction: Any, target: Any, delta: float = 1.0) -> Any:
    distance = abs(prediction - target)
    near = distance.clip(None, delta)
    return (near * (distance - 0.5 * near)).mean()


def smooth_l1_called_huber(prediction: Any, target: Any, delta: float = 1.0) -> Any:
    return uses_delta(prediction, target, delta) / delta


def changes_its_input(prediction: Any, target: Any) -> Any:
    prediction -= target
    return (prediction**2).mean()


def leaves_its_input(prediction: Any, target: Any) -> Any:
    prediction = prediction - target
    return (prediction**2).mean()


def branches_on_values(prediction: Any, target: Any) -> Any:
    if (target < 0).any():
        prediction = prediction - 1.0
    return ((prediction - target) ** 2).mean()


def log_with_tiny_epsilon(prediction: Any, target: Any) -> Any:
    epsilon = np.asarray(1e-8, prediction.dtype)
    return -(
        target * np.log(prediction + epsilon) + (1 - target) * np.log(1 - prediction + epsilon)
    ).mean()


def log_with_half_epsilon(prediction: Any, target: Any) -> Any:
    epsilon = np.asarray(2.5e-4, prediction.dtype)
    return -(
        target * np.log(prediction + epsilon) + (1 - target) * np.log(1 - prediction + epsilon)
    ).mean()


def torch_kl(reduction: str = "batchmean") -> Any:
    import torch

    return torch.nn.KLDivLoss(reduction=reduction)


@on_torch
def torch_info_nce(anchor: Any, positive: Any) -> Any:
    import torch

    scores = (
        torch.nn.functional.normalize(anchor, dim=1)
        @ torch.nn.functional.normalize(positive, dim=1).T
    )
    return torch.nn.functional.cross_entropy(scores / 0.1, torch.arange(len(anchor)))


@on_torch
def torch_root_error(prediction: Any, target: Any) -> Any:
    return ((prediction - target) ** 2).mean().sqrt()


@on_torch
def torch_safe_root_error(prediction: Any, target: Any) -> Any:
    return (((prediction - target) ** 2).mean() + 1e-12).sqrt()


@on_torch
def torch_clamped(prediction: Any, target: Any) -> Any:
    inside = prediction.clamp(1e-7, 1 - 1e-7)
    return -(target * inside.log() + (1 - target) * (1 - inside).log()).mean()


@on_torch
def torch_half_sum(prediction: Any, target: Any) -> Any:
    total = prediction.new_zeros(())
    for error in (prediction - target) ** 2:
        total = total + error  # every partial sum is rounded to half precision
    return total / len(target)


@on_torch
def torch_float_sum(prediction: Any, target: Any) -> Any:
    return ((prediction.float() - target.float()) ** 2).mean()
