# mypy: disable-error-code="no-untyped-call"
"""Compiled kernels on torch tensors: what runs, and how autograd sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

from lossary.contract import contract_of
from lossary.kernels import Kernel
from lossary.kernels.numba import available, memory
from lossary.kernels.numba.program import Program, from_size, program

_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.int64: "int64",
    torch.int32: "int32",
}
_PLAIN = (torch.Tensor, torch.nn.Parameter)
Tensor = torch.Tensor


def kernel(loss: str) -> Kernel:
    """The compiled kernel of ``loss`` for torch."""
    bound = _Bound(loss)
    return Kernel(
        "numba", loss, "torch", bound.supports, bound.values, bound.scaled_sum,
        bound.value_and_grad, from_size=from_size("torch", loss),
    )  # fmt: skip


def _transformed() -> str | None:
    if torch.compiler.is_compiling():
        return "torch.compile compiles the definition"
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transformation differentiates the definition"
    if forward_ad._current_level >= 0:
        return "forward-mode derivatives go through the definition"
    if torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None:
        return "a tracing mode looks at every operation"
    return None


def _strange(name: str, tensor: Tensor) -> str | None:
    if type(tensor) not in _PLAIN:
        return f"the {name} is a {type(tensor).__name__}"
    if tensor.device.type != "cpu":
        return f"the {name} is on {tensor.device}"
    if not tensor.is_contiguous():
        return f"the {name} is not contiguous"
    return None


class _Bound:
    """The calls of one loss."""

    def __init__(self, loss: str) -> None:
        self.loss = loss

    def supports(self, prediction: Tensor, target: Tensor, **parameters: Any) -> str | None:
        reason = (
            _strange("prediction", prediction)
            or _strange("target", target)
            or _transformed()
            or available.why_not()
        )
        if reason is not None:
            return reason
        if prediction.dtype not in (torch.float32, torch.float64):
            return f"the prediction is {str(prediction.dtype).removeprefix('torch.')}"
        if target.requires_grad:
            return "the target asks for a gradient too"
        return program(self.loss).decline(
            tuple(prediction.shape), _NAMES[prediction.dtype],
            tuple(target.shape), _NAMES.get(target.dtype, str(target.dtype)), parameters,
        )  # fmt: skip

    def values(self, prediction: Tensor, target: Tensor, **parameters: Any) -> Tensor:
        if torch.is_grad_enabled() and prediction.requires_grad:
            return _Values.apply(prediction, target, self, parameters)
        return self.run_values(prediction, target, parameters, gradient=False)[0]

    def scaled_sum(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        factor: float,
        weights: Tensor | None = None,
        **parameters: Any,
    ) -> Tensor:
        if weights is not None and (
            weights.requires_grad
            or weights.dtype != prediction.dtype
            or not weights.is_contiguous()
        ):
            # A gradient by the weights needs the values themselves.
            return self._composed(prediction, target, factor, weights, parameters)
        if torch.is_grad_enabled() and prediction.requires_grad:
            return _ScaledSum.apply(prediction, target, weights, self, factor, parameters)
        total, _ = self.run_sum(prediction, target, weights, factor, parameters, gradient=False)
        return torch.scalar_tensor(total, dtype=prediction.dtype)

    def value_and_grad(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        factor: float,
        weights: Tensor | None = None,
        **parameters: Any,
    ) -> tuple[Tensor, Tensor]:
        total, gradient = self.run_sum(
            prediction.detach(), target, weights, factor, parameters, gradient=True
        )
        return torch.scalar_tensor(total, dtype=prediction.dtype), gradient

    def _composed(
        self, prediction: Tensor, target: Tensor, factor: float, weights: Tensor, parameters: Any
    ) -> Tensor:
        values = self.values(prediction, target, **parameters)
        return factor * torch.where(weights == 0, 0.0, weights * values).sum()

    # -- memory in, memory out ------------------------------------------------------------------

    def run_sum(
        self, prediction: Tensor, target: Tensor, weights: Tensor | None, factor: float,
        parameters: Any, gradient: bool,
    ) -> tuple[float, Any]:  # fmt: skip
        slopes = memory.tensor(prediction) if gradient else None
        total = program(self.loss).launch(
            tuple(prediction.shape), _NAMES[prediction.dtype], _NAMES[target.dtype],
            prediction=prediction.data_ptr(), target=target.data_ptr(),
            weights=0 if weights is None else weights.data_ptr(),
            gradient=0 if slopes is None else slopes.data_ptr(), values=0,
            factor=factor, parameters=parameters,
        )  # fmt: skip
        return total, slopes

    def run_values(
        self, prediction: Tensor, target: Tensor, parameters: Any, gradient: bool
    ) -> tuple[Tensor, Any]:
        slopes = memory.tensor(prediction) if gradient else None
        plan = program(self.loss)
        values = memory.tensor(_unit(plan, prediction, parameters))
        plan.launch(
            tuple(prediction.shape), _NAMES[prediction.dtype], _NAMES[target.dtype],
            prediction=prediction.data_ptr(), target=target.data_ptr(), weights=0,
            gradient=0 if slopes is None else slopes.data_ptr(), values=values.data_ptr(),
            factor=1.0, parameters=parameters,
        )  # fmt: skip
        return values, slopes


def _unit(plan: Program, prediction: Tensor, parameters: Any) -> Tensor:
    """A tensor of the shape of the units; its numbers are not read."""
    axis = plan.unit_axis(parameters)
    if axis is None:
        return prediction
    return prediction.select(axis, 0) if prediction.shape[axis] else prediction.sum(axis)


def _through_definition(
    ctx: Any, upstream: Tensor, weights: Tensor | None, factor: float
) -> Tensor:
    """The gradient as a function that can be differentiated again."""
    prediction, target = ctx.saved_tensors[:2]
    kept, axis = prediction, program(ctx.bound.loss).unit_axis(ctx.parameters)
    if weights is not None:
        # Absent units are blanked first: a NaN there would reach the derivative through 0 * NaN.
        present = weights != 0
        whole = present if axis is None else present.unsqueeze(axis)
        kept = torch.where(whole, prediction, 0.0)
        target = torch.where(whole if target.ndim == prediction.ndim else present, target, 0)
        upstream = upstream * weights
    values = contract_of(ctx.bound.loss).compute(kept, target, **ctx.parameters)
    (gradient,) = torch.autograd.grad(
        (values * upstream).sum() * factor, prediction, create_graph=True
    )
    return gradient


class _ScaledSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, prediction: Tensor, target: Tensor, weights: Tensor | None, bound: _Bound,
        factor: float, parameters: Any,
    ) -> Tensor:  # fmt: skip
        total, ctx.gradient = bound.run_sum(
            prediction, target, weights, factor, parameters, gradient=True
        )
        ctx.bound, ctx.scale, ctx.parameters = bound, factor, parameters
        ctx.save_for_backward(prediction, target, weights)
        return torch.scalar_tensor(total, dtype=prediction.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        nothing = (None,) * 5
        if torch.is_grad_enabled():
            weights = ctx.saved_tensors[2]
            return (_through_definition(ctx, upstream, weights, ctx.scale), *nothing)
        # Handed out once, so that autograd may keep it without a copy; then computed again.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            prediction, target, weights = ctx.saved_tensors
            _, gradient = ctx.bound.run_sum(
                prediction, target, weights, ctx.scale, ctx.parameters, gradient=True
            )
        factor = upstream.item()
        return (gradient if factor == 1.0 else gradient.mul_(factor), *nothing)


class _Values(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, prediction: Tensor, target: Tensor, bound: _Bound, parameters: Any
    ) -> Tensor:
        values, ctx.gradient = bound.run_values(prediction, target, parameters, gradient=True)
        ctx.bound, ctx.parameters = bound, parameters
        ctx.save_for_backward(prediction, target)
        return values

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        nothing = (None,) * 3
        if torch.is_grad_enabled():
            return (_through_definition(ctx, upstream, None, 1.0), *nothing)
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            prediction, target = ctx.saved_tensors
            _, gradient = ctx.bound.run_values(prediction, target, ctx.parameters, gradient=True)
        axis = program(ctx.bound.loss).unit_axis(ctx.parameters)
        return (gradient.mul_(upstream if axis is None else upstream.unsqueeze(axis)), *nothing)
