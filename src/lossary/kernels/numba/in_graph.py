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
from lossary.kernels.numba import available, memory

Tensor = torch.Tensor
Traced = Callable[[Tensor, Tensor], Any]
# Numbers from which the kernel's operations are worth their calls: where the compiler has a formula
# (the C library keeps no buffers above 32 MiB, so that each is new), and where the definition.
LARGE, SMALLEST = 1 << 23, 1 << 15
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
    operation, all_exist = _operations(loss), _all_exist()
    axis = parameters.get("axis", -1)
    formula = in_torch.formula(loss, parameters)

    def call(prediction: Tensor, target: Tensor) -> Any:
        # Loaded with the compiler, which is the only one to come here.
        from torch.fx.experimental.symbolic_shapes import statically_known_true

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
        closed = formula is not None and prediction.dtype == torch.float32
        closed = closed and (indices or not lacking)
        least = LARGE if closed else SMALLEST
        small = statically_known_true(size < least)  # sizes that vary are the kernel's
        if small and not closed:
            return None
        count = 1
        if reduction == "batch_mean":
            count = prediction.shape[0]
        elif reduction != "sum":
            count = size // prediction.shape[axis] if lacking else size
        if small and formula is not None:
            if lacking:
                target = target + all_exist(target, prediction.shape[axis])
            return in_torch.scaled_sum(prediction, target, formula, count)
        return operation(prediction, target, count, text)

    return call


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
        total = launch(prediction.data_ptr(), target.data_ptr(), 0, 0, 0, 1.0 / count)
        return torch.scalar_tensor(total, dtype=prediction.dtype)

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


@functools.cache
def _all_exist() -> Any:
    """Zero, if all class indices exist: the compiler's own check would end the process.

    It is added to the indices, so that they are not read before.
    """
    _LIBRARY.define("all_exist(Tensor target, SymInt classes) -> Tensor")

    def run(target: Tensor, classes: int) -> Tensor:
        from lossary.kernels.numba import softmax

        target = target.contiguous()
        kind = str(target.dtype).removeprefix("torch.")
        outside = softmax.compiled("outside", "float32", kind, ())
        where = outside(target.numel(), classes, target.data_ptr(), 0)
        if where >= 0:
            raise softmax.no_such_class("cross_entropy", where, classes)
        return target.new_zeros(())

    def scalar(target: Tensor, classes: int) -> Tensor:
        return target.new_empty(())

    _LIBRARY.impl("all_exist", run, "CPU")
    _LIBRARY.impl("all_exist", scalar, "Meta")
    return torch.ops.lossary.all_exist.default


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
