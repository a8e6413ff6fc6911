"""torch's fused losses; chosen for small tensors, where a Python-level gradient costs more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lossary.kernels import Kernel
from lossary.kernels.numba.program import NoSuchClassError
from lossary.kernels.transforms_torch import transformed, undisturbed

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
_nll_loss: Any = torch._C._nn.nll_loss_nd
_NONE, _MEAN, _SUM = range(3)  # reductions as those operations number them
_NOTHING = -(2**63)  # a class index to ignore where none is ignored


def kernel(loss: str) -> Kernel:
    """torch's own implementation of ``loss``."""
    bound = _Elementwise(loss) if loss in FUNCTIONS else _OfLogProbabilities(loss)
    return Kernel(
        "native", loss, "torch", bound.supports, bound.values, bound.scaled_sum,
        below=bound.below, size=bound.size, counted=bound.counted,
        ready=bound.ready, prepare=bound.prepare, skips=True, device=bound.device,
    )  # fmt: skip


class _Elementwise:
    below, counted = 1 << 17, "elements in one piece"
    device: str | None = None

    def __init__(self, loss: str) -> None:
        self.function = FUNCTIONS[loss]

    def size(self, prediction: Tensor, target: Tensor) -> int:
        """Of what torch's own loops are not left to: gaps they read, others copy them first."""
        whole = prediction.is_contiguous() and target.is_contiguous()
        return prediction.numel() if whole and prediction.is_cpu else 0

    def ready(self, prediction: Tensor, target: Tensor) -> bool:
        return True

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


class _OfLogProbabilities:
    """Cross-entropy of (samples, classes) and class indices."""

    # Reading one number from anywhere, and clearing the gradient: by then several threads pay.
    below, counted = 1 << 14, "samples and 256ths of numbers"
    device: str | None = "cpu"
    ready = staticmethod(undisturbed)

    def __init__(self, loss: str) -> None:
        self.loss = loss.partition("_of_")[0]

    def size(self, prediction: Tensor, target: Tensor) -> int:
        return target.numel() + prediction.numel() // 256

    def supports(self, prediction: Tensor, target: Tensor, **parameters: Any) -> str | None:
        last = parameters.get("axis", -1) in (-1, 1)
        if prediction.ndim != 2 or not last or prediction.shape[1] == 0:
            return f"a prediction of shape {tuple(prediction.shape)} is not (samples, classes)"
        if prediction.dtype not in (torch.float32, torch.float64):
            return f"the prediction is {str(prediction.dtype).removeprefix('torch.')}"
        if target.dtype != torch.int64 or target.shape != prediction.shape[:1]:
            return "the target does not hold one int64 for each sample"
        if parameters.get("label_smoothing", 0.0) != 0.0:
            return "label smoothing has no fused operation"
        of_class = parameters.get("class_weights")
        if of_class is not None and not bool((of_class != 0).all()):
            return "a class of weight 0 would make NaN of an infinite surprise"
        return transformed()

    def values(
        self, prediction: Tensor, target: Tensor, *, weights: Tensor | None = None,
        class_weights: Tensor | None = None, ignore: int = _NOTHING, **parameters: Any,
    ) -> Tensor:  # fmt: skip
        if weights is not None:
            target = torch.where(weights != 0, target, ignore)
        return self.run(prediction, target, class_weights, _NONE, ignore)

    def run(
        self, prediction: Tensor, target: Tensor, class_weights: Tensor | None, reduction: int,
        ignore: int,
    ) -> Tensor:  # fmt: skip
        try:
            return _nll_loss(prediction, target, class_weights, reduction, ignore)  # type: ignore[no-any-return]
        except IndexError:
            raise self.no_such_class(prediction, target, ignore) from None

    def no_such_class(self, prediction: Tensor, target: Tensor, ignore: int) -> NoSuchClassError:
        classes = prediction.shape[1]
        wrong = ((target < 0) | (target >= classes)) & (target != ignore)
        return NoSuchClassError(self.loss, int(wrong.nonzero()[0]), classes)

    def scaled_sum(
        self, prediction: Tensor, target: Tensor, *, factor: float, weights: Tensor | None = None,
        class_weights: Tensor | None = None, **parameters: Any,
    ) -> Tensor:  # fmt: skip
        if weights is None:
            return factor * self.run(prediction, target, class_weights, _SUM, _NOTHING)
        values = self.values(prediction, target, weights=weights, class_weights=class_weights)
        return factor * (weights * values).sum()

    def prepare(
        self, prediction: Tensor, target: Tensor, *, factor: float | None,
        ignore: float | None = None, divisor: str | None = None,
        class_weights: Tensor | None = None, **parameters: Any,
    ) -> Callable[..., Tensor]:  # fmt: skip
        samples, run = prediction.shape[0], self.run
        index = int(ignore) if ignore is not None and float(ignore).is_integer() else _NOTHING
        if factor is None:
            return lambda prediction, target: run(prediction, target, class_weights, _NONE, index)
        # What torch divides a mean by.
        behind = "count" if class_weights is None else "weight"
        alike = class_weights is None and ignore is None and divisor is None
        if divisor != behind and not (alike and factor * samples == 1.0):

            def scaled(prediction: Tensor, target: Tensor) -> Tensor:
                total = run(prediction, target, class_weights, _SUM, index)
                if divisor is None:
                    return factor * total
                return total / max(int((target != index).sum()), 1)

            return scaled

        def mean(prediction: Tensor, target: Tensor) -> Tensor:
            try:  # not by ``run``: half of a small call is what it calls
                value: Tensor = _nll_loss(prediction, target, class_weights, _MEAN, index)
            except IndexError:
                raise self.no_such_class(prediction, target, index) from None
            number = value.item()
            if number != number:  # perhaps of nothing
                total = run(prediction, target, class_weights, _SUM, index)
                return total if total.item() == 0.0 else value
            return value

        return mean
