# mypy: disable-error-code="no-untyped-call"
"""What the operation ``lossary::reduced`` of a graph of torch.compile is taken apart into.

Large arrays go to a compiled kernel, an operation that makes value and slope in one pass; the
compiler multiplies the slope in place, with whatever else it finds to do there. Other arrays go to
the compiler itself, as the kernel's own formula of value and slope, or with slopes made from the
inputs again: to differentiate the definition would be twice the work. Losses whose units read many
numbers, and have no formula, go to their kernel.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import where

from lossary import kernels
from lossary.kernels import formulas, in_torch, pointwise
from lossary.kernels.numba import in_graph
from lossary.kernels.one_pass_torch import led

Tensor = torch.Tensor
# From how many numbers the kernel's operations are worth their calls, with slopes and without:
# formulas that little is computed for (with slopes, where the C library keeps no buffers, so that
# each of the compiler's is new), formulas that much is computed for, softmax.
LARGE, LARGE_COMPUTED, LARGE_SOFTMAX = (1 << 23, 1 << 21), (1 << 18, 1 << 17), 1 << 18
INDEXED = ("cross_entropy", "cross_entropy_of_log_probabilities")  # of class indices


def _reduced(
    arrays: list[Tensor], class_weights: Tensor | None, weights: Tensor | None,
    mask: Tensor | None, pos_weight: Tensor | None, what: str, converted: bool = False,
) -> Tensor:  # fmt: skip
    """What the compiler takes ``lossary::reduced`` apart into."""
    prediction, target, *more = arrays
    if prediction.dtype.itemsize == 2:
        wide = [array.float() if array.is_floating_point() else array for array in arrays]
        beside = (class_weights, weights, mask, pos_weight)
        return _reduced(wide, *beside, what, converted=True).to(prediction.dtype)
    loss, reduction, parameters, ignore, _ = json.loads(what)
    places, derived = kernels.differentiated(loss), False
    for place in places:
        derived = derived or (arrays[place].requires_grad and torch.is_grad_enabled())
    indices = loss in INDEXED and target.ndim < prediction.ndim
    lacking = in_graph.unit_axes(loss, prediction, parameters)
    shape = [length for axis, length in enumerate(prediction.shape) if axis not in lacking]
    weights, count, target = _weighed(
        loss, reduction, ignore, prediction, target, shape, class_weights, weights, mask, indices
    )
    to_the_compiler = _to_the_compiler(
        loss, reduction, parameters, arrays, indices, derived, pos_weight, converted
    )
    if to_the_compiler and loss in INDEXED:
        if indices:
            target = _existing(target, prediction.shape[lacking[0]])
        compute = in_torch.of_classes(loss, parameters["label_smoothing"], soft=not indices)
        values = compute(prediction, target, weights, lacking[0])
        return values if reduction == "none" else values.sum() / count
    if to_the_compiler:
        if pos_weight is not None:
            parameters["pos_weight"] = pos_weight.to(prediction.dtype)
        formula, inputs = in_torch.formula(loss, parameters, weights), (prediction, target, *more)
        if reduction == "none":
            return in_torch.values(inputs, formula, places, shape)
        return in_torch.total(inputs, formula, places) / count
    if indices and prediction.stride(lacking[0]) == 1:  # as they lie, and so their gradient
        prediction, parameters["axis"] = prediction.movedim(lacking[0], -1), -1
        lacking = (prediction.ndim - 1,)
    each = reduction == "none"
    value, both = in_graph.operations(loss)
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


def _to_the_compiler(
    loss: str, reduction: str, parameters: Mapping[str, Any], arrays: list[Tensor], indices: bool,
    derived: bool, pos_weight: Tensor | None, converted: bool,
) -> bool:  # fmt: skip
    """Whether the compiler's own loops are to compute the formula."""
    # Loaded with the compiler, which is the only one to come here.
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    prediction, softmax = arrays[0], loss == "cross_entropy"
    if loss == "cross_entropy_of_log_probabilities":
        return indices and prediction.dtype == torch.float32
    sharp = softmax and not parameters["label_smoothing"]
    if prediction.dtype != torch.float32 or not (indices or sharp or hasattr(formulas, loss)):
        return False
    dense, least = all(array.is_contiguous() for array in arrays), LARGE[not derived]
    last = parameters.get("axis") in (-1, prediction.ndim - 1)
    if softmax and dense and (last or not indices):
        # Smoothed, or of distributions: more sums, which the compiler fuses.
        least = LARGE_SOFTMAX if indices and sharp else 2 * LARGE_SOFTMAX
    elif not softmax and (loss in kernels.WHOLE_ARRAY or pointwise.computes(loss)):
        least = LARGE_COMPUTED[not derived]
    # Gaps in logits are filled in the gradient in the same pass; where classes lie apart, samples
    # are summed side by side.
    # What it reads where it lies or converts as it reads, and what the kernel's operations do not
    # take.
    own = converted or reduction == "none" or pos_weight is not None
    own = own or len(kernels.differentiated(loss)) > 1
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


def _existing(target: Tensor, classes: Any) -> Tensor:
    """The class indices, which must exist: the compiler's own check would end the process."""
    there = (target >= 0) & (target < classes)
    torch._assert_async(there.all(), _NO_SUCH_CLASS)
    return target.clamp(0, classes - 1)  # from which the compiler sees that it need not check


_NO_SUCH_CLASS = (
    "cross_entropy: a class index of the target is not in 0..classes - 1 (without torch.compile "
    "the error says which); give such samples weight 0, or set ignore="
)


_library = torch.library.Library("lossary", "FRAGMENT")
_library.define(
    "reduced(Tensor[] arrays, Tensor? class_weights, Tensor? weights, Tensor? mask, "
    "Tensor? pos_weight, str what) -> Tensor"
)
_library.impl("reduced", _reduced, "CompositeImplicitAutograd")
