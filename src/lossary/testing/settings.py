"""Parameter values to check a loss at, made from its parameters' intervals."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, get_origin

from lossary.contract import Contract, Interval, Parameter

PER_CLASS = (8.0, 2.0, 4.0)  # class counts, costs: one number for each class of the samples


def parameter_sets(contract: Contract) -> list[dict[str, Any]]:
    """The defaults, then each parameter moved by itself to other members of its interval."""
    base = {name: _first(parameter) for name, parameter in contract.parameters.items()}
    sets = [base]
    for name, parameter in contract.parameters.items():
        sets += [{**base, name: value} for value in _others(parameter, base[name])]
    return sets


def _first(parameter: Parameter) -> Any:
    if not parameter.required:
        return parameter.default
    if parameter.type not in (float, int):  # one number per class
        return PER_CLASS
    return _inside_of(parameter.interval)[0]


def _others(parameter: Parameter, first: Any) -> list[Any]:
    if parameter.name == "axis":
        return []
    if get_origin(parameter.type) is Literal:
        return [choice for choice in get_args(parameter.type) if choice != first]
    if parameter.type is bool or isinstance(first, bool):
        return [not first]
    if parameter.interval is None or not isinstance(first, float):
        return []
    return [value for value in _inside_of(parameter.interval) if value != first][:2]


def _inside_of(interval: Interval) -> list[float]:
    if interval.high < math.inf:
        span = interval.high - interval.low
        return [interval.low + span * share for share in (0.25, 0.625)]
    if interval.low > -math.inf:
        return [interval.low + step for step in (0.5, 2.5)]
    return [0.5, -1.5]
