"""torch's fused losses; chosen for small tensors, where a Python-level gradient costs more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lossary.kernels import Kernel

Tensor = torch.Tensor

# The loss of the same meaning; its parameters bear torch's names too. Each is what the function of
# torch.nn.functional ends in: the shapes are known to be equal here, and to broadcast them there
# takes as long as the loss.
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "squared_error": torch._C._nn.mse_loss,
    "absolute_error": torch._C._nn.l1_loss,
    "huber": torch._C._nn.huber_loss,
    "smooth_l1": torch._C._nn.smooth_l1_loss,
}
_NONE, _MEAN, _SUM = range(3)  # reductions as those operations number them


def kernel(loss: str) -> Kernel:
    """torch's own implementation of ``loss``."""
    bound = _Bound(loss)
    return Kernel(
        "native", loss, "torch", bound.supports, bound.values, bound.scaled_sum,
        ready=_always, prepare=bound.prepare, skips=True,
    )  # fmt: skip


def _always(prediction: Tensor, target: Tensor) -> bool:
    return True


class _Bound:
    def __init__(self, loss: str) -> None:
        self.loss = loss
        self.function = FUNCTIONS[loss]

    def supports(self, prediction: Tensor, target: Tensor, **parameters: Any) -> str | None:
        if prediction.dtype != target.dtype or prediction.shape != target.shape:
            return "prediction and target differ in shape or dtype"
        if prediction.dtype not in (torch.float32, torch.float64):
            return f"the prediction is {str(prediction.dtype).removeprefix('torch.')}"
        return "half has no fused operation" if parameters.get("half") else None

    def values(
        self, prediction: Tensor, target: Tensor, *, weights: Tensor | None = None,
        **parameters: Any,
    ) -> Tensor:  # fmt: skip
        parameters.pop("half", None)
        if weights is not None:
            # Blanked, not multiplied by 0: a NaN where nothing counts must not come through.
            kept = weights != 0
            prediction = torch.where(kept, prediction, 0.0)
            target = torch.where(kept, target, 0.0)
        return self.function(prediction, target, _NONE, **parameters)

    def prepare(
        self, prediction: Tensor, target: Tensor, *, factor: float | None, **parameters: Any
    ) -> Callable[[Tensor, Tensor], Tensor]:
        parameters.pop("half", None)
        function, more = self.function, tuple(parameters.values())
        if factor is None:
            return lambda prediction, target: function(prediction, target, _NONE, *more)
        if factor * prediction.numel() == 1.0:
            return lambda prediction, target: function(prediction, target, _MEAN, *more)
        return lambda prediction, target: factor * function(prediction, target, _SUM, *more)

    def scaled_sum(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        factor: float,
        weights: Tensor | None = None,
        **parameters: Any,
    ) -> Tensor:
        if weights is not None:
            values = self.values(prediction, target, weights=weights, **parameters)
            return factor * (weights * values).sum()
        parameters.pop("half", None)
        if factor * prediction.numel() == 1.0:
            return self.function(prediction, target, _MEAN, **parameters)
        return factor * self.function(prediction, target, _SUM, **parameters)
