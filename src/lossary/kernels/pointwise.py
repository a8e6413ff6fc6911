"""What every toolchain asks about a loss of ``formulas``: its parameters, and what it declines."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from lossary.kernels import elementary, formulas

_FUNCTIONS = {name for name, _ in inspect.getmembers(elementary, inspect.isfunction)} - {"sign"}


@functools.cache
def parameter_names(loss: str) -> tuple[str, ...]:
    """The names of a formula's parameters, in order."""
    return tuple(inspect.signature(getattr(formulas, loss)).parameters)[2:]


@functools.cache
def computes(loss: str) -> bool:
    """Whether a formula has elementary functions; without them the memory is what takes time."""
    return bool(_FUNCTIONS & set(getattr(formulas, loss).__code__.co_names))


def numbers(loss: str, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
    """The parameters as a formula takes them: True as 1, False as 0, None as -1.

    A tuple has one number for each index of the prediction's last axis.
    """
    return tuple(_number(parameters[name]) for name in parameter_names(loss))


def _number(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(float, value))
    return -1.0 if value is None else float(value)


def decline(
    loss: str, shape: tuple[int, ...], dtype: Any, target_shape: tuple[int, ...],
    target_dtype: Any, parameters: Mapping[str, Any],
) -> str | None:  # fmt: skip
    """Why the formula cannot stand in for the loss here; None if it can."""
    if target_dtype != dtype:
        return f"the target is {target_dtype}, the prediction {dtype}"
    if target_shape != shape:
        return f"the target has shape {target_shape}, the prediction {shape}"
    names = parameter_names(loss)
    for name, value in parameters.items():
        unused = value is None or value is False
        if name not in names and not unused:
            return f"{name} has no compiled form"
        if name in names and not (unused or isinstance(value, (int, float))):
            return f"{name} is {type(value).__name__}, the compiled form takes a number"
    return None
