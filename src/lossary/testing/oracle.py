"""Value and gradient of a textbook formula in high precision, by differences of the formula itself.

No rule of differentiation is used, so the result is independent of every framework's. A derivative
is given by both one-sided ones: where they differ there is a kink, and any number between is right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mpmath as mp
import numpy as np

from lossary.contract import Contract, Space
from lossary.testing.precision import DTYPES, Exact

DIGITS = 120  # twice the digits of a step, so that a difference of values keeps 60 of them
FINE_DIGITS = 800  # where the derivative is tiny beside the value: the tails of saturating losses
STEP = mp.mpf(10) ** -60
MOVES = 32  # roundings tried of one unit: each input's own, or of many together
COORDINATES = 12  # derivatives taken of one unit, chosen at random where it has more inputs
Oracle = Callable[..., Any]
_OUTSIDE = (ValueError, ZeroDivisionError, OverflowError)


class Truth:
    """What a batch's values and gradients are.

    ``slopes`` gives each prediction's least and greatest derivative of the values' sum (they differ
    at kinks only); NaN marks a coordinate that was not computed. How far roundings of the inputs
    move a number is found out by :meth:`widen`, unit by unit, where it is asked for.
    """

    def __init__(self, values: Exact, slopes: dict[str, tuple[Exact, Exact]], units: Any = ()) -> None:
        self.values = values
        self.slopes = slopes
        self._units: list[_Unit] = list(units)
        self._widened: set[tuple[int, str]] = set()

    def widen(self, units: Any, dtype: str) -> bool:
        """Find the condition of these units; whether anything was learnt."""
        fresh = {int(unit) for unit in units} if len(self._units) > 1 else {0}
        fresh = {unit for unit in fresh if unit < len(self._units) and (unit, dtype) not in self._widened}
        for index in fresh:
            self._widened.add((index, dtype))
            values, slopes = _wobble(self._units[index], dtype)
            whole = len(self._units) == 1
            home = self.values.wobble[dtype]
            (home if whole else home[index : index + 1]).flat[:] = values
            for (name, place), wobble in slopes.items():
                for exact in self.slopes[name]:
                    home = exact.wobble[dtype]
                    (home if whole else home[index : index + 1]).flat[place] = wobble
        return bool(fresh)


@dataclass
class _Unit:
    """One call of the oracle: its arguments, and where each flat number belongs."""

    oracle: Oracle
    arguments: dict[str, np.ndarray]  # name -> object array of mpf (or int for indices)
    parameters: Mapping[str, Any]
    spaces: Mapping[str, Space]
    places: list[tuple[str, int]] = field(default_factory=list)  # where derivatives are taken
    here: list[Any] = field(default_factory=list)
    slopes: dict[Any, Any] = field(default_factory=dict)

    def __call__(self, moved: Mapping[tuple[str, int], Any], scale: Any = 1) -> list[Any]:
        """The oracle's outputs with some flat numbers replaced."""
        given = {}
        for name, array in self.arguments.items():
            changed = array.copy()
            for (owner, place), number in moved.items():
                if owner == name:
                    changed.flat[place] = number
            given[name] = changed.tolist()
        outputs = self.oracle(*given.values(), **_scaled(self.parameters, scale))
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return [_real(output) for output in outputs]

    def numbers(self, names: Any) -> list[tuple[str, int]]:
        return [(name, place) for name in names for place in range(self.arguments[name].size)]


def truth_of(
    contract: Contract, oracle: Oracle, batch: Mapping[str, np.ndarray], parameters: Mapping[str, Any]
) -> Truth:
    """Values of the oracle for every unit of a batch, and the gradient of their sum."""
    given = {key: value for key, value in parameters.items() if key != "axis"}
    whole = contract.unit is not None and contract.unit.name in ("anchor", "tensor")
    values: list[Any] = []
    units = []
    slopes = {name: np.full(batch[name].shape, None, dtype=object) for name in contract.predictions}
    for index in range(1 if whole else len(next(iter(batch.values())))):
        arguments = {
            name: _exactly(array if whole else array[index]) for name, array in batch.items()
        }
        unit = _Unit(oracle, arguments, given, contract.inputs)
        unit.places = unit.numbers(contract.predictions)
        if len(unit.places) > COORDINATES:
            unit.places = random.Random(index).sample(unit.places, COORDINATES)
        with mp.workdps(DIGITS):
            unit.here = unit({})
            unit.slopes = {place: _slopes(unit, place) for place in unit.places}
        values.extend(unit.here)
        units.append(unit)
        for (name, place), pair in unit.slopes.items():
            (slopes[name] if whole else slopes[name][index : index + 1]).flat[place] = pair
    shape = () if contract.unit is not None and contract.unit.name == "tensor" else (len(values),)
    return Truth(
        _exact(values, shape),
        {
            name: (
                _exact([pair and pair[0] for pair in array.flat], array.shape),
                _exact([pair and pair[1] for pair in array.flat], array.shape),
            )
            for name, array in slopes.items()
        },
        units,
    )


def _wobble(unit: _Unit, dtype: str) -> tuple[list[float], dict[Any, float]]:
    """How far values and derivatives move when each input moves by one rounding, all added up."""
    values = [mp.mpf(0)] * len(unit.here)
    slopes = {place: mp.mpf(0) for place, pair in unit.slopes.items() if not _kink(pair)}
    with mp.workdps(DIGITS):
        for moved, scale, count in _roundings(unit, dtype):
            there = unit(moved, scale)
            for index, (one, other) in enumerate(zip(unit.here, there, strict=True)):
                values[index] += mp.sqrt(count) * abs(one - other)
            for place in slopes:
                other = _slope(unit, moved, place, there, scale)
                if other is not None:
                    slopes[place] += mp.sqrt(count) * abs(unit.slopes[place][0] - other)
    return list(map(float, values)), {place: float(wobble) for place, wobble in slopes.items()}


def _slopes(unit: _Unit, place: Any) -> tuple[Any, Any] | None:
    """The least and greatest one-sided derivative of the outputs' sum by one number."""
    known = _sides(unit, place, unit.here)
    total = mp.fsum(map(abs, unit.here))
    size = max(1, abs(_number(unit, {}, place)))
    if known and max(map(abs, known)) * size < mp.mpf(10) ** -30 * total:
        with mp.workdps(FINE_DIGITS):
            known = _sides(unit, place, unit({}))
    return (min(known), max(known)) if known else None


def _sides(unit: _Unit, place: Any, here: list[Any]) -> list[Any]:
    sides = [_side(unit, {}, place, here, sign) for sign in (1, -1)]
    return [side for side in sides if side is not None]


def _slope(unit: _Unit, moved: Any, place: Any, here: list[Any], scale: Any) -> Any:
    """One one-sided derivative: the right, or at the end of the domain the left."""
    for sign in (1, -1):
        side = _side(unit, moved, place, here, sign, scale)
        if side is not None:
            return side
    return None


def _side(unit: _Unit, moved: Any, place: Any, here: list[Any], sign: int, scale: Any = 1) -> Any:
    x = _number(unit, moved, place)
    step = STEP * max(1, abs(x))
    try:
        there = unit({**moved, place: x + sign * step}, scale)
    except _OUTSIDE:  # the formula is not defined beyond the end of its domain
        return None
    return sign * mp.fsum(b - a for a, b in zip(here, there, strict=True)) / step


def _number(unit: _Unit, moved: Any, place: Any) -> Any:
    return moved[place] if place in moved else unit.arguments[place[0]].flat[place[1]]


def _kink(slopes: tuple[Any, Any] | None) -> bool:
    if slopes is None:
        return True
    least, greatest = slopes
    return greatest - least > mp.mpf(10) ** -20 * max(abs(least), abs(greatest))


def _roundings(unit: _Unit, dtype: str) -> list[tuple[Any, Any, int]]:
    """(moved numbers, scale of the parameters, how many were moved): one input at a time.

    Of many inputs several are moved at once, with random signs.
    """
    eps = mp.mpf(float(np.finfo(dtype).eps))
    choice = random.Random(1)
    places = [
        place
        for place in unit.numbers(unit.arguments)
        if isinstance(_number(unit, {}, place), mp.mpf)
        and (not unit.spaces[place[0]].integral or unit.spaces[place[0]].layout == "class")
    ]
    choice.shuffle(places)
    ways: list[tuple[Any, Any, int]] = []
    for start in range(min(len(places), MOVES)):
        group = places[start::MOVES]
        moved = {
            place: _inside(_number(unit, {}, place), choice.choice((1, -1)) * eps, unit.spaces[place[0]])
            for place in group
        }
        ways.append((moved, 1, len(group)))
    if dtype == "float32" and any(map(_rough, unit.parameters.values())):
        ways.append(({}, 1 + eps / 2, 1))
    return ways


def _rough(value: Any) -> bool:
    """Whether float32 cannot hold a parameter."""
    return isinstance(value, float) and value != float(np.float32(value))


def _inside(x: Any, relative: Any, space: Space) -> Any:
    """``x`` moved, towards the inside if the move would leave the space."""
    moved = x * (1 + relative)
    return moved if moved in space.interval or x not in space.interval else x * (1 - relative)


def _scaled(parameters: Mapping[str, Any], scale: Any) -> dict[str, Any]:
    """Parameters as exact numbers; those that float32 cannot hold are moved by a rounding too."""
    return {
        name: mp.mpf(value) * (scale if _rough(value) else 1) if isinstance(value, float) else value
        for name, value in parameters.items()
    }


def _exactly(array: Any) -> np.ndarray:
    """Numbers as mpf, class indices and labels as int, in an object array."""
    array = np.asarray(array)
    result = np.empty(array.shape, dtype=object)
    for place, number in enumerate(array.flat):
        result.flat[place] = int(number) if array.dtype.kind in "iub" else mp.mpf(float(number))
    return result


def _real(value: Any) -> Any:
    if isinstance(value, mp.mpc) or value != value:
        raise ValueError("not a real number: outside the domain")
    return mp.mpf(value)


def _exact(numbers: list[Any], shape: tuple[int, ...]) -> Exact:
    """Numbers as sums of two float64; None becomes NaN."""
    high, low = np.full(len(numbers), np.nan), np.zeros(len(numbers))
    with mp.workdps(DIGITS):
        for index, number in enumerate(numbers):
            if number is not None:
                high[index] = float(number)
                if np.isfinite(high[index]):
                    low[index] = float(number - mp.mpf(high[index]))
    wobble = {dtype: np.zeros(shape) for dtype in DTYPES}
    return Exact(high.reshape(shape), low.reshape(shape), wobble)
