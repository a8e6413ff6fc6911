# mypy: disable-error-code="no-untyped-call"
"""Losses inside the graphs of torch.compile: what its tracer sees.

One operation for a loss: whatever else the tracer read, a compiler would ask again at each call.
What that operation is made of is decided when its graph is taken apart, in ``lowered``.
Importing this loads neither Numba nor the compiler.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

# By name: what is reached through modules is asked for at each call of a graph.
from torch._C import _are_functorch_transforms_active as transforming
from torch.compiler import is_dynamo_compiling as compiling

from lossary import kernels
from lossary.kernels import elementary, formulas, in_torch, lowered, pointwise
from lossary.kernels.lowered import INDEXED, Tensor
from lossary.kernels.numba import available, in_graph
from lossary.kernels.numba.program import REAL, program

Traced = Callable[..., Any]
# From how many numbers the kernel's operation is worth its call where there is only the definition.
SMALLEST = 1 << 15
SMALLEST_ROWS = 1 << 8  # of units that read many numbers
LATER = {  # of those whose definition the compiler makes short work of
    "multilabel_margin": 1 << 10, "jensen_shannon": 1 << 13, "kl_divergence": 1 << 14,
    "contrastive": 1 << 18,
}  # fmt: skip
_operation = torch.ops.lossary.reduced.default


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
    in_graph.operations(loss)
    if indexed and parameters.get("label_smoothing") and loss != "cross_entropy":
        return None
    if not (elementwise or indexed):
        return _of_rows(loss, parameters, ignore, what)
    if len(kernels.differentiated(loss)) > 1:
        return None if ignore is not None else _of_numbers(loss, what)
    return _of_pair(loss, reduction, parameters, ignore, what)


def where_it_runs(loss: str) -> str:
    """What ``explain`` says of graphs."""
    several = hasattr(formulas, loss) and len(kernels.differentiated(loss)) > 1
    if several or loss == "cross_entropy_of_log_probabilities":
        return "torch's own loops"
    if hasattr(formulas, loss) or loss in INDEXED:
        return "numba if large, else torch's own loops"
    return "numba, but for very small arrays"


# A compiler asks again at each call for whatever it met from outside: so, as little as can be.


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
        beside = weights is not None or mask is not None
        if beside and not _lead(weights, mask, first.shape):
            return None
        return _operation(list(arrays), None, weights, mask, None, what)

    return call


def _of_rows(loss: str, parameters: Mapping[str, Any], ignore: float | None, what: str) -> Traced:
    """Of units that read many numbers: the kernel, from a few rows on."""
    inputs, places = len(kernels.inputs_of(loss)), kernels.differentiated(loss)
    given, run, fewest = dict(parameters), program(loss), LATER.get(loss, SMALLEST_ROWS)
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
        if dtypes[0] not in REAL or guard_or_false(first.numel() < fewest):
            return None
        if run.decline(tuple(shapes), tuple(dtypes), given) is not None:
            return None
        if weights is not None or mask is not None:
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
    modules = (lowered, in_graph, in_torch, pointwise, *formulas.MODULES, elementary)
    text = "".join(map(inspect.getsource, modules))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
