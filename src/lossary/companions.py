"""What may come beside the arrays of a call: a mask, weights of units, weights of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lossary.contract import Array, Contract, LossError
from lossary.cost import spread
from lossary.inputs import Arrays, class_axis, count_classes
from lossary.numerics import constant
from lossary.xp import is_array, namespace


def companion(what: str, contract: Contract, values: Any, like: Array) -> Array:
    """Weights or a mask as an array of the predictions' library."""
    if not is_array(values):
        return constant(values, like)
    try:
        namespace(like, values)
    except LossError as error:
        raise LossError(f"{contract.name}: {what}: {error}") from None
    return values


def ignored(target: Array, ignore: float) -> Array:
    """True where the target is not the ignored value (NaN understands itself)."""
    xp = namespace(target)
    if ignore != ignore:
        return xp.logical_not(xp.isnan(target))
    return target != ignore


def blank(contract: Contract, arrays: Arrays, mask: Array, parameters: Mapping[str, Any]) -> Arrays:
    """Masked places filled with a harmless member of their space, so no NaN gets through."""
    first = arrays[contract.predictions[0]]
    layout = contract.inputs[contract.predictions[0]].layout
    _check_mask(contract, first, mask, parameters)
    blanked = {}
    for name, array in arrays.items():
        space, xp = contract.inputs[name], namespace(array)
        if space.layout == "tensor":
            blanked[name] = array
            continue
        keep = mask
        per_class = layout == "class axis" and array.ndim == first.ndim
        if per_class and mask.ndim < array.ndim:
            axis = class_axis(contract, first, parameters)
            if mask.ndim == array.ndim - 1:
                keep = xp.expand_dims(mask, axis=axis)
        if keep.ndim < array.ndim:
            keep = xp.reshape(keep, tuple(keep.shape) + (1,) * (array.ndim - keep.ndim))
        example = space.example if xp.isdtype(array.dtype, "real floating") else 0
        blanked[name] = xp.where(keep, array, xp.zeros_like(array) + example)
    return blanked


def _check_mask(
    contract: Contract, first: Array, mask: Array, parameters: Mapping[str, Any]
) -> None:
    came, shape = tuple(mask.shape), tuple(first.shape)
    wanted = [shape]
    if contract.inputs[contract.predictions[0]].layout == "class axis":
        axis = class_axis(contract, first, parameters)
        wanted.append(shape[:axis] + shape[axis + 1 :])
    if all(came != each[: len(came)] for each in wanted):
        raise LossError(
            f"{contract.name}: mask has shape {came}, but the prediction has shape {shape}; give a "
            f"mask of shape {wanted[-1]} or of its leading dimensions"
        )


def units(contract: Contract, prediction: Array, parameters: Mapping[str, Any]) -> Array:
    """An array of the shape of the unreduced values, for its shape and dtype alone."""
    if contract.unit is not None and contract.unit.name == "element":
        return prediction
    if contract.unit is not None and contract.unit.name == "region":
        return prediction[(slice(None), *(0,) * (prediction.ndim - 1))]
    if contract.inputs[contract.predictions[0]].layout == "steps":
        return prediction[:, 0, 0]
    index = [slice(None)] * prediction.ndim
    index[class_axis(contract, prediction, parameters)] = 0  # type: ignore[call-overload]
    return prediction[tuple(index)]


def counted(contract: Contract, mask: Array, values: Array, parameters: Mapping[str, Any]) -> Array:
    """Which units count: the mask, spread to them; a region counts if any of its places does."""
    region = contract.unit is not None and contract.unit.name == "region"
    if region and "mask" in contract.accepts:
        xp, axis = namespace(mask), parameters.get("axis")
        if contract.inputs[contract.predictions[0]].layout == "class axis":
            axis = None  # it names the classes; a region is the rest
        if axis is not None:
            axes = axis if isinstance(axis, tuple) else (axis,)
            missing = values.ndim + len(axes) - mask.ndim
            return xp.any(xp.reshape(mask, tuple(mask.shape) + (1,) * missing), axis=axes)
        if mask.ndim > values.ndim:
            return xp.any(mask, axis=tuple(range(values.ndim, mask.ndim)))
    return spread(mask, values, "mask", contract.name)


def check_class_weights(
    contract: Contract, arrays: Arrays, class_weights: Array, parameters: Mapping[str, Any]
) -> None:
    """Raise a LossError where weights of classes make no sense, or are not one per class."""
    space, classes = contract.target, count_classes(contract, arrays, parameters)
    came = f"{contract.name}: class_weights has shape {tuple(class_weights.shape)}, expected"
    if space is not None and space.name in ("binary", "sign"):
        if tuple(class_weights.shape) != (2,):
            raise LossError(f"{came} (2,): the weight of no and the weight of yes")
    elif classes is None or space is None or space.name not in ("classes", "labels"):
        raise LossError(
            f"{contract.name}: class_weights need a target of classes, not "
            f"{space.name if space else 'none'}; give weights per unit instead"
        )
    elif tuple(class_weights.shape) != (classes,):
        raise LossError(f"{came} ({classes},): one per class")


def class_weights_of(
    contract: Contract, arrays: Arrays, class_weights: Array, parameters: Mapping[str, Any]
) -> Array:
    """The weight of each unit's target class; weights of classes are one vector."""
    target, space = arrays[str(contract.target_name)], contract.target
    first = arrays[contract.predictions[0]]
    xp = namespace(target, class_weights)
    if space is not None and space.name in ("binary", "sign"):
        # A sign of 0 counts as -1, as in the definitions.
        yes = xp.astype(target > 0, class_weights.dtype) if space.name == "sign" else target
        return class_weights[0] * (1 - yes) + class_weights[1] * yes
    classes = count_classes(contract, arrays, parameters)
    if target.ndim == first.ndim - 1:
        known = xp.logical_and(target >= 0, target < classes)
        index = xp.astype(xp.where(known, target, xp.zeros_like(target)), xp.int64)
        flat = xp.take(class_weights, xp.reshape(index, (-1,)), axis=0)
        return xp.reshape(flat, tuple(target.shape))
    axis = class_axis(contract, first, parameters)
    shape = [1] * first.ndim
    shape[axis] = class_weights.shape[0]
    return xp.sum(target * xp.reshape(class_weights, tuple(shape)), axis=axis)
