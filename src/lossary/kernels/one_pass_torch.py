# mypy: disable-error-code="no-untyped-call"
"""Kernels of torch that make the value and its slopes in one pass, as autograd sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from lossary.kernels import Kernel, definition

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_REAL = (torch.float32, torch.float64)
HALVES = (torch.bfloat16, torch.float16)
Tensor = torch.Tensor


def transformed() -> str | None:
    """Why a transformation in progress needs the definition; None if there is none."""
    if torch.compiler.is_compiling():
        return "torch.compile compiles the definition"
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transformation differentiates the definition"
    if forward_ad._current_level >= 0:
        return "forward-mode derivatives go through the definition"
    if torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None:
        return "a tracing mode looks at every operation"
    return None


def _without_memory(**tensors: Tensor) -> str | None:
    for name, tensor in tensors.items():
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        if wrapped or torch._is_functional_tensor(tensor):
            return f"the {name} is a shell that a transformation of torch.func left behind"
    return None


class OnePass:
    """The calls of one loss; a toolchain says how it runs over memory.

    ``decline`` is what ``supports`` asks about a plain prediction in single or double precision;
    ``unit_axes`` the axes of the prediction that units lack; ``run`` fills ``gradient`` with
    ``factor * weight * slope`` and ``values`` with the unreduced units, 0 for absent ones, where
    they are given, and returns the scalar ``factor * sum(weights * values)``. Of a prediction in
    half precision, values and weights are in single precision; its gradient is rounded once.
    """

    toolchain: str
    devices: tuple[str, ...]
    halves = False  # whether predictions and targets may be in half precision
    anywhere = False  # whether numbers may lie as they will

    def __init__(self, loss: str) -> None:
        self.loss = loss

    def unavailable(self, device: str) -> str | None:
        """Why the toolchain cannot run on this kind of device."""
        raise NotImplementedError

    def decline(self, prediction: Tensor, target: Tensor, parameters: Any) -> str | None:
        raise NotImplementedError

    def scattered(self, prediction: Tensor, target: Tensor, parameters: Any) -> str | None:
        """Why the toolchain cannot read tensors that lie so in memory."""
        if self.anywhere:
            return None
        for name, tensor in (("prediction", prediction), ("target", target)):
            if not tensor.is_contiguous():
                return f"the {name} is not contiguous"
        return None

    def unit_axes(self, prediction: Tensor, parameters: Any) -> tuple[int, ...]:
        raise NotImplementedError

    def empty_like(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, memory_format=torch.contiguous_format)

    def scaled(self, gradient: Tensor, upstream: Tensor) -> Tensor | None:
        """``gradient`` times a scalar, in place; None if that would round it again."""
        return gradient.mul_(upstream)

    def run(
        self, prediction: Tensor, target: Tensor, weights: Tensor | None,
        gradient: Tensor | None, values: Tensor | None, factor: float, parameters: Any,
    ) -> Tensor:  # fmt: skip
        raise NotImplementedError

    # -- what a kernel offers -------------------------------------------------------------------

    def kernel(self, from_size: int) -> Kernel:
        """The manifest's object."""
        return Kernel(
            self.toolchain, self.loss, "torch", self.supports, self.values, self.scaled_sum,
            self.value_and_grad, from_size,
            device=self.devices[0] if len(self.devices) == 1 else None,
            ready=self.ready, prepare=self.prepare, skips=True, halves=self.halves,
        )  # fmt: skip

    def supports(self, prediction: Tensor, target: Tensor, **parameters: Any) -> str | None:
        for name, tensor in (("prediction", prediction), ("target", target)):
            if type(tensor) not in _PLAIN:
                return f"the {name} is a {type(tensor).__name__}"
            if tensor.device.type not in self.devices:
                return f"the {name} is on {tensor.device}"
        if prediction.device != target.device:
            return f"the prediction is on {prediction.device}, the target on {target.device}"
        if prediction.dtype not in _REAL and not (self.halves and prediction.dtype in HALVES):
            return f"the prediction is {str(prediction.dtype).removeprefix('torch.')}"
        if target.requires_grad:
            return "the target asks for a gradient too"
        return (
            transformed()
            or _without_memory(prediction=prediction, target=target)
            or self.unavailable(prediction.device.type)
            or self.decline(prediction, target, parameters)
            or self.scattered(prediction, target, parameters)
        )

    def ready(self, prediction: Tensor, target: Tensor) -> bool:
        return (
            (self.anywhere or (prediction.is_contiguous() and target.is_contiguous()))
            and not target.requires_grad
            and not torch._is_functional_tensor(prediction)
            and not torch._is_functional_tensor(target)
            and forward_ad._current_level < 0
            and torch._C._len_torch_dispatch_stack() == 0
            and torch._C._get_tracing_state() is None
        )

    def count(self, target: Tensor, index: int) -> int:
        """How often ``index`` stands in the target."""
        return int((target == index).sum())

    def weight(self, target: Tensor, ignore: int | None, class_weights: Tensor) -> float:
        """The sum of the weights of the target's classes."""
        there = (target >= 0) & (target < len(class_weights))
        if ignore is not None:
            there &= target != ignore
        return float(class_weights[torch.where(there, target, 0)][there].double().sum())

    def prepare(
        self, prediction: Tensor, target: Tensor, *, factor: float | None,
        ignore: float | None = None, divisor: str | None = None, **parameters: Any,
    ) -> Callable[[Tensor, Tensor], Tensor]:  # fmt: skip
        run, unwrapped = self.run, torch._C._functorch.unwrap_if_dead
        # ``apply`` without its questions about torch.func, which whoever takes a shortcut has
        # answered: they take as long as the kernel.
        sum_of: Any = super(torch.autograd.Function, _ScaledSum).apply
        values_of: Any = super(torch.autograd.Function, _Values).apply
        index = int(ignore) if ignore is not None and float(ignore).is_integer() else None
        units = target.numel()

        def plain(prediction: Tensor, target: Tensor) -> Tensor:
            # A tensor that outlived its transformation is an empty shell around the plain one.
            prediction, target = unwrapped(prediction), unwrapped(target)
            weights, scale = None, factor
            absent = 0 if index is None else self.count(target, index)
            if index is not None and absent:
                weights = torch.ne(target, index).to(_real(prediction))
                if divisor == "count":
                    scale = 1.0 / max(units - absent, 1)
            if divisor == "weight":
                behind = self.weight(target, index, parameters["class_weights"])
                scale = 1.0 / behind if behind else 0.0
            derived = prediction.requires_grad and torch.is_grad_enabled()
            if scale is None and derived:
                return values_of(prediction, target, weights, self, parameters)
            if scale is None:
                return self.run_values(prediction, target, weights, parameters, False)[0]
            if derived:
                return sum_of(prediction, target, weights, self, scale, parameters)
            return run(prediction, target, weights, None, None, scale, parameters)

        kind = prediction.dtype
        if kind in HALVES:
            return lambda prediction, target: plain(prediction, target).to(kind)
        return plain

    def values(
        self, prediction: Tensor, target: Tensor, *, weights: Tensor | None = None,
        **parameters: Any,
    ) -> Tensor:  # fmt: skip
        if torch.is_grad_enabled() and prediction.requires_grad:
            return _Values.apply(prediction, target, weights, self, parameters)
        return self.run_values(prediction, target, weights, parameters, False)[0]

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
            or not (self.anywhere or weights.is_contiguous())
            or (weights.dtype != prediction.dtype and prediction.dtype in _REAL)
        ):
            # A gradient by the weights needs the values themselves.
            present = (weights.detach() != 0).to(_real(prediction))
            values = self.values(prediction, target, weights=present, **parameters)
            return factor * torch.where(weights == 0, 0.0, weights * values).sum()
        if torch.is_grad_enabled() and prediction.requires_grad:
            return _ScaledSum.apply(prediction, target, weights, self, factor, parameters)
        return self.run(prediction, target, weights, None, None, factor, parameters)

    def value_and_grad(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        factor: float,
        weights: Tensor | None = None,
        **parameters: Any,
    ) -> tuple[Tensor, Tensor]:
        if weights is not None:
            weights = weights.detach().to(_real(prediction)).contiguous()
        gradient = self.empty_like(prediction)
        total = self.run(prediction.detach(), target, weights, gradient, None, factor, parameters)
        return total, gradient

    def run_values(
        self, prediction: Tensor, target: Tensor, weights: Tensor | None, parameters: Any,
        gradient: bool,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        slopes = self.empty_like(prediction) if gradient else None
        lacking, real = self.unit_axes(prediction, parameters), _real(prediction)
        if lacking:
            shape = [n for axis, n in enumerate(prediction.shape) if axis not in lacking]
            values = prediction.new_empty(shape, dtype=real)
        elif real != prediction.dtype:
            values = torch.empty_like(prediction, dtype=real)
        else:
            values = self.empty_like(prediction)
        self.run(prediction, target, weights, slopes, values, 1.0, parameters)
        return values, slopes


def _real(prediction: Tensor) -> Any:
    """The dtype that is computed in."""
    return prediction.dtype if prediction.dtype in _REAL else torch.float32


def _spread(units: Tensor, prediction: Tensor, lacking: tuple[int, ...]) -> Tensor:
    """One number per unit, shaped to meet the prediction."""
    if not lacking:
        return units
    shape = [1 if axis in lacking else n for axis, n in enumerate(prediction.shape)]
    return units.reshape(shape)


def _through_definition(
    ctx: Any, upstream: Tensor, weights: Tensor | None, factor: float
) -> Tensor:
    """The gradient as a function that can be differentiated again."""
    prediction, target = ctx.saved_tensors[:2]
    real = _real(prediction)
    target = target.to(real) if target.is_floating_point() else target
    kept, lacking = prediction.to(real), ctx.bound.unit_axes(prediction, ctx.parameters)
    if weights is not None:
        # Absent units are blanked first: a NaN there would reach the derivative through 0 * NaN.
        present = weights != 0
        kept = torch.where(_spread(present, prediction, lacking), kept, 0.0)
        whole = target.ndim == prediction.ndim
        trailing = (1,) * (target.ndim - present.ndim)
        known = (
            _spread(present, prediction, lacking)
            if whole
            else present.reshape(*present.shape, *trailing)
        )
        target = torch.where(known, target, 0)
        upstream = upstream * weights
    values = definition(ctx.bound.loss)(kept, target, **ctx.parameters)
    (gradient,) = torch.autograd.grad(
        (values * upstream).sum() * factor, prediction, create_graph=True
    )
    return gradient


class _ScaledSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, prediction: Tensor, target: Tensor, weights: Tensor | None, bound: OnePass,
        factor: float, parameters: Any,
    ) -> Tensor:  # fmt: skip
        ctx.gradient = bound.empty_like(prediction)
        total = bound.run(prediction, target, weights, ctx.gradient, None, factor, parameters)
        ctx.bound, ctx.scale, ctx.parameters = bound, factor, parameters
        ctx.save_for_backward(prediction, target, weights)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        nothing = (None,) * 5
        if torch.is_grad_enabled():
            weights = ctx.saved_tensors[2]
            return (_through_definition(ctx, upstream, weights, ctx.scale), *nothing)
        # Handed out once, so that autograd may keep it without a copy; then computed again.
        gradient, ctx.gradient = ctx.gradient, None
        scaled = None if gradient is None else ctx.bound.scaled(gradient, upstream)
        if scaled is None:
            prediction, target, weights = ctx.saved_tensors
            if gradient is None:
                gradient = ctx.bound.empty_like(prediction)
            half = prediction.dtype in HALVES
            factor = ctx.scale * upstream.item() if half else ctx.scale
            ctx.bound.run(prediction, target, weights, gradient, None, factor, ctx.parameters)
            scaled = gradient if half else ctx.bound.scaled(gradient, upstream)
        return (scaled, *nothing)


class _Values(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, prediction: Tensor, target: Tensor, weights: Tensor | None, bound: OnePass,
        parameters: Any,
    ) -> Tensor:  # fmt: skip
        real = prediction.dtype in _REAL  # else the slopes would be rounded before they are scaled
        values, ctx.gradient = bound.run_values(prediction, target, weights, parameters, real)
        ctx.bound, ctx.parameters = bound, parameters
        ctx.save_for_backward(prediction, target, weights)
        return values

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        nothing = (None,) * 4
        prediction, target, weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (_through_definition(ctx, upstream, weights, 1.0), *nothing)
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            if prediction.dtype not in _REAL:
                gradient = ctx.bound.empty_like(prediction)
                pull = upstream if weights is None else upstream * weights
                ctx.bound.run(prediction, target, pull, gradient, None, 1.0, ctx.parameters)
                return (gradient, *nothing)
            _, gradient = ctx.bound.run_values(prediction, target, weights, ctx.parameters, True)
        lacking = ctx.bound.unit_axes(prediction, ctx.parameters)
        return (gradient.mul_(_spread(upstream, prediction, lacking)), *nothing)
