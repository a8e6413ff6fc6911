"""The arrays of one call: checked against the contract, converted, and blanked under the mask.

Shapes and dtypes are checked, never values (but for class indices, where they can be seen): the
checks are static, so they cost nothing under a compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lossary.contract import ANYTHING, Array, Contract, LossError, Space
from lossary.cost import spread
from lossary.numerics import below_zero, interior, log1mexp, sigmoid
from lossary.xp import namespace, to_numpy, visible

Arrays = dict[str, Array]


def _log_odds(probability: Array) -> Array:
    xp = namespace(probability)
    inside = interior(probability)
    return xp.log(inside) - xp.log1p(-inside)


def _log_odds_of_log(log_probability: Array) -> Array:
    inside = below_zero(log_probability)
    return inside - log1mexp(inside)


def _log(positive: Array) -> Array:
    return namespace(positive).log(positive)


def _log_inside(probability: Array) -> Array:
    return _log(interior(probability))


def unchanged(x: Array) -> Array:
    """What the definition takes already."""
    return x


# How predictions may arrive, by the space that a definition takes; the first is that space itself.
CONVERSIONS: Mapping[str, Mapping[str, Callable[[Array], Array]]] = {
    "logit": {
        "logits": unchanged,
        "probabilities": _log_odds,
        "log_probabilities": _log_odds_of_log,
    },
    "class logits": {
        "logits": unchanged,
        "probabilities": _log_inside,
        "log_probabilities": unchanged,
    },
    "log rate": {"log_rates": unchanged, "rates": _log},
    "log variance": {"log_variances": unchanged, "variances": _log},
    "mask": {"probabilities": unchanged, "logits": sigmoid},
}


def arrivals(contract: Contract) -> tuple[str, ...]:
    """The ways in which predictions of this loss may arrive; the canonical one first."""
    first = contract.inputs[contract.predictions[0]] if contract.predictions else None
    ways = list(CONVERSIONS.get(first.name, {}) if first else {})
    return tuple(ways + [form for form in contract.forms if form not in ways])


def check(contract: Contract, arrays: Arrays, parameters: Mapping[str, Any]) -> None:
    """Raise a LossError where libraries, dtypes, shapes or visible class indices do not fit."""
    name = contract.name
    try:
        xp = namespace(*arrays.values())
    except LossError as error:
        raise LossError(f"{name}: {error}") from None
    for argument, array in arrays.items():
        _check_dtype(xp, contract, argument, array)
    if contract.predictions:
        _check_shapes(contract, arrays, parameters)


def _check_dtype(xp: Any, contract: Contract, argument: str, array: Array) -> None:
    dtype = array.dtype
    nested = getattr(array, "is_nested", None)  # None: not of PyTorch
    if nested:
        raise LossError(
            f"{contract.name}: {argument} is nested, expected a tensor of one shape; pass its "
            ".values(), or pad it and give a mask"
        )
    if nested is not None and "sparse" in str(array.layout):
        raise LossError(
            f"{contract.name}: {argument} is {array.layout}, expected a dense tensor; "
            "pass its .to_dense()"
        )
    if xp.isdtype(dtype, "complex floating"):
        raise LossError(
            f"{contract.name}: {argument} is {dtype}; losses take real numbers: pass its real "
            "part, its absolute value, or both parts as channels"
        )
    if argument in contract.predictions and not xp.isdtype(dtype, "real floating"):
        raise LossError(
            f"{contract.name}: {argument} is {dtype}, expected a floating-point prediction; "
            "were prediction and target exchanged? else convert it to float32"
        )


def _check_shapes(contract: Contract, arrays: Arrays, parameters: Mapping[str, Any]) -> None:
    first_name = contract.predictions[0]
    first = arrays[first_name]
    shape = tuple(first.shape)
    layout = contract.inputs[first_name].layout
    if layout == "class axis":
        axis = class_axis(contract, first, parameters)
        without = shape[:axis] + shape[axis + 1 :]
    elif layout == "row":
        if len(shape) < 2:
            raise LossError(
                f"{contract.name}: {first_name} has shape {shape}, expected (rows, features)"
            )
        axis, without = len(shape) - 1, shape[:-1]
    elif layout == "steps":
        if len(shape) != 3:
            raise LossError(
                f"{contract.name}: {first_name} has shape {shape}, expected (batch, steps, classes)"
            )
        axis, without = 2, shape[:1]
    else:
        axis, without = -1, shape
        _check_region(contract, first_name, shape, parameters)
    for name, array in arrays.items():
        came, space = tuple(array.shape), contract.inputs[name]
        if name == first_name:
            continue
        if space.layout == "tensor":
            if layout == "row" and (len(came) != 2 or came[1] != shape[-1]):
                raise LossError(
                    f"{contract.name}: {name} has shape {came} but {first_name} has shape {shape}; "
                    f"expected (rows, {shape[-1]}): as many features as {first_name}"
                )
            continue
        if space.layout == "class" and layout == "class axis":
            if came == shape:
                continue
            if came != without:
                raise _shape_error(contract, name, came, first_name, shape, without, axis)
        elif space.layout == "label":
            if came != without:
                raise _shape_error(contract, name, came, first_name, shape, without, None)
        elif space.layout == "sequence":
            if len(came) != 2 or came[:1] != without:
                raise LossError(
                    f"{contract.name}: {name} has shape {came} but {first_name} has shape {shape}; "
                    f"expected ({without[0]}, length): a row of class indices per sequence, padded"
                )
        elif space is ANYTHING and _may_be_classes(array, came, shape):
            continue
        elif came != shape:
            raise _shape_error(contract, name, came, first_name, shape, shape, None)


def _may_be_classes(array: Array, came: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """An unannotated target of whole numbers that lacks one axis of the prediction."""
    if not namespace(array).isdtype(array.dtype, "integral"):
        return False
    return any(came == shape[:axis] + shape[axis + 1 :] for axis in range(len(shape)))


def _check_region(
    contract: Contract, name: str, shape: tuple[int, ...], parameters: Mapping[str, Any]
) -> None:
    """Masks and images have axes of their own beside the batch's."""
    if contract.inputs[name].layout == "image" and not 3 <= len(shape) <= 5:
        raise LossError(
            f"{contract.name}: {name} has shape {shape}, expected (batch, channels, d1[, d2[, d3]])"
            f"; add the missing axes, as in {name}[:, None]"
        )
    whole = contract.unit is not None and contract.unit.name == "region"
    if whole and len(shape) < 2 and parameters.get("axis") is None:
        raise LossError(
            f"{contract.name}: {name} has shape {shape}, expected (regions, ...); for one region "
            f"use {name}[None]"
        )


def class_axis(contract: Contract, prediction: Array, parameters: Mapping[str, Any]) -> int:
    """The class axis, counted from the front."""
    axis = parameters.get("axis", -1)
    if prediction.ndim == 0 or not -prediction.ndim <= axis < prediction.ndim:
        raise LossError(
            f"{contract.name}: axis={axis} does not exist in a prediction of shape "
            f"{tuple(prediction.shape)}"
        )
    return int(axis) % int(prediction.ndim)


def count_classes(contract: Contract, arrays: Arrays, parameters: Mapping[str, Any]) -> int | None:
    """How many classes there are: along the class axis, or learned rows; None without classes."""
    if contract.target is not None and contract.target.layout == "class":
        prediction = arrays[contract.predictions[0]]
        return int(prediction.shape[class_axis(contract, prediction, parameters)])
    if contract.target is not None and contract.target.layout == "label" and contract.learned:
        return int(arrays[contract.learned[0]].shape[0])
    return None


def _shape_error(
    contract: Contract,
    name: str,
    came: tuple[int, ...],
    first_name: str,
    shape: tuple[int, ...],
    wanted: tuple[int, ...],
    axis: int | None,
) -> LossError:
    expected = (
        f"{wanted}" if axis is None else f"{wanted} (class indices) or {shape} (one-hot or soft)"
    )
    return LossError(
        f"{contract.name}: {name} has shape {came} but {first_name} has shape {shape}; "
        f"expected {expected}; {_shape_advice(name, came, first_name, shape, wanted, axis)}"
    )


def _shape_advice(
    name: str,
    came: tuple[int, ...],
    first_name: str,
    shape: tuple[int, ...],
    wanted: tuple[int, ...],
    axis: int | None,
) -> str:
    if shape == (*came, 1) and axis is None:
        return f"nothing is broadcast: use {first_name}[..., 0]"
    if came == (*wanted, 1):
        return f"nothing is broadcast: use {name}[..., 0]"
    if axis is not None:
        for other in range(len(shape)):
            if other != axis and came == shape[:other] + shape[other + 1 :]:
                return f"if the classes are on axis {other}, say axis={other}"
    if sorted(came) == sorted(wanted) and came != wanted:
        return f"transpose {name}"
    return f"reshape {name}: nothing is broadcast"


def check_classes(
    contract: Contract, arrays: Arrays, parameters: Mapping[str, Any], mask: Array | None
) -> None:
    """Raise a LossError where a visible class index that counts is outside the classes."""
    name, space = contract.target_name, contract.target
    if name is None or space is None or not contract.predictions:
        return
    target, prediction = arrays[name], arrays[contract.predictions[0]]
    if not visible(target) or 0 in tuple(target.shape):
        return
    xp = namespace(target)
    if space.layout == "sequence":
        _check_sequences(contract, arrays, parameters, mask)
        return
    classes = count_classes(contract, arrays, parameters)
    if classes is None or (space.layout == "class" and target.ndim >= prediction.ndim):
        return
    if mask is not None:
        target = xp.where(
            spread(mask, target, "mask", contract.name), target, xp.zeros_like(target)
        )
    ends = xp.min(target), xp.max(target)
    if not visible(ends[0]):  # JAX traces what is made of visible arrays, too
        return
    low, high = map(int, ends)
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        hint = f"mark positions to skip with ignore={wrong}"
        if low == 1 and high == classes:
            hint = "subtract 1: classes are counted from 0"
        raise LossError(
            f"{contract.name}: {name} holds class {wrong}, but the prediction has {classes} "
            f"classes (0 to {classes - 1}); {hint}"
        )


def _check_sequences(
    contract: Contract, arrays: Arrays, parameters: Mapping[str, Any], mask: Array | None
) -> None:
    """Raise a LossError where a visible length or label of a sequence that counts cannot be."""
    name, blank = contract.name, parameters["blank"]
    _, steps, classes = arrays[contract.predictions[0]].shape
    if not 0 <= blank < classes:
        raise LossError(f"{name}: blank={blank} is no class: there are {classes}, counted from 0")
    lengths = [key for key, space in contract.inputs.items() if space.name == "length"]
    if not all(visible(array) for array in (mask, *map(arrays.get, lengths)) if array is not None):
        return
    target = to_numpy(arrays[str(contract.target_name)])
    keep = np.ones(len(target), bool) if mask is None else to_numpy(mask).astype(bool)
    for key, most in zip(lengths, (steps, target.shape[1]), strict=True):
        given = to_numpy(arrays[key])[keep]
        wrong = given[(given < 0) | (given > most)]
        if len(wrong):
            raise LossError(f"{name}: {key} holds {wrong[0]}, expected lengths from 0 to {most}")
    written = np.arange(target.shape[1]) < to_numpy(arrays[lengths[1]])[:, None]
    labels = target[written & keep[:, None]]
    wrong = labels[(labels < 0) | (labels >= classes) | (labels == blank)]
    if len(wrong):
        raise LossError(
            f"{name}: {contract.target_name} holds {wrong[0]} within {lengths[1]}, expected "
            f"classes from 0 to {classes - 1} without the blank, {blank}; shorten the length"
        )


def check_values(contract: Contract, arrays: Arrays) -> None:
    """Raise a LossError where a visible value lies outside its space, or is NaN."""
    for name, array in arrays.items():
        space = contract.inputs[name]
        xp = namespace(array)
        if not visible(array) or not xp.isdtype(array.dtype, "real floating"):
            continue
        bad = xp.isnan(array)
        if space.layout != "class":
            bad = xp.logical_or(bad, outside(array, space))
        count = int(xp.sum(xp.astype(bad, xp.int64)))
        if count:
            raise LossError(
                f"{contract.name}: {count} of {int(bad.size) if hasattr(bad, 'size') else 'the'} "
                f"values of {name} are NaN or outside {space.name} {space.interval}; "
                "convert them or mask them"
            )


def outside(array: Array, space: Space) -> Array:
    """Where values lie outside the space's interval."""
    xp, interval = namespace(array), space.interval
    low = array < interval.low if interval.closed in ("both", "left") else array <= interval.low
    high = array > interval.high if interval.closed in ("both", "right") else array >= interval.high
    return xp.logical_or(low, high)


def casts(contract: Contract, arrays: Arrays) -> tuple[dict[str, Any], Any]:
    """The dtype to compute in, for each input that has another; and the dtype of the result.

    The result has the prediction's dtype; half precision is computed in float32. Targets that are
    not class indices or labels are cast to the prediction's dtype.
    """
    first = arrays[contract.predictions[0]] if contract.predictions else next(iter(arrays.values()))
    xp = namespace(first)
    wide = xp.float32 if xp.finfo(first.dtype).bits < 32 else first.dtype
    needed = {}
    for name, array in arrays.items():
        space = contract.inputs[name]
        codes = space.layout in ("label", "sequence") and space.integral
        codes = codes or (space.layout == "class" and array.ndim == first.ndim - 1)
        codes = codes or (space is ANYTHING and not xp.isdtype(array.dtype, "real floating"))
        if not codes and array.dtype != wide:
            needed[name] = wide
    return needed, first.dtype


def convert(contract: Contract, arrays: Arrays, arrival: str) -> Arrays:
    """The first prediction as the definition takes it."""
    name = contract.predictions[0]
    conversion = CONVERSIONS[contract.inputs[name].name][arrival]
    return arrays | {name: conversion(arrays[name])}
