# mypy: disable-error-code="no-untyped-call"
"""Losses inside the graphs of torch.compile, as operations of ``torch.library``.

The compiler's tracer sees one operation for a loss: whatever else it read, it would ask again at
each call. What the operation is made of is decided when its graph is taken apart. Large arrays go
to a compiled kernel, an operation that makes value and slope in one pass; the compiler multiplies
the slope in place, with whatever else it finds to do there. Other arrays go to the compiler itself,
as the kernel's own formula of value and slope: to differentiate the definition would be twice the
work. Losses whose units read many numbers, and have no formula, go to their kernel.
Importing this loads neither Numba nor the compiler.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
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
from lossary.kernels.numba.program import REAL, program
from lossary.kernels.one_pass_torch import led

Tensor = torch.Tensor
Traced = Callable[..., Any]
# From how many numbers the kernel's operations are worth their calls. Formulas that little is
# computed for: where the C library keeps no buffers (above 32 MiB), so that each of the compiler's
# is new. Formulas that much is computed for, with slopes and without. And where there is only the
# definition.
LARGE, LARGE_COMPUTED, LARGE_VALUE, SMALLEST = 1 << 23, 1 << 20, 1 << 18, 1 << 15
SMALLEST_ROWS = 1 << 8  # of units that read many numbers
INDEXED = ("cross_entropy", "cross_entropy_of_log_probabilities")  # of class indices
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
    elementwise, indexed = hasattr(formulas, loss), loss in INDEXED
    if ignore is not None and not float(ignore).is_integer():
        return None
    if kernels.WHOLE_ARRAY.get(loss) == "dice":  # what counts there are places inside of units
        return None
    if loss not in kernels.WHOLE_ARRAY and pointwise.decline(loss, (), (), parameters) is not None:
        return None
    try:
        what = json.dumps([loss, reduction, dict(parameters), ignore, _version()])
    except TypeError:  # a parameter that is no plain number
        return None
    _operations(loss)
    if indexed and parameters.get("label_smoothing") and loss != "cross_entropy":
        return None
    if not (elementwise or indexed):
        return _of_rows(loss, parameters, ignore, what)
    if len(kernels.inputs_of(loss)) > 2:
        return None if ignore is not None else _of_numbers(loss, what)
    return _of_pair(loss, reduction, parameters, ignore, what)


# A compiler asks again at each call for whatever it met from outside: so, as little as can be.


def where_it_runs(loss: str) -> str:
    """What ``explain`` says of graphs."""
    several = hasattr(formulas, loss) and len(kernels.inputs_of(loss)) > 2
    if several or loss == "cross_entropy_of_log_probabilities":
        return "torch's own loops"
    if hasattr(formulas, loss) or loss in INDEXED:
        return "numba if large, else torch's own loops"
    return "numba, but for very small arrays"


def _of_pair(
    loss: str, reduction: str, parameters: Mapping[str, Any], ignore: float | None, what: str
) -> Traced:
    """Of a prediction and its target, for which there is a formula."""
    elementwise, soft = hasattr(formulas, loss), loss == "cross_entropy"
    axis = parameters.get("axis", -1) if loss in INDEXED else None
    smoothed, unreduced = bool(parameters.get("label_smoothing")), reduction == "none"
    apart = loss not in kernels.WHOLE_ARRAY  # each number is a unit

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
        if beside and not ((indices or apart) and _lead(weights, mask, target.shape)):
            return None
        if pos_weight is not None and not apart:
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
        else:
            like = target.dtype == prediction.dtype and target.shape == prediction.shape
            if not like or not (elementwise or soft):
                return None
        if ignore is not None and not indices:
            return None
        size = prediction.dtype.itemsize if prediction.is_floating_point() else 0
        if size not in (2, 4) or not (indices or elementwise or not smoothed):
            if unreduced or pos_weight is not None:
                return None
            # Loaded with the compiler, which is the only one to come here.
            from torch.fx.experimental.symbolic_shapes import guard_or_false

            if size not in (4, 8) or guard_or_false(prediction.numel() < SMALLEST):
                return None
            if not (prediction.is_contiguous() and target.is_contiguous()):
                return None  # the definition reads it where it lies
        return _operation([prediction, target], class_weights, weights, mask, pos_weight, what)

    return call


def _of_numbers(loss: str, what: str) -> Traced:
    """Of several predictions, for which there is a formula."""
    inputs, places = len(kernels.inputs_of(loss)), kernels.differentiated(loss)

    def call(
        arrays: tuple[Tensor, ...], class_weights: Tensor | None, weights: Tensor | None,
        mask: Tensor | None, pos_weight: Tensor | None,
    ) -> Any:  # fmt: skip
        if not compiling() or len(arrays) != inputs or transforming() or class_weights is not None:
            return None
        first = arrays[0]
        for place, array in enumerate(arrays):
            if not _plain(array, place in places) or array.dtype != first.dtype:
                return None
            if array.shape != first.shape:
                return None
        if not first.is_floating_point() or first.dtype.itemsize > 4:
            return None
        if not _lead(weights, mask, first.shape):
            return None
        return _operation(list(arrays), None, weights, mask, None, what)

    return call


def _of_rows(loss: str, parameters: Mapping[str, Any], ignore: float | None, what: str) -> Traced:
    """Of units that read many numbers: the kernel, from a few rows on."""
    inputs, places = len(kernels.inputs_of(loss)), kernels.differentiated(loss)
    given, run = dict(parameters), program(loss)
    anywhere = loss == "ctc"  # the definition reads others where they lie

    def call(
        arrays: tuple[Tensor, ...], class_weights: Tensor | None, weights: Tensor | None,
        mask: Tensor | None, pos_weight: Tensor | None,
    ) -> Any:  # fmt: skip
        if not compiling() or len(arrays) != inputs or transforming() or class_weights is not None:
            return None
        shapes, dtypes = [], []
        for place, array in enumerate(arrays):
            if not _plain(array, place in places) or not (anywhere or array.is_contiguous()):
                return None
            shapes.append(tuple(array.shape))
            dtypes.append(str(array.dtype)[6:])  # without "torch."
        from torch.fx.experimental.symbolic_shapes import guard_or_false

        first = arrays[0]
        if ignore is not None and (inputs != 2 or arrays[1].ndim != first.ndim - 1):
            return None  # what is ignored are class indices
        if dtypes[0] not in REAL or guard_or_false(first.numel() < SMALLEST_ROWS):
            return None
        if run.decline(tuple(shapes), tuple(dtypes), given) is not None:
            return None
        lacking = run.unit_axes(shapes[0], given)
        units = [length for axis, length in enumerate(shapes[0]) if axis not in lacking]
        if not _lead(weights, mask, torch.Size(units)):
            return None
        return _operation(list(arrays), None, weights, mask, None, what)

    return call


def _plain(array: Tensor, differentiated: bool) -> bool:
    """Whether this is a tensor that a kernel may read."""
    if type(array).__name__ not in ("Tensor", "Parameter") or not array.is_cpu:
        return False
    return differentiated or not array.requires_grad


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
    prediction, target, *more = arrays
    if prediction.dtype.itemsize == 2:
        wide = [array.float() if array.is_floating_point() else array for array in arrays]
        beside = (class_weights, weights, mask, pos_weight)
        return _reduced(wide, *beside, what).to(prediction.dtype)
    loss, reduction, parameters, ignore, _ = json.loads(what)
    places, derived = kernels.differentiated(loss), False
    for place in places:
        derived = derived or (arrays[place].requires_grad and torch.is_grad_enabled())
    indices = loss in INDEXED and target.ndim < prediction.ndim
    lacking = _unit_axes(loss, prediction, parameters)
    shape = [length for axis, length in enumerate(prediction.shape) if axis not in lacking]
    weights, count, target = _weighed(
        loss, reduction, ignore, prediction, target, shape, class_weights, weights, mask, indices
    )
    alone = loss == "cross_entropy_of_log_probabilities" and prediction.dtype == torch.float32
    if alone and indices:
        target = _existing(target, prediction.shape[lacking[0]])
        values = in_torch.picked(prediction, target, weights, lacking[0])
        return values if reduction == "none" else values.sum() / count
    formula = None
    if _to_the_compiler(loss, reduction, parameters, arrays, indices, derived, pos_weight):
        if pos_weight is not None:
            parameters["pos_weight"] = pos_weight.to(prediction.dtype)
        formula = in_torch.formula(loss, parameters, weights, soft=not indices)
    if formula is not None:
        if indices:
            target = _existing(target, prediction.shape[lacking[0]])
        inputs = (prediction, target, *more)
        if reduction == "none":
            return in_torch.values(inputs, formula, places, shape)
        return in_torch.total(inputs, formula, places) / count
    if indices and prediction.stride(lacking[0]) == 1:  # as they lie, and so their gradient
        prediction, parameters["axis"] = prediction.movedim(lacking[0], -1), -1
        lacking = (prediction.ndim - 1,)
    each = reduction == "none"
    value, both = _operations(loss)
    divisor = count if weights is None else 1
    numbers = None
    if weights is not None:
        numbers = weights.to(prediction.dtype).contiguous()
    rest = (numbers, divisor, each, json.dumps(parameters))
    inputs = (prediction, target, *more)
    if each:
        units = [1 if axis in lacking else n for axis, n in enumerate(prediction.shape)]

        def unreduced(*inputs: Tensor) -> tuple[Tensor, ...]:
            values, *slopes = both(*inputs, *rest)
            weighed = values if numbers is None else numbers * values  # as the slopes are
            return weighed.reshape(units), *slopes

        if derived:
            return in_torch.values(inputs, unreduced, places, shape)
        values = value(*inputs, *rest)
        return values if numbers is None else numbers * values
    if derived:
        found = in_torch.total(inputs, lambda *inputs: both(*inputs, *rest), places)
    else:
        found = value(*inputs, *rest)
    return found if weights is None else found / count


def _unit_axes(loss: str, prediction: Tensor, parameters: Mapping[str, Any]) -> tuple[int, ...]:
    if loss in kernels.WHOLE_ARRAY:
        return program(loss).unit_axes(tuple(prediction.shape), parameters)
    return ()


def _to_the_compiler(
    loss: str, reduction: str, parameters: Mapping[str, Any], arrays: list[Tensor], indices: bool,
    derived: bool, pos_weight: Tensor | None,
) -> bool:  # fmt: skip
    """Whether the compiler's own loops are to compute the formula."""
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    prediction, softmax = arrays[0], loss == "cross_entropy"
    soft = softmax and not parameters["label_smoothing"]
    if prediction.dtype != torch.float32 or not (indices or soft or hasattr(formulas, loss)):
        return False
    least = LARGE
    if softmax or loss in kernels.WHOLE_ARRAY or pointwise.computes(loss):
        least = LARGE_COMPUTED if derived else LARGE_VALUE
    if softmax and not guard_or_false(prediction.stride(parameters["axis"]) == 1):
        least = LARGE_VALUE  # the compiler's loops are slow to spread units along an inner axis
    dense = all(array.is_contiguous() for array in arrays)
    # What it reads where it lies, and what the kernel's operations do not take.
    own = reduction == "none" or pos_weight is not None or len(arrays) > 2
    # Sizes that depend on data are the kernel's.
    return own or not (softmax or dense) or guard_or_false(prediction.numel() < least)


def _weighed(
    loss: str, reduction: str, ignore: float | None, prediction: Tensor, target: Tensor,
    shape: list[Any], class_weights: Tensor | None, weights: Tensor | None, mask: Tensor | None,
    indices: bool,
) -> tuple[Tensor | None, Any, Tensor]:  # fmt: skip
    """Weights of the units, what their sum is divided by, and the target where it counts."""
    count: Any = torch.sym_max(math.prod(shape), 1)
    kept, numbers = None, None
    if mask is not None:
        kept = led(mask != 0, shape)
    if ignore is not None:
        there = torch.ne(target, int(ignore))
        kept = there if kept is None else kept & there
    if kept is not None:
        count = kept.sum()
        target = where(kept, target, 0) if indices else target
    if class_weights is not None:
        numbers = class_weights.to(prediction.dtype)[target.clamp(0, len(class_weights) - 1)]
    if weights is not None:
        given = led(weights.to(prediction.dtype), shape)
        numbers = given if numbers is None else numbers * given
    found = kept
    if numbers is not None:
        found = numbers if kept is None else where(kept, numbers, 0.0)
        count = found.sum() if reduction == "mean" else count
    if isinstance(count, Tensor):
        count = where(count == 0, 1, count)
    if reduction == "batch_mean":
        count = torch.sym_max(prediction.shape[0], 1)
    elif reduction in ("sum", "none"):
        count = 1
    return found, count, target


_LIBRARY.define(
    "reduced(Tensor[] arrays, Tensor? class_weights, Tensor? weights, Tensor? mask, "
    "Tensor? pos_weight, str what) -> Tensor"
)
_LIBRARY.impl("reduced", _reduced, "CompositeImplicitAutograd")
_operation = torch.ops.lossary.reduced.default


@functools.cache
def _operations(loss: str) -> tuple[Any, Any]:
    """The kernel's operations: the sum divided by ``count``; and with its gradients beside it.

    With ``each`` they give the unreduced values instead of the sum.
    """
    places, inputs = kernels.differentiated(loss), kernels.inputs_of(loss)

    def value(*given: Any) -> Tensor:
        return _run(loss, given, None)

    def both(*given: Any) -> Any:
        gradients = tuple(memory.tensor(given[place], contiguous=True) for place in places)
        return _run(loss, given, gradients), *gradients

    def empty(*given: Any) -> Tensor:
        *_, each, text = given
        return _empty(loss, given[0], each, text)

    def empties(*given: Any) -> Any:
        kind = torch.contiguous_format
        return empty(*given), *(
            torch.empty_like(given[place], memory_format=kind) for place in places
        )

    named = ", ".join(f"Tensor {name}" for name in inputs)
    schema = f"({named}, Tensor? weights, SymInt count, bool each, str parameters)"
    for name, results, run, shapes in (
        (f"{loss}_value", "Tensor", value, empty),
        (f"{loss}_value_and_slopes", f"(Tensor{', Tensor' * len(places)})", both, empties),
    ):
        _LIBRARY.define(f"{name}{schema} -> {results}")
        _LIBRARY.impl(name, run, "CPU")
        _LIBRARY.impl(name, shapes, "Meta")
    ours = torch.ops.lossary
    return (
        getattr(ours, f"{loss}_value").default,
        getattr(ours, f"{loss}_value_and_slopes").default,
    )


def _empty(loss: str, first: Tensor, each: bool, text: str) -> Tensor:
    if not each:
        return first.new_empty(())
    lacking = _unit_axes(loss, first, json.loads(text))
    return first.new_empty([n for axis, n in enumerate(first.shape) if axis not in lacking])


def _run(loss: str, given: tuple[Any, ...], gradients: tuple[Tensor, ...] | None) -> Tensor:
    *arrays, weights, count, each, text = given
    shapes, dtypes = tuple(x.shape for x in arrays), tuple(x.dtype for x in arrays)
    bound, parameters = _bound(loss, shapes, dtypes, text)
    values = _empty(loss, arrays[0], each, text) if each else None
    total = bound.run(tuple(arrays), weights, gradients, values, 1.0 / count, parameters)
    return total if values is None else values


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
def _bound(loss: str, shapes: Any, dtypes: Any, text: str) -> Any:
    """The kernel for tensors of these shapes and dtypes, and its parameters."""
    return on_torch.fixed(loss), json.loads(text)
