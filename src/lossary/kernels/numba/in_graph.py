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
    """What a compiler is to trace for a loss of its inputs and what comes beside them.

    None: nothing; the function returns None, too, outside of a compiler and for tensors that no
    kernel takes. It must be made before the compiler runs: this search cannot be traced. What may
    come beside: class weights, weights and a mask of the units' leading dimensions, and one
    ``pos_weight`` for each index of the last axis.
    """
    if ("numba.on_torch" not in kernels.manifest().get((loss, "torch"), ())) or available.why_not():
        return None
    rows, elementwise = loss in kernels.WHOLE_ARRAY, hasattr(formulas, loss)
    places, inputs = kernels.differentiated(loss), len(kernels.inputs_of(loss))
    if inputs != 2 and not elementwise:
        return None
    softmax = loss == "cross_entropy"
    if (rows and not softmax and reduction == "none") or (ignore is not None and not softmax):
        return None
    if ignore is not None and not float(ignore).is_integer():
        return None
    if kernels.WHOLE_ARRAY.get(loss) == "dice":  # its units depend on its parameters
        return None
    if not rows and pointwise.decline(loss, (), (), parameters) is not None:
        return None
    try:
        what = json.dumps([loss, reduction, dict(parameters), ignore, _version()])
    except TypeError:  # a parameter that is no plain number
        return None
    axis = parameters.get("axis", -1) if softmax else None
    smoothed, unreduced = bool(parameters.get("label_smoothing")), reduction == "none"
    _operations(loss)

    # A compiler asks again at each call for whatever it met from outside: so, as little as can be.
    def call(
        arrays: tuple[Tensor, ...], class_weights: Tensor | None, weights: Tensor | None,
        mask: Tensor | None, pos_weight: Tensor | None,
    ) -> Any:  # fmt: skip
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
        beside = weights is not None or mask is not None
        if beside and not ((indices or elementwise) and _lead(weights, mask, target.shape)):
            return None
        if pos_weight is not None and not elementwise:
            return None
        if pos_weight is not None and pos_weight.shape not in ((), (1,), target.shape[-1:]):
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
            if unreduced or pos_weight is not None:
                return None
            # Loaded with the compiler, which is the only one to come here.
            from torch.fx.experimental.symbolic_shapes import guard_or_false

            if size not in (4, 8) or guard_or_false(prediction.numel() < SMALLEST):
                return None
            if not (prediction.is_contiguous() and target.is_contiguous()):
                return None  # the definition reads it where it lies
        return _operation([prediction, target], class_weights, weights, mask, pos_weight, what)

    def several(
        arrays: tuple[Tensor, ...], class_weights: Tensor | None, weights: Tensor | None,
        mask: Tensor | None, pos_weight: Tensor | None,
    ) -> Any:  # fmt: skip
        if not compiling() or len(arrays) != inputs or transforming() or class_weights is not None:
            return None
        for place, array in enumerate(arrays):
            if type(array).__name__ not in ("Tensor", "Parameter") or not array.is_cpu:
                return None
            if array.dtype != arrays[0].dtype or array.shape != arrays[0].shape:
                return None
            if array.requires_grad and place not in places:
                return None
        if not arrays[0].is_floating_point() or arrays[0].dtype.itemsize > 4:
            return None
        if not _lead(weights, mask, arrays[0].shape):
            return None
        return _operation(list(arrays), None, weights, mask, None, what)

    return call if inputs == 2 else several


def _lead(weights: Tensor | None, mask: Tensor | None, units: torch.Size) -> bool:
    """Whether these are constants of the units' leading dimensions."""
    for each in (weights, mask):
        if each is not None:
            if type(each).__name__ not in ("Tensor", "Parameter") or each.requires_grad:
                return False
            if each.shape != units[: each.ndim]:
                return False
    return True


@functools.cache
def _version() -> str:
    """Of what the operation is made of: compilers keep their results on disk."""
    modules = (sys.modules[__name__], in_torch, pointwise, formulas, elementary)
    text = "".join(map(inspect.getsource, modules))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reduced(
    arrays: list[Tensor], class_weights: Tensor | None, weights: Tensor | None,
    mask: Tensor | None, pos_weight: Tensor | None, what: str,
) -> Tensor:  # fmt: skip
    """What the compiler takes ``lossary::reduced`` apart into."""
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    prediction, target, *more = arrays
    if prediction.dtype.itemsize == 2:
        wide = [array.float() if array.is_floating_point() else array for array in arrays]
        beside = (class_weights, weights, mask, pos_weight)
        return _reduced(wide, *beside, what).to(prediction.dtype)
    loss, reduction, parameters, ignore, _ = json.loads(what)
    places = kernels.differentiated(loss)
    rows, indices = loss in kernels.WHOLE_ARRAY, target.ndim < prediction.ndim
    axis, size = parameters.get("axis", -1), prediction.numel()
    classes = prediction.shape[axis] if rows else 1
    derived = any(arrays[place].requires_grad for place in places)
    value_alone = not (derived and torch.is_grad_enabled())
    least = LARGE
    if rows or pointwise.computes(loss):
        least = LARGE_VALUE if value_alone else LARGE_COMPUTED
    classes_last = rows and guard_or_false(prediction.stride(axis) == 1)
    if rows and not classes_last:
        least = LARGE_VALUE  # the compiler's loops are slow to spread units along an inner axis
    dense = prediction.is_contiguous() and target.is_contiguous()
    # The compiler's loops read it where it lies.
    own = reduction == "none" or not (rows or dense) or pos_weight is not None or bool(more)
    traced = prediction.dtype == torch.float32 and (indices or hasattr(formulas, loss))
    # Sizes that depend on data are the kernel's.
    traced = traced and (own or guard_or_false(size < least))
    count, kept, numbers = torch.sym_max(size // classes, 1), None, None
    if mask is not None:
        kept = _led(mask != 0, target)
    if ignore is not None:
        there = torch.ne(target, int(ignore))
        kept = there if kept is None else kept & there
    if kept is not None:
        count = kept.sum()
        target = where(kept, target, 0) if indices else target
    if class_weights is not None:
        numbers = class_weights.to(prediction.dtype)[target.clamp(0, classes - 1)]
    if weights is not None:
        led = _led(weights.to(prediction.dtype), target)
        numbers = led if numbers is None else numbers * led
    weights = kept
    if numbers is not None:
        weights = numbers if kept is None else where(kept, numbers, 0.0)
        count = weights.sum() if reduction == "mean" else count
    if isinstance(count, Tensor):
        count = where(count == 0, 1, count)
    if reduction == "batch_mean":
        count = torch.sym_max(prediction.shape[0], 1)
    elif reduction in ("sum", "none"):
        count = 1
    if pos_weight is not None:
        parameters["pos_weight"] = pos_weight.to(prediction.dtype)
    formula = in_torch.formula(loss, parameters, weights) if traced else None
    if formula is not None:
        if indices:
            target = _existing(target, classes)
        inputs = (prediction, target, *more)
        if reduction == "none":
            return in_torch.values(inputs, formula, places, target.shape)
        return in_torch.total(inputs, formula, places) / count
    if indices and classes_last:  # as they lie, and so their gradient
        prediction, parameters["axis"] = prediction.movedim(axis, -1), -1
    value, both = _operations(loss)
    divisor = count if weights is None else 1
    numbers = None if weights is None else weights.to(prediction.dtype).contiguous()
    rest = (numbers, divisor, json.dumps(parameters))
    if value_alone:
        found = value(prediction, target, *rest)
    else:
        found = in_torch.total((prediction, target), lambda *pair: both(*pair, *rest), places)
    return found if weights is None else found / count


_LIBRARY.define(
    "reduced(Tensor[] arrays, Tensor? class_weights, Tensor? weights, Tensor? mask, "
    "Tensor? pos_weight, str what) -> Tensor"
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
    into = None if gradient is None else (gradient,)
    return bound.run((prediction, target), weights, into, None, 1.0 / count, parameters)


def _led(numbers: Tensor, units: Tensor) -> Tensor:
    """Numbers of the leading dimensions, one for each unit."""
    return numbers.reshape(*numbers.shape, *(1,) * (units.ndim - numbers.ndim)).expand(units.shape)


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
