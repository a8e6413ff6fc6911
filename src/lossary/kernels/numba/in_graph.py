# mypy: disable-error-code="no-untyped-call"
"""Losses inside the graphs of torch.compile, as operations of ``torch.library``.

The compiler's tracer sees one operation for a loss: whatever else it read, it would ask again at
each call. What the operation is made of is decided when its graph is taken apart. Large arrays go
to a compiled kernel, an operation that makes value and slope in one pass; the compiler multiplies
the slope in place, with whatever else it finds to do there. Other arrays go to the compiler itself,
as the kernel's own formula of value and slope: to differentiate the definition would be twice the
work.
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
from torch import where

# By name: what is reached through modules is asked for at each call of a graph.
from torch._C import _are_functorch_transforms_active as transforming
from torch.compiler import is_dynamo_compiling as compiling

from lossary import kernels
from lossary.kernels import elementary, formulas, in_torch, pointwise
from lossary.kernels.numba import available, memory, on_torch

Tensor = torch.Tensor
Traced = Callable[..., Any]
# From how many numbers the kernel's operations are worth their calls. Formulas that little is
# computed for: where the C library keeps no buffers (above 32 MiB), so that each of the compiler's
# is new. Formulas that much is computed for, with slopes and without. And where there is only the
# definition.
LARGE, LARGE_COMPUTED, LARGE_VALUE, SMALLEST = 1 << 23, 1 << 20, 1 << 18, 1 << 15
_LIBRARY = torch.library.Library("lossary", "FRAGMENT")


def traced(
    loss: str, reduction: str, parameters: Mapping[str, Any], ignore: float | None = None
) -> Traced | None:
    """What a compiler is to trace for a loss of ((prediction, target), class weights or None).

    None: nothing; the function returns None, too, outside of a compiler and for tensors that no
    kernel takes. It must be made before the compiler runs: this search cannot be traced.
    """
    if ("numba.on_torch" not in kernels.manifest().get((loss, "torch"), ())) or available.why_not():
        return None
    rows, elementwise = loss in kernels.WHOLE_ARRAY, hasattr(formulas, loss)
    softmax = loss == "cross_entropy"
    if (rows and not softmax and reduction == "none") or (ignore is not None and not softmax):
        return None
    if ignore is not None and not float(ignore).is_integer():
        return None
    if kernels.WHOLE_ARRAY.get(loss) == "dice":  # its units depend on its parameters
        return None
    if not rows and pointwise.decline(loss, (), "", (), "", parameters) is not None:
        return None
    try:
        what = json.dumps([loss, reduction, dict(parameters), ignore, _version()])
    except TypeError:  # a parameter that is no plain number
        return None
    axis = parameters.get("axis", -1) if softmax else None
    smoothed, unreduced = bool(parameters.get("label_smoothing")), reduction == "none"
    _operations(loss)

    # A compiler asks again at each call for whatever it met from outside: so, as little as can be.
    def call(arrays: tuple[Tensor, ...], class_weights: Tensor | None) -> Any:
        if not compiling() or arrays[2:] or not arrays[1:] or transforming():
            return None
        prediction, target = arrays
        if type(prediction).__name__ not in ("Tensor", "Parameter"):
            return None
        if type(target).__name__ not in ("Tensor", "Parameter") or target.requires_grad:
            return None
        if not prediction.is_cpu:
            return None
        indices = target.ndim < prediction.ndim
        if class_weights is not None:
            if type(class_weights).__name__ not in ("Tensor", "Parameter") or not indices:
                return None
            if smoothed or class_weights.requires_grad or class_weights.ndim != 1:
                return None
        if indices:
            if axis is None or not -prediction.ndim <= axis < prediction.ndim:
                return None
            at = axis % prediction.ndim
            if target.shape != prediction.shape[:at] + prediction.shape[at + 1 :]:
                return None
            if class_weights is not None and class_weights.shape[0] != prediction.shape[at]:
                return None
            if target.is_floating_point() or target.is_complex():
                return None
            if not target.dtype.is_signed or target.dtype.itemsize < 4:
                return None
        elif target.dtype != prediction.dtype or target.shape != prediction.shape:
            return None
        if ignore is not None and not indices:
            return None
        size = prediction.dtype.itemsize if prediction.is_floating_point() else 0
        if size not in (2, 4) or not (indices or elementwise):
            if unreduced:
                return None
            # Loaded with the compiler, which is the only one to come here.
            from torch.fx.experimental.symbolic_shapes import guard_or_false

            if size not in (4, 8) or guard_or_false(prediction.numel() < SMALLEST):
                return None
            if not (prediction.is_contiguous() and target.is_contiguous()):
                return None  # the definition reads it where it lies
        return _operation(prediction, target, class_weights, what)

    return call


@functools.cache
def _version() -> str:
    """Of what the operation is made of: compilers keep their results on disk."""
    modules = (sys.modules[__name__], in_torch, pointwise, formulas, elementary)
    text = "".join(map(inspect.getsource, modules))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reduced(prediction: Tensor, target: Tensor, class_weights: Tensor | None, what: str) -> Tensor:
    """What the compiler takes ``lossary::reduced`` apart into."""
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    if prediction.dtype.itemsize == 2:
        given = target.float() if target.is_floating_point() else target
        return _reduced(prediction.float(), given, class_weights, what).to(prediction.dtype)
    loss, reduction, parameters, ignore, _ = json.loads(what)
    rows, indices = loss in kernels.WHOLE_ARRAY, target.ndim < prediction.ndim
    axis, size = parameters.get("axis", -1), prediction.numel()
    classes = prediction.shape[axis] if rows else 1
    value_alone = not (prediction.requires_grad and torch.is_grad_enabled())
    least = LARGE
    if rows or pointwise.computes(loss):
        least = LARGE_VALUE if value_alone else LARGE_COMPUTED
    classes_last = rows and guard_or_false(prediction.stride(axis) == 1)
    if rows and not classes_last:
        least = LARGE_VALUE  # the compiler's loops are slow to spread units along an inner axis
    dense = prediction.is_contiguous() and target.is_contiguous()
    if reduction == "none" or not (rows or dense):
        least = 1 << 62  # the compiler's loops read it where it lies
    # Sizes that depend on data are the kernel's.
    traced = prediction.dtype == torch.float32 and (indices or hasattr(formulas, loss))
    traced = traced and guard_or_false(size < least)
    weights, count = None, torch.sym_max(size // classes, 1)
    if ignore is not None:
        weights = torch.ne(target, int(ignore))
        target, count = where(weights, target, 0), weights.sum()
    if class_weights is not None:
        of_target = class_weights.to(prediction.dtype)[target.clamp(0, classes - 1)]
        weights = of_target if weights is None else where(weights, of_target, 0.0)
        count = weights.sum() if reduction == "mean" else count
    if isinstance(count, Tensor):
        count = where(count == 0, 1, count)
    if reduction == "batch_mean":
        count = torch.sym_max(prediction.shape[0], 1)
    elif reduction in ("sum", "none"):
        count = 1
    formula = in_torch.formula(loss, parameters, weights) if traced else None
    if formula is not None:
        if indices:
            target = _existing(target, classes)
        if reduction == "none":
            return in_torch.values(prediction, target, formula)
        return in_torch.total(prediction, target, formula) / count
    if indices and classes_last:  # as they lie, and so their gradient
        prediction, parameters["axis"] = prediction.movedim(axis, -1), -1
    value, both = _operations(loss)
    divisor = count if weights is None else 1
    numbers = None if weights is None else weights.to(prediction.dtype)
    more = (numbers, divisor, json.dumps(parameters))
    if value_alone:
        found = value(prediction, target, *more)
    else:
        found = in_torch.total(prediction, target, lambda *arrays: both(*arrays, *more))
    return found if weights is None else found / count


_LIBRARY.define(
    "reduced(Tensor prediction, Tensor target, Tensor? class_weights, str what) -> Tensor"
)
_LIBRARY.impl("reduced", _reduced, "CompositeImplicitAutograd")
_operation = torch.ops.lossary.reduced.default


@functools.cache
def _operations(loss: str) -> tuple[Any, Any]:
    """The kernel's operations: the sum divided by ``count``; and with its gradient beside it."""

    def value(
        prediction: Tensor, target: Tensor, weights: Tensor | None, count: int, parameters: str
    ) -> Tensor:
        return _run(loss, prediction, target, weights, None, count, parameters)

    def both(
        prediction: Tensor, target: Tensor, weights: Tensor | None, count: int, parameters: str
    ) -> Any:
        gradient = memory.tensor(prediction, contiguous=True)
        return _run(loss, prediction, target, weights, gradient, count, parameters), gradient

    def scalar(prediction: Tensor, *rest: Any) -> Tensor:
        return prediction.new_empty(())

    def scalar_and_whole(prediction: Tensor, *rest: Any) -> Any:
        whole = torch.empty_like(prediction, memory_format=torch.contiguous_format)
        return prediction.new_empty(()), whole

    given = "(Tensor prediction, Tensor target, Tensor? weights, SymInt count, str parameters)"
    for name, results, run, shapes in (
        (f"{loss}_sum", "Tensor", value, scalar),
        (f"{loss}_sum_and_slope", "(Tensor, Tensor)", both, scalar_and_whole),
    ):
        _LIBRARY.define(f"{name}{given} -> {results}")
        _LIBRARY.impl(name, run, "CPU")
        _LIBRARY.impl(name, shapes, "Meta")
    ours = torch.ops.lossary
    return getattr(ours, f"{loss}_sum").default, getattr(ours, f"{loss}_sum_and_slope").default


def _run(
    loss: str, prediction: Tensor, target: Tensor, weights: Tensor | None,
    gradient: Tensor | None, count: int, text: str,
) -> Tensor:  # fmt: skip
    bound, parameters = _bound(loss, prediction.shape, prediction.dtype, target.dtype, text)
    return bound.run(prediction, target, weights, gradient, None, 1.0 / count, parameters)


def _existing(target: Tensor, classes: Any) -> Tensor:
    """The class indices, which must exist: the compiler's own check would end the process."""
    there = (target >= 0) & (target < classes)
    torch._assert_async(there.all(), _NO_SUCH_CLASS)
    return target.clamp(0, classes - 1)  # from which the compiler sees that it need not check


_NO_SUCH_CLASS = (
    "cross_entropy: a class index of the target is not in 0..classes - 1 (without torch.compile "
    "the error says which); give such samples weight 0, or set ignore="
)


@functools.lru_cache(maxsize=256)
def _bound(loss: str, shape: Any, dtype: Any, target_dtype: Any, text: str) -> Any:
    """The kernel for tensors of this shape and these dtypes, and its parameters."""
    return on_torch.fixed(loss), json.loads(text)
