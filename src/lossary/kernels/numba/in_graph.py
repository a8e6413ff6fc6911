# mypy: disable-error-code="no-untyped-call"
"""Losses inside the graphs of torch.compile, as operations of ``torch.library``.

Large arrays go to compiled kernels, one operation for the value and one for the gradient: whatever
the framework's compiler makes of a loss touches fresh pages there. An operation costs tens of
microseconds, so other arrays go to the compiler itself, as the kernel's own formula of value and
slope: to differentiate the definition would be twice the work.
Importing this loads neither Numba nor the compiler.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

from lossary import kernels
from lossary.kernels import in_torch, pointwise
from lossary.kernels.in_torch import total
from lossary.kernels.numba import available, memory

Tensor = torch.Tensor
Traced = Callable[[Tensor, Tensor], Any]
# Numbers from which the kernel's operations are worth their calls: where the compiler has a formula
# (the C library keeps no buffers above 32 MiB, so that each is new), and where the definition.
LARGE, SMALLEST = 1 << 23, 1 << 15
LARGE_VALUE = 1 << 19  # where the value alone is asked for, of formulas that compute much
_LIBRARY = torch.library.Library("lossary", "FRAGMENT")


def traced(loss: str, reduction: str, parameters: Mapping[str, Any]) -> Traced | None:
    """What a compiler is to trace for a reduced loss of (prediction, target); None: nothing.

    The function returns None, too, for tensors that no kernel takes. It must be made before the
    compiler runs: this search cannot be traced.
    """
    if ("numba.on_torch" not in kernels.manifest().get((loss, "torch"), ())) or available.why_not():
        return None
    try:
        text = json.dumps(dict(parameters))
    except TypeError:  # a parameter that is no plain number
        return None
    if reduction not in ("mean", "mean_over_batch", "batch_mean", "sum"):
        return None
    lacking = _units(loss)
    if lacking is None:
        return None
    if lacking == 0 and pointwise.decline(loss, (), "", (), "", parameters) is not None:
        return None
    operation = _operations(loss)
    axis = parameters.get("axis", -1)
    formula = in_torch.formula(loss, parameters)
    much, grad_enabled = lacking or pointwise.computes(loss), torch.is_grad_enabled

    def call(prediction: Tensor, target: Tensor) -> Any:
        # Loaded with the compiler, which is the only one to come here.
        from torch.fx.experimental.symbolic_shapes import guard_or_false

        plain = prediction.is_contiguous() and target.is_contiguous() and prediction.is_cpu
        if not plain or target.requires_grad or prediction.dtype not in _REAL:
            return None
        indices = target.ndim < prediction.ndim
        if lacking == 0 or not indices:
            if target.dtype != prediction.dtype or target.shape != prediction.shape:
                return None
        elif target.dtype not in _INDEX or axis % prediction.ndim != prediction.ndim - 1:
            return None
        size = prediction.numel()
        if guard_or_false(size == 0):
            return None
        closed = formula is not None and prediction.dtype == _SINGLE
        closed = closed and (indices or not lacking)
        least = LARGE if closed else SMALLEST
        if much and not (prediction.requires_grad and grad_enabled()):
            least = min(least, LARGE_VALUE)
        small = guard_or_false(size < least)  # sizes that depend on data are the kernel's
        if small and not closed:
            return None
        count = 1
        if reduction == "batch_mean":
            count = prediction.shape[0]
        elif reduction != "sum":
            count = size // prediction.shape[axis] if lacking else size
        if small and formula is not None:
            if lacking:
                target = _existing(target, prediction.shape[axis])
            return total(prediction, target, formula) / count
        return operation(prediction, target, count, text)

    return call


_assert = torch._assert_async  # not reached through the module, as in ``in_torch``
_SINGLE = torch.float32
_REAL = (torch.float32, torch.float64)
_INDEX = (torch.int32, torch.int64)


def _units(loss: str) -> int | None:
    """How many axes of the prediction a unit lacks; None where that depends."""
    if loss not in kernels.WHOLE_ARRAY:
        return 0
    return 1 if loss in ("cross_entropy", "kl_divergence", "jensen_shannon") else None


@functools.cache
def _operations(loss: str) -> Any:
    """The operation of the sum divided by ``count``; another one makes its gradient."""
    value, slope = f"{loss}_sum", f"{loss}_slope"
    arrays, rest = "Tensor prediction, Tensor target", "SymInt count, str parameters"
    _LIBRARY.define(f"{value}({arrays}, {rest}) -> Tensor")
    _LIBRARY.define(f"{slope}({arrays}, Tensor upstream, {rest}) -> Tensor")

    def run_value(prediction: Tensor, target: Tensor, count: int, parameters: str) -> Tensor:
        prediction, target = prediction.contiguous(), target.contiguous()
        launch = _launch(loss, *_kind(prediction, target), False, parameters)
        found = launch(prediction.data_ptr(), target.data_ptr(), 0, 0, 0, 1.0 / count)
        return torch.scalar_tensor(found, dtype=prediction.dtype)

    def run_slope(
        prediction: Tensor, target: Tensor, upstream: Tensor, count: int, parameters: str
    ) -> Tensor:
        prediction, target = prediction.contiguous(), target.contiguous()
        launch = _launch(loss, *_kind(prediction, target), True, parameters)
        gradient = memory.tensor(prediction)
        places = (prediction.data_ptr(), target.data_ptr(), 0, gradient.data_ptr(), 0)
        launch(*places, upstream.item() / count)
        return gradient

    def scalar(prediction: Tensor, target: Tensor, count: int, parameters: str) -> Tensor:
        return prediction.new_empty(())

    def whole(prediction: Tensor, *rest: Any) -> Tensor:
        return torch.empty_like(prediction, memory_format=torch.contiguous_format)

    def keep(ctx: Any, inputs: Any, output: Tensor) -> None:
        prediction, target, ctx.count, ctx.parameters = inputs
        ctx.save_for_backward(prediction, target)

    def backward(ctx: Any, upstream: Tensor) -> Any:
        operation = getattr(torch.ops.lossary, slope).default
        gradient = operation(*ctx.saved_tensors, upstream, ctx.count, ctx.parameters)
        return gradient, None, None, None

    for name, run, shape in ((value, run_value, scalar), (slope, run_slope, whole)):
        _LIBRARY.impl(name, run, "CPU")
        _LIBRARY.impl(name, shape, "Meta")
    name = f"lossary::{value}"
    torch.library.register_autograd(name, backward, setup_context=keep, lib=_LIBRARY)
    return getattr(torch.ops.lossary, value).default


def _existing(target: Tensor, classes: Any) -> Tensor:
    """The class indices, which must exist: the compiler's own check would end the process."""
    there = (target >= 0) & (target < classes)
    _assert(there.all(), _NO_SUCH_CLASS)
    return target.clamp(0, classes - 1)  # from which the compiler sees that it need not check


_NO_SUCH_CLASS = (
    "cross_entropy: a class index of the target is not in 0..classes - 1 (without torch.compile "
    "the error says which); give such samples weight 0, or set ignore="
)


def _kind(prediction: Tensor, target: Tensor) -> tuple[Any, ...]:
    return tuple(prediction.shape), prediction.dtype, target.dtype


@functools.lru_cache(maxsize=256)
def _launch(
    loss: str, shape: tuple[int, ...], dtype: Any, target_dtype: Any, gradient: bool, text: str
) -> Any:
    """The kernel's function of addresses, for tensors of this kind."""
    from lossary.kernels.numba.program import program

    kind, target_kind = (str(each).removeprefix("torch.") for each in (dtype, target_dtype))
    purpose = (False, gradient, False)
    return program(loss).prepare(shape, kind, target_kind, purpose, json.loads(text))
