"""What every toolchain asks about a loss of ``formulas``: its parameters, and what it declines."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from lossary.kernels import differentiated, elementary, formulas, inputs_of

_FUNCTIONS = {name for name, _ in inspect.getmembers(elementary, inspect.isfunction)} - {"sign"}


@functools.cache
def parameter_names(loss: str) -> tuple[str, ...]:
    """The names of a formula's parameters, in order."""
    taken = inspect.signature(getattr(formulas, loss)).parameters
    return tuple(name for name in taken if name not in inputs_of(loss))


@functools.cache
def names(loss: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Inputs, the slopes by those that are differentiated, and the gradients these go to."""
    inputs = inputs_of(loss)
    by = tuple(inputs[place] for place in differentiated(loss))
    return inputs, tuple(f"{name}_slope" for name in by), tuple(f"{name}_gradient" for name in by)


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
    if isinstance(value, int):  # True and False, too
        return float(value)
    return -1.0 if value is None else value


def decline(
    loss: str, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[Any],
    parameters: Mapping[str, Any],
) -> str | None:  # fmt: skip
    """Why the formula cannot stand in for the loss on such inputs; None if it can."""
    first, *others = inputs_of(loss)
    for name, shape, dtype in zip(others, shapes[1:], dtypes[1:], strict=False):
        if dtype != dtypes[0]:
            return f"the {name} is {dtype}, the {first} {dtypes[0]}"
        if shape != shapes[0]:
            return f"the {name} has shape {shape}, the {first} {shapes[0]}"
    taken = parameter_names(loss)
    for name, value in parameters.items():
        unused = value is None or value is False
        if name not in taken and not unused:
            return f"{name} has no compiled form"
        if name in taken and not (unused or isinstance(value, (int, float))):
            return f"{name} is {type(value).__name__}, the compiled form takes a number"
    return None
