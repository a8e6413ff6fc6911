# mypy: disable-error-code="no-untyped-call"
"""Losses inside the graphs of torch.compile, as operations of ``torch.library``.

The compiler's tracer sees one operation for a loss: whatever else it read, it would ask again at
each call. What the operation is made of is decided when its graph is taken apart. Large arrays go
to compiled kernels, one operation for the value and one for the gradient: whatever the framework's
compiler makes of a loss touches fresh pages there. A kernel's call costs tens of microseconds, so
other arrays go to the compiler itself, as the kernel's own formula of value and slope: to
differentiate the definition would be twice the work.
Importing this loads neither Numba nor the compiler.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

# By name: what is reached through modules is asked for at each call of a graph.
from torch._C import _are_functorch_transforms_active as transforming
from torch.compiler import is_compiling

from lossary import kernels
from lossary.kernels import elementary, formulas, in_torch, pointwise
from lossary.kernels.numba import available, memory

Tensor = torch.Tensor
Traced = Callable[[Tensor, Tensor], Any]
# Numbers from which the kernel's operations are worth their calls: where the compiler has a formula
# (the C library keeps no buffers above 32 MiB, so that each is new), and where the definition.
LARGE, SMALLEST = 1 << 23, 1 << 15
LARGE_VALUE = 1 << 19  # where the value alone is asked for, of formulas that compute much
_PLAIN = (Tensor, torch.nn.Parameter)
_SINGLE = torch.float32
_REAL = (torch.float32, torch.float64)
_INDEX = (torch.int32, torch.int64)
_LIBRARY = torch.library.Library("lossary", "FRAGMENT")


def traced(loss: str, reduction: str, parameters: Mapping[str, Any]) -> Traced | None:
    """What a compiler is to trace for a reduced loss of (prediction, target); None: nothing.

    The function returns None, too, outside of a compiler and for tensors that no kernel takes. It
    must be made before the compiler runs: this search cannot be traced.
    """
    if ("numba.on_torch" not in kernels.manifest().get((loss, "torch"), ())) or available.why_not():
        return None
    if reduction not in ("mean", "mean_over_batch", "batch_mean", "sum"):
        return None
    rows, indexed = loss in _OF_ROWS, loss == "cross_entropy"
    if loss in kernels.WHOLE_ARRAY and not rows:
        return None
    if not rows and pointwise.decline(loss, (), "", (), "", parameters) is not None:
        return None
    try:
        what = json.dumps([loss, reduction, dict(parameters), _version()])
    except TypeError:  # a parameter that is no plain number
        return None
    axis = parameters.get("axis", -1)
    _operations(loss)

    def call(prediction: Tensor, target: Tensor) -> Any:
        if not is_compiling() or transforming():
            return None
        if type(prediction) not in _PLAIN or type(target) not in _PLAIN or target.requires_grad:
            return None
        if not (prediction.is_cpu and prediction.is_contiguous() and target.is_contiguous()):
            return None
        closed = prediction.dtype == _SINGLE
        if indexed and target.ndim < prediction.ndim:
            if target.dtype not in _INDEX or target.shape != prediction.shape[:-1]:
                return None
            if axis not in (-1, prediction.ndim - 1):
                return None
        elif target.dtype != prediction.dtype or target.shape != prediction.shape:
            return None
        else:
            closed = closed and not rows
        if not closed:
            # Loaded with the compiler, which is the only one to come here.
            from torch.fx.experimental.symbolic_shapes import guard_or_false

            if prediction.dtype not in _REAL or guard_or_false(prediction.numel() < SMALLEST):
                return None
        return _operation(prediction, target, what)

    return call


_OF_ROWS = ("cross_entropy", "kl_divergence", "jensen_shannon")


@functools.cache
def _version() -> str:
    """Of what the operation is made of: compilers keep their results on disk."""
    modules = (sys.modules[__name__], in_torch, pointwise, formulas, elementary)
    text = "".join(map(inspect.getsource, modules))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reduced(prediction: Tensor, target: Tensor, what: str) -> Tensor:
    """What the compiler takes ``lossary::reduced`` apart into."""
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    loss, reduction, parameters, _ = json.loads(what)
    rows, indices = loss in _OF_ROWS, target.ndim < prediction.ndim
    axis = parameters.get("axis", -1)
    size = prediction.numel()
    count = 1
    if reduction == "batch_mean":
        count = prediction.shape[0]
    elif reduction != "sum":
        count = size // prediction.shape[axis] if rows else size
    formula = None
    if prediction.dtype == _SINGLE and (indices or not rows):
        formula = in_torch.formula(loss, parameters)
    least, value_alone = LARGE, not (prediction.requires_grad and torch.is_grad_enabled())
    if value_alone and (rows or pointwise.computes(loss)):
        least = min(LARGE, LARGE_VALUE)
    # Sizes that depend on data are the kernel's.
    if formula is None or not guard_or_false(size < least):
        return _operations(loss)(prediction, target, count, json.dumps(parameters))
    if indices:
        target = _existing(target, prediction.shape[axis])
    return in_torch.total(prediction, target, formula) / torch.sym_max(count, 1)


_LIBRARY.define("reduced(Tensor prediction, Tensor target, str what) -> Tensor")
_LIBRARY.impl("reduced", _reduced, "CompositeImplicitAutograd")
_operation = torch.ops.lossary.reduced.default


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
    torch._assert_async(there.all(), _NO_SUCH_CLASS)
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
