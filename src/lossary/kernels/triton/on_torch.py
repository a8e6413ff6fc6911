"""Triton's kernels on torch tensors."""

from __future__ import annotations

from typing import Any

import torch

from lossary.contract import LossError
from lossary.kernels import Kernel, formulas, pointwise
from lossary.kernels.one_pass_torch import Arrays, OnePass, Tensor
from lossary.kernels.triton import available

_NAMES = {torch.float32: "float32", torch.float64: "float64"}


def kernel(loss: str) -> Kernel:
    """The Triton kernel of ``loss`` for torch."""
    return (_Pointwise if hasattr(formulas, loss) else _Softmax)(loss).kernel(from_size=0)


class _Triton(OnePass):
    toolchain = "triton"

    @property
    def devices(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("cuda", "cpu") if available.interpreted() else ("cuda",)

    def unavailable(self, device: str) -> str | None:
        return available.why_not()

    def run(
        self, arrays: Arrays, weights: Tensor | None, gradients: Arrays | None,
        values: Tensor | None, factor: float, parameters: Any,
    ) -> Tensor:  # fmt: skip
        prediction = arrays[0]
        into = gradients or (None,) * len(self.places)
        memory = (*(array.detach() for array in arrays), weights, *into, values)
        # In memory, for as an argument it would arrive in single precision.
        scale = torch.full((), factor, dtype=prediction.dtype, device=prediction.device)
        partial = self.launch(memory, scale, parameters)
        # Summed in double precision, pairwise, in an order that depends on nothing but the shape.
        return (partial.sum() * factor).to(prediction.dtype)

    def launch(self, arrays: tuple[Any, ...], factor: Tensor, parameters: Any) -> Tensor:
        """Fill gradient and values; the partial sums of the weighted values."""
        raise NotImplementedError


class _Pointwise(_Triton):
    def decline(self, arrays: Arrays, parameters: Any) -> str | None:
        shapes, dtypes = [tuple(x.shape) for x in arrays], [x.dtype for x in arrays]
        return pointwise.decline(self.loss, shapes, dtypes, parameters)

    def unit_axes(self, first: Tensor, parameters: Any) -> tuple[int, ...]:
        return ()

    def launch(self, arrays: tuple[Any, ...], factor: Tensor, parameters: Any) -> Tensor:
        from lossary.kernels.triton import pointwise as blocks

        prediction = arrays[0]
        size = prediction.numel()
        partial = prediction.new_empty(-(-size // blocks.BLOCK), dtype=torch.float64)
        if size:
            blocks.launch(
                self.loss, _NAMES[prediction.dtype], arrays, partial, size, factor,
                pointwise.numbers(self.loss, parameters),
            )  # fmt: skip
        return partial


class _Softmax(_Triton):
    """Softmax cross-entropy of class indices, class axis last."""

    def decline(self, arrays: Arrays, parameters: Any) -> str | None:
        prediction, target = arrays
        shape = tuple(prediction.shape)
        if not shape or shape[-1] == 0:
            return f"a prediction of shape {shape} has no classes"
        if parameters.get("axis", -1) % len(shape) != len(shape) - 1:
            return "the class axis is not the last"
        if target.dtype not in (torch.int32, torch.int64) or tuple(target.shape) != shape[:-1]:
            return "the target is not one class index per sample"
        return None

    def unit_axes(self, first: Tensor, parameters: Any) -> tuple[int, ...]:
        return (first.ndim - 1,)

    def launch(self, arrays: tuple[Any, ...], factor: Tensor, parameters: Any) -> Tensor:
        from lossary.kernels.triton import softmax

        prediction, target, weights = arrays[:3]
        classes = prediction.shape[-1]
        samples = target.numel()
        partial = prediction.new_empty(samples, dtype=torch.float64)
        outside = (target < 0) | (target >= classes)
        if weights is not None:
            outside &= weights != 0
        fault = (
            f"cross_entropy: a target's class index is not in 0..{classes - 1}; give such "
            "samples weight 0, or set ignore="
        )
        if prediction.is_cuda:  # the device stops before the kernel reads; the host does not wait
            torch._assert_async(~outside.any(), fault)
        elif bool(outside.any()):
            raise LossError(fault)
        vector = parameters.get("class_weights")
        if vector is not None:
            vector = torch.as_tensor(vector, dtype=prediction.dtype, device=prediction.device)
            vector = vector.detach().contiguous()
        if samples:
            softmax.launch(
                _NAMES[prediction.dtype], arrays, partial, samples, classes, factor, vector,
                float(parameters.get("label_smoothing", 0.0)),
            )  # fmt: skip
        return partial
