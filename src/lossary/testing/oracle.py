"""Value and gradient of a textbook formula in high precision, by differences of the formula itself.

No rule of differentiation is used, so the result is independent of every framework's. A derivative
is given by both one-sided ones: where they differ there is a kink, and any number between is right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import mpmath as mp
import numpy as np

from lossary.contract import Contract, Space
from lossary.testing.precision import DTYPES, Exact, excess

DIGITS = 100  # twice the digits of a step, so that a difference of values keeps 50 of them
FINE_DIGITS = 800  # where the derivative is tiny beside the value: the tails of saturating losses
FINE_STEP = mp.mpf(10) ** -200
STEP = mp.mpf(10) ** -50
FLAT = mp.mpf(10) ** -20  # sides that differ less are one
TINY = mp.mpf(10) ** -50  # slopes that differ less are 0
TINY_NUMBER = mp.mpf(10) ** -35
LARGE = 12  # numbers of one unit
MOVES = 24  # roundings tried of one unit: each input's own, or of many together
LOGARITHMIC = ("logit", "class logits", "log rate", "log variance")
COORDINATES = 12  # derivatives taken of one unit, chosen at random where it has more inputs
Oracle = Callable[..., Any]
_OUTSIDE = (ValueError, ZeroDivisionError, OverflowError)


class Truth:
    """What a batch's values and gradients are.

    ``slopes`` gives each prediction's least and greatest derivative of the values' sum (they differ
    at kinks only); NaN marks a coordinate that was not computed.
    """

    def __init__(
        self, values: Exact, slopes: dict[str, tuple[Exact, Exact]], units: Any = ()
    ) -> None:
        self.values = values
        self.slopes = slopes
        self._units: list[_Unit] = list(units)

    def of(self, name: str | None) -> tuple[Exact, Exact]:
        """Least and greatest derivative by a prediction; of None the values, twice."""
        return (self.values, self.values) if name is None else self.slopes[name]

    def excess(self, computed: np.ndarray, dtype: str, name: str | None = None) -> np.ndarray:
        """By which factor each value, or derivative by ``name``, exceeds its tolerance.

        How far roundings of the inputs move a number is costly to find, so it is found where
        4 ulp are exceeded.
        """
        factors = excess(computed, *self.of(name), dtype)
        if self._units and np.any(factors > 1):
            self._widen(name, factors > 1, dtype)
            factors = excess(computed, *self.of(name), dtype)
        return factors

    def _widen(self, name: str | None, where: np.ndarray, dtype: str) -> None:
        """Find the condition of these numbers."""
        rows = where.reshape(len(self._units), -1)
        homes = [exact.wobble[dtype].reshape(rows.shape) for exact in self.of(name)]
        for index in np.flatnonzero(rows.any(axis=1)):
            unit = self._units[index]
            if name is None:
                homes[0][index] = _value_wobble(unit, dtype)
                continue
            places = [(name, int(place)) for place in np.flatnonzero(rows[index])]
            for place, wobble in _slope_wobble(unit, dtype, places).items():
                for home in homes:
                    home[index, place[1]] = wobble


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
    rounded: dict[str, list[Any]] = field(default_factory=dict)  # see _roundings, by dtype

    @cached_property
    def tiny(self) -> bool:
        """Whether it holds numbers beside which the usual step is no small one."""
        return any(
            isinstance(number, mp.mpf) and 0 < abs(number) < TINY_NUMBER
            for array in self.arguments.values()
            for number in array.flat
        )

    @property
    def digits(self) -> int:
        return FINE_DIGITS if self.tiny else DIGITS

    def __call__(
        self, moved: Mapping[tuple[str, int], Any], parameters: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """The oracle's outputs with some flat numbers, or the parameters, replaced."""
        given = {}
        for name, array in self.arguments.items():
            changed = array.copy()
            for (owner, place), number in moved.items():
                if owner == name:
                    changed.flat[place] = number
            given[name] = changed.tolist()
        outputs = self.oracle(*given.values(), **(parameters or self.parameters))
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return [_real(output) for output in outputs]

    def numbers(self, names: Any) -> list[tuple[str, int]]:
        return [(name, place) for name in names for place in range(self.arguments[name].size)]


def truth_of(
    contract: Contract,
    oracle: Oracle,
    batch: Mapping[str, np.ndarray],
    parameters: Mapping[str, Any],
    spaces: Mapping[str, Space] | None = None,
) -> Truth:
    """Values of the oracle for every unit of a batch, and the gradient of their sum.

    ``spaces`` are what the oracle takes, where that is not what the contract says.
    """
    given = {
        key: mp.mpf(value) if isinstance(value, float) else value
        for key, value in parameters.items()
        if key != "axis"
    }
    whole = contract.unit is not None and contract.unit.name in ("anchor", "tensor")
    whole = whole or bool(contract.learned)
    values: list[Any] = []
    units = []
    slopes = {name: np.full(batch[name].shape, None, dtype=object) for name in contract.predictions}
    for index in range(1 if whole else len(next(iter(batch.values())))):
        arguments = {
            name: _exactly(array if whole else array[index]) for name, array in batch.items()
        }
        unit = _Unit(oracle, arguments, given, spaces or contract.inputs)
        unit.places = unit.numbers(contract.predictions)
        most = COORDINATES if len(unit.places) <= LARGE else COORDINATES // 4
        if len(unit.places) > most:
            unit.places = random.Random(index).sample(unit.places, most)
        with mp.workdps(unit.digits):
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


def _normwise(slopes: Any, spaces: Mapping[str, Space], dtype: str) -> Any:
    """What rounding the largest coordinate of vectors does: rotations mix their coordinates.

    So do sequences: the derivative at a step is the difference of two whole distributions.
    """
    largest = max((max(map(abs, pair)) for pair in slopes.values() if pair), default=mp.mpf(0))
    vectors = any(space.layout in ("row", "steps") for space in spaces.values())
    return largest * mp.mpf(float(np.finfo(dtype).eps)) if vectors else mp.mpf(0)


def _value_wobble(unit: _Unit, dtype: str) -> list[float]:
    """How far each value moves when each input moves by one rounding, all added up."""
    values = [mp.mpf(0)] * len(unit.here)
    with mp.workdps(unit.digits):
        for _, outputs, weight in _roundings(unit, dtype):
            for index, one in enumerate(unit.here):
                values[index] += weight * max(abs(one - there[index]) for there in outputs)
    return list(map(float, values))


def _slope_wobble(unit: _Unit, dtype: str, places: list[Any]) -> dict[Any, float]:
    """The same of derivatives; at a kink they have two values already."""
    least = _normwise(unit.slopes, unit.spaces, dtype)
    slopes = {place: least for place in places if not _kink(unit.slopes.get(place))}
    with mp.workdps(unit.digits):
        for ways, outputs, weight in _roundings(unit, dtype):
            for place in slopes:
                others = [
                    _slope(unit, place, there, *way)
                    for way, there in zip(ways, outputs, strict=True)
                ]
                moves = [
                    abs(unit.slopes[place][0] - other) for other in others if other is not None
                ]
                slopes[place] += weight * max(moves, default=mp.mpf(0))
    return {place: float(wobble) for place, wobble in slopes.items()}


def _slopes(unit: _Unit, place: Any) -> tuple[Any, Any] | None:
    """The least and greatest one-sided derivative of the outputs' sum by one number."""
    known = _sides(unit, place, unit.here)
    if not known or unit.tiny:
        return (min(known), max(known)) if known else None
    size = _size(_number(unit, {}, place))
    gap, most = max(known) - min(known), max(map(abs, known))
    total = mp.fsum(map(abs, unit.here))
    tiny = most * size < mp.mpf(10) ** -30 * total
    jump = most * size * STEP > mp.mpf(10) ** -10 * (1 + total)
    if tiny or jump or gap > FLAT * most:
        # Tiny beside the value, or two-sided: a finer step tells curvature from a kink.
        with mp.workdps(FINE_DIGITS):
            known = _sides(unit, place, unit({}), FINE_STEP)
            # A slope that grows with the step's fineness is that of a jump: there is no derivative.
            if not known or max(map(abs, known)) > most / FLAT:
                return None
            if max(known) - min(known) < FLAT * gap:
                known = [mp.fsum(known) / len(known)]
    return min(known), max(known)


def _sides(unit: _Unit, place: Any, here: list[Any], step: Any = STEP) -> list[Any]:
    sides = [_side(unit, {}, place, here, sign, step=step) for sign in (1, -1)]
    return [side for side in sides if side is not None]


def _slope(unit: _Unit, place: Any, here: list[Any], moved: Any, parameters: Any) -> Any:
    """One one-sided derivative: the right, or at the end of the domain the left."""
    for sign in (1, -1):
        side = _side(unit, moved, place, here, sign, parameters)
        if side is not None:
            return side
    return None


def _side(
    unit: _Unit,
    moved: Any,
    place: Any,
    here: list[Any],
    sign: int,
    parameters: Any = None,
    step: Any = STEP,
) -> Any:
    x = _number(unit, moved, place)
    step = step * _size(x)
    try:
        there = unit({**moved, place: x + sign * step}, parameters)
    except _OUTSIDE:  # the formula is not defined beyond the end of its domain
        return None
    return sign * mp.fsum(b - a for a, b in zip(here, there, strict=True)) / step


def _size(x: Any) -> Any:
    """What steps are measured by: never so small that they vanish, nor beyond a tiny number."""
    return abs(x) if 0 < abs(x) < TINY_NUMBER else max(1, abs(x))


def _number(unit: _Unit, moved: Any, place: Any) -> Any:
    return moved[place] if place in moved else unit.arguments[place[0]].flat[place[1]]


def _kink(slopes: tuple[Any, Any] | None) -> bool:
    # Where the slope is 0 both sides show curvature times step: that is no kink.
    return slopes is None or slopes[1] - slopes[0] > max(FLAT * max(map(abs, slopes)), TINY)


Move = tuple[dict[Any, Any], dict[str, Any] | None]  # numbers and parameters that are replaced


def _roundings(unit: _Unit, dtype: str) -> list[tuple[tuple[Move, Move], list[Any], Any]]:
    """(an input moved up, moved down), the outputs of both, and how much they weigh; found once."""
    if dtype not in unit.rounded:
        unit.rounded[dtype] = [
            (ways, [unit(*way) for way in ways], mp.sqrt(count))
            for ways, count in _moves(unit, dtype)
        ]
    return unit.rounded[dtype]


def _moves(unit: _Unit, dtype: str) -> list[tuple[tuple[Move, Move], int]]:
    """(an input moved up, moved down), and how many inputs it stands for.

    Of many inputs several are moved at once, with random signs. Parameters are inputs too.
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
    ways: list[tuple[tuple[Move, Move], int]] = []
    moves = MOVES if len(places) <= 4 * MOVES else MOVES // 4
    for start in range(min(len(places), moves)):
        group = [(place, choice.choice((1, -1))) for place in places[start::moves]]
        up, down = (
            {
                place: _moved(_number(unit, {}, place), way * sign * eps, unit.spaces[place[0]])
                for place, sign in group
            }
            for way in (1, -1)
        )
        ways.append((((up, None), (down, None)), len(group)))
    for name, value in unit.parameters.items():
        if isinstance(value, mp.mpf) and value not in (0, 1):
            more, less = ({**unit.parameters, name: value * (1 + way * eps)} for way in (1, -1))
            ways.append(((({}, more), ({}, less)), 1))
    return ways


def _moved(x: Any, relative: Any, space: Space) -> Any:
    """``x`` moved, towards the inside if the move would leave the space.

    A logarithm is moved by no less than the rounding of its exponential.
    """
    size = max(abs(x), 1) if space.name in LOGARITHMIC else abs(x)
    moved = x + relative * size
    return moved if moved in space.interval or x not in space.interval else x - relative * size


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
