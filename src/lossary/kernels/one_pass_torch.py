# mypy: disable-error-code="no-untyped-call"
"""Kernels of torch that make the value and its slopes in one pass, as autograd sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lossary.kernels import Kernel, definition, differentiated, inputs_of
from lossary.kernels.transforms_torch import transformed, undisturbed

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_REAL = (torch.float32, torch.float64)
HALVES = (torch.bfloat16, torch.float16)
Tensor = torch.Tensor
Arrays = tuple[Tensor, ...]
_MANY = 1 << 20  # weights beyond are read as they lie, slice by slice


class OnePass:
    """The calls of one loss; a toolchain says how it runs over memory.

    ``decline`` is what ``supports`` asks about plain inputs, the first in single or double
    precision; ``unit_axes`` the axes of the first input that units lack; ``run`` fills
    ``gradients``, one for each prediction, with ``factor * weight * slope`` and ``values`` with the
    unreduced units, 0 for absent ones, where they are given, and returns the scalar
    ``factor * sum(weights * values)``. Of inputs in half precision, values and weights are in
    single precision; gradients are rounded once.
    """

    toolchain: str
    devices: tuple[str, ...]
    halves = False  # whether predictions and targets may be in half precision
    anywhere = False  # whether numbers may lie as they will

    def __init__(self, loss: str) -> None:
        self.loss = loss
        self.names, self.places = inputs_of(loss), differentiated(loss)
        # Of those that no gradient is made of.
        self.fixed = tuple({*range(len(self.names))} - {*self.places})
        self.none = (None,) * (len(self.names) - 1)

    def unavailable(self, device: str) -> str | None:
        """Why the toolchain cannot run on this kind of device."""
        raise NotImplementedError

    def decline(self, arrays: Arrays, parameters: Any) -> str | None:
        raise NotImplementedError

    def scattered(self, arrays: Arrays) -> str | None:
        """Why the toolchain cannot read tensors that lie so in memory."""
        if self.anywhere:
            return None
        for name, tensor in zip(self.names, arrays, strict=True):
            if not tensor.is_contiguous():
                return f"the {name} is not contiguous"
        return None

    def unit_axes(self, first: Tensor, parameters: Any) -> tuple[int, ...]:
        raise NotImplementedError

    def empty_like(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, memory_format=torch.contiguous_format)

    def scaled(self, gradients: Arrays, upstream: Tensor) -> Arrays | None:
        """``gradients`` times a scalar, in place; None if that would round them again."""
        return tuple(gradient.mul_(upstream) for gradient in gradients)

    def empty(self, arrays: Arrays) -> Arrays:
        """Memory for the gradients."""
        if self.places == (0,):
            return (self.empty_like(arrays[0]),)
        return tuple([self.empty_like(arrays[place]) for place in self.places])

    def run(
        self, arrays: Arrays, weights: Tensor | None, gradients: Arrays | None,
        values: Tensor | None, factor: float, parameters: Any,
    ) -> Tensor:  # fmt: skip
        raise NotImplementedError

    # -- what a kernel offers -------------------------------------------------------------------

    def kernel(self, from_size: int) -> Kernel:
        """The manifest's object."""
        return Kernel(
            self.toolchain, self.loss, "torch", self.supports, self.values, self.scaled_sum,
            self.value_and_grad, from_size,
            device=self.devices[0] if len(self.devices) == 1 else None,
            ready=self.ready, prepare=self.prepare, skips=True, weighs=True, halves=self.halves,
        )  # fmt: skip

    def supports(self, *arrays: Tensor, **parameters: Any) -> str | None:
        (first, *_), (known_as, *_) = arrays, self.names
        for name, tensor in zip(self.names, arrays, strict=True):
            if type(tensor) not in _PLAIN:
                return f"the {name} is a {type(tensor).__name__}"
            if tensor.device.type not in self.devices:
                return f"the {name} is on {tensor.device}"
            if tensor.device != first.device:
                return f"the {known_as} is on {first.device}, the {name} on {tensor.device}"
        if first.dtype not in _REAL and not (self.halves and first.dtype in HALVES):
            return f"the {known_as} is {str(first.dtype).removeprefix('torch.')}"
        for place in self.fixed:
            if arrays[place].requires_grad:
                return f"the {self.names[place]} asks for a gradient too"
        reason = transformed()
        if reason is not None:
            return reason
        for name, tensor in zip(self.names, arrays, strict=True):
            wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
            if wrapped or torch._is_functional_tensor(tensor):
                return f"the {name} is a shell that a transformation of torch.func left behind"
        return (
            self.unavailable(first.device.type)
            or self.decline(arrays, parameters)
            or self.scattered(arrays)
        )

    def ready(self, *arrays: Tensor) -> bool:
        for tensor in arrays:
            if torch._is_functional_tensor(tensor):
                return False
            if not (self.anywhere or tensor.is_contiguous()):
                return False
        for place in self.fixed:
            if arrays[place].requires_grad:
                return False
        return undisturbed()

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
        self, *arrays: Tensor, factor: float | None, ignore: float | None = None,
        divisor: str | None = None, **parameters: Any,
    ) -> Callable[..., Tensor]:  # fmt: skip
        run, unwrapped = self.run, torch._C._functorch.unwrap_if_dead
        # ``apply`` without its questions about torch.func, which whoever takes a shortcut has
        # answered: they take as long as the kernel.
        sum_of: Any = super(torch.autograd.Function, _ScaledSum).apply
        values_of: Any = super(torch.autograd.Function, _Values).apply
        index = int(ignore) if ignore is not None and float(ignore).is_integer() else None
        lacking, real = self.unit_axes(arrays[0], parameters), _real(arrays[0])
        units = torch.Size([n for axis, n in enumerate(arrays[0].shape) if axis not in lacking])

        def run_on(arrays: Arrays, weights: Tensor | None, scale: float | None) -> Tensor:
            derived = torch.is_grad_enabled() and self.derived(arrays)
            if scale is None and derived:
                return values_of(weights, self, parameters, *arrays)
            if scale is None:
                return self.run_values(arrays, weights, parameters, False)[0]
            if derived:
                return sum_of(weights, self, scale, parameters, *arrays)
            return run(arrays, weights, None, None, scale, parameters)

        def chosen(arrays: Arrays) -> Tensor:
            """Without the samples whose class is ignored, or by the weights of classes."""
            weights, scale = None, factor
            if index is not None:
                absent = self.count(arrays[1], index)
                if absent:
                    weights = torch.ne(arrays[1], index).to(real)
                    if divisor == "count":
                        scale = 1.0 / max(units.numel() - absent, 1)
            if divisor == "weight":
                behind = self.weight(arrays[1], index, parameters["class_weights"])
                scale = 1.0 / behind if behind else 0.0
            return run_on(arrays, weights, scale)

        def weighed(arrays: Arrays, weights: Tensor | None, mask: Tensor | None) -> Tensor:
            scale, numbers, kept = factor, None, None
            if mask is not None:
                kept = _led(unwrapped(mask), units)
                kept = kept if kept.dtype is torch.bool else kept != 0
                numbers = kept.to(real)
            if scale is None:  # a weight of 0 is no mask: 0 times infinity is NaN
                values = run_on(arrays, numbers, None)
                return values if weights is None else values * _led(weights.to(real), units)
            if weights is not None:
                numbers = _led(unwrapped(weights).to(real), units)
                numbers = numbers if kept is None else torch.where(kept, numbers, 0.0)
            behind = numbers if divisor == "weight" else kept if divisor == "count" else None
            if behind is not None:
                mass = float(behind.sum())
                scale = 1.0 / mass if mass else 0.0
            return run_on(arrays, numbers, scale)

        plain, whole = index is None and divisor != "weight" and factor is not None, factor or 0.0

        def call(
            *arrays: Tensor, weights: Tensor | None = None, mask: Tensor | None = None
        ) -> Tensor:
            # A tensor that outlived its transformation is an empty shell around the plain one.
            arrays = tuple([unwrapped(array) for array in arrays])
            if weights is not None or mask is not None:
                return weighed(arrays, weights, mask)
            if not plain:
                return chosen(arrays)
            if torch.is_grad_enabled() and self.derived(arrays):
                return sum_of(None, self, whole, parameters, *arrays)
            return run(arrays, None, None, None, whole, parameters)

        kind = arrays[0].dtype
        if kind in HALVES:
            return lambda *arrays, **beside: call(*arrays, **beside).to(kind)
        return call

    def derived(self, arrays: Arrays) -> bool:
        """Whether a gradient by any prediction is asked for."""
        for place in self.places:  # noqa: SIM110  (every call asks; a generator takes longer)
            if arrays[place].requires_grad:
                return True
        return False

    def values(self, *arrays: Tensor, weights: Tensor | None = None, **parameters: Any) -> Tensor:
        if torch.is_grad_enabled() and self.derived(arrays):
            return _Values.apply(weights, self, parameters, *arrays)
        return self.run_values(arrays, weights, parameters, False)[0]

    def scaled_sum(
        self, *arrays: Tensor, factor: float, weights: Tensor | None = None, **parameters: Any
    ) -> Tensor:
        first = arrays[0]
        if weights is not None and (
            weights.requires_grad
            or not (self.anywhere or weights.is_contiguous())
            or (weights.dtype != first.dtype and first.dtype in _REAL)
        ):
            # A gradient by the weights needs the values themselves.
            present = (weights.detach() != 0).to(_real(first))
            values = self.values(*arrays, weights=present, **parameters)
            return factor * torch.where(weights == 0, 0.0, weights * values).sum()
        if torch.is_grad_enabled() and self.derived(arrays):
            return _ScaledSum.apply(weights, self, factor, parameters, *arrays)
        return self.run(arrays, weights, None, None, factor, parameters)

    def value_and_grad(
        self, *arrays: Tensor, factor: float, weights: Tensor | None = None, **parameters: Any
    ) -> tuple[Tensor, Tensor | Arrays]:
        if weights is not None:
            weights = weights.detach().to(_real(arrays[0])).contiguous()
        gradients = self.empty(arrays)
        plain = tuple(array.detach() for array in arrays)
        total = self.run(plain, weights, gradients, None, factor, parameters)
        return total, gradients if gradients[1:] else gradients[0]

    def run_values(
        self, arrays: Arrays, weights: Tensor | None, parameters: Any, derived: bool
    ) -> tuple[Tensor, Arrays | None]:
        first, slopes = arrays[0], self.empty(arrays) if derived else None
        lacking, real = self.unit_axes(first, parameters), _real(first)
        if lacking:
            shape = [n for axis, n in enumerate(first.shape) if axis not in lacking]
            values = first.new_empty(shape, dtype=real)
        elif real != first.dtype:
            values = torch.empty_like(first, dtype=real)
        else:
            values = self.empty_like(first)
        self.run(arrays, weights, slopes, values, 1.0, parameters)
        return values, slopes


def _real(first: Tensor) -> Any:
    """The dtype that is computed in."""
    return first.dtype if first.dtype in _REAL else torch.float32


def led(numbers: Tensor, units: Sequence[Any]) -> Tensor:
    """Numbers of the units' leading dimensions, one for each unit."""
    return numbers.reshape(*numbers.shape, *(1,) * (len(units) - numbers.ndim)).expand(units)


def _led(numbers: Tensor, units: torch.Size) -> Tensor:
    """The same, in memory if they are few."""
    numbers = numbers if numbers.shape == units else led(numbers, units)
    return numbers if units.numel() > _MANY else numbers.contiguous()


def _spread(units: Tensor, first: Tensor, lacking: tuple[int, ...]) -> Tensor:
    """One number per unit, shaped to meet the first input."""
    if not lacking:
        return units
    shape = [1 if axis in lacking else n for axis, n in enumerate(first.shape)]
    return units.reshape(shape)


def _through_definition(ctx: Any, upstream: Tensor, weights: Tensor | None, factor: float) -> Any:
    """The gradients as functions that can be differentiated again."""
    bound, arrays = ctx.bound, ctx.saved_tensors[:-1]
    first, real = arrays[0], _real(arrays[0])
    lacking = bound.unit_axes(first, ctx.parameters)
    given = [array.to(real) if array.is_floating_point() else array for array in arrays]
    if weights is not None:
        # Absent units are blanked first: a NaN there would reach the derivative through 0 * NaN.
        present = weights != 0
        for place, array in enumerate(given):
            if array.ndim == first.ndim:
                known = _spread(present, first, lacking)
            else:
                known = present.reshape(*present.shape, *(1,) * (array.ndim - present.ndim))
            given[place] = torch.where(known, array, 0)
        upstream = upstream * weights
    values = definition(bound.loss)(*given, **ctx.parameters)
    wanted = [arrays[place] for place in bound.places if arrays[place].requires_grad]
    total = (values * upstream).sum() * factor
    found = iter(torch.autograd.grad(total, wanted, create_graph=True))
    return _by_place(
        bound, [next(found) if arrays[place].requires_grad else None for place in bound.places]
    )


def _by_place(bound: OnePass, gradients: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """One gradient for each input, None for those that have none."""
    if bound.places == (0,):  # as most are
        return (gradients[0], *bound.none)
    found: list[Tensor | None] = [None, *bound.none]
    for place, gradient in zip(bound.places, gradients, strict=True):
        found[place] = gradient
    return tuple(found)


class _ScaledSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weights: Tensor | None, bound: OnePass, factor: float, parameters: Any,
        *arrays: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.gradients = bound.empty(arrays)
        total = bound.run(arrays, weights, ctx.gradients, None, factor, parameters)
        ctx.bound, ctx.scale, ctx.parameters = bound, factor, parameters
        ctx.save_for_backward(*arrays, weights)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        nothing, bound = (None,) * 4, ctx.bound
        if torch.is_grad_enabled():
            weights = ctx.saved_tensors[-1]
            return (*nothing, *_through_definition(ctx, upstream, weights, ctx.scale))
        # Handed out once, so that autograd may keep it without a copy; then computed again.
        gradients, ctx.gradients = ctx.gradients, None
        scaled = None if gradients is None else bound.scaled(gradients, upstream)
        if scaled is None:
            *arrays, weights = ctx.saved_tensors
            if gradients is None:
                gradients = bound.empty(arrays)
            half = arrays[0].dtype in HALVES
            factor = ctx.scale * upstream.item() if half else ctx.scale
            bound.run(tuple(arrays), weights, gradients, None, factor, ctx.parameters)
            scaled = gradients if half else bound.scaled(gradients, upstream)
        return (*nothing, *_by_place(bound, scaled))


class _Values(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weights: Tensor | None, bound: OnePass, parameters: Any, *arrays: Tensor
    ) -> Tensor:
        real = arrays[0].dtype in _REAL  # else the slopes would be rounded before they are scaled
        values, ctx.gradients = bound.run_values(arrays, weights, parameters, real)
        ctx.bound, ctx.parameters = bound, parameters
        ctx.save_for_backward(*arrays, weights)
        return values

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        nothing, bound = (None,) * 3, ctx.bound
        *arrays, weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*nothing, *_through_definition(ctx, upstream, weights, 1.0))
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None and arrays[0].dtype not in _REAL:
            gradients = bound.empty(arrays)
            pull = upstream if weights is None else upstream * weights
            bound.run(tuple(arrays), pull, gradients, None, 1.0, ctx.parameters)
        else:
            if gradients is None:
                _, gradients = bound.run_values(tuple(arrays), weights, ctx.parameters, True)
            pull = _spread(upstream, arrays[0], bound.unit_axes(arrays[0], ctx.parameters))
            for gradient in gradients:
                gradient.mul_(pull)
        return (*nothing, *_by_place(bound, gradients))
