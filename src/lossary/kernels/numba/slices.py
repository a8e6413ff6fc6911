"""Kernels on arrays with gaps, in another order or another precision, slice by slice.

A slice that lies in one piece is read and written where it lies. Any other goes through scratch
memory of as many numbers as stay in the cache: nothing large is copied as a whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from lossary.kernels.numba.program import INDEX, Launch, NoSuchClassError, Shape

SLICE = 1 << 20  # numbers that are copied at once: with fewer, threads meet more often
PIECE = 1 << 16  # numbers from which a launch takes less time than copying them
SMALL = 1 << 12  # numbers that are copied in less time than it takes to ask how they lie
Array = Any


class Library(Protocol):
    """Arrays as memory."""

    def whole(self, array: Array, dtype: str) -> bool:
        """Whether these are numbers of this type, one after the other."""

    def address(self, array: Array) -> int: ...

    def empty(self, shape: Shape, dtype: str) -> Array: ...

    def copy(self, into: Array, array: Array) -> None:
        """Converts them, too."""


def run(
    library: Library,
    arrays: Sequence[Array],
    dtypes: tuple[str, str],
    lacking: tuple[int, ...],
    launch: Callable[[Shape], Launch],
    factor: float,
) -> float:
    """What ``launch`` of a slice's shape returns, summed.

    ``arrays`` are prediction, target, weights, gradient and values, None where not given;
    ``dtypes`` are the kernel's, of real numbers and of the target; units lack the axes ``lacking``.
    """
    shape = tuple(arrays[0].shape)
    kinds = (dtypes[0], dtypes[1], *dtypes[:1] * 3)
    scratch: list[Array] = [None] * len(arrays)
    block = shape
    if math.prod(shape) > SMALL:
        block = _piece(library, arrays, kinds, shape, lacking) or _block(shape, lacking)
    if block == shape:
        return _one(library, arrays, kinds, scratch, launch(shape), factor)
    total = 0.0
    for start in itertools.product(*map(range, itertools.repeat(0), shape, block)):
        where = tuple(map(slice, start, map(int.__add__, start, block)))
        of_units = tuple(each for axis, each in enumerate(where) if axis not in lacking)
        parts: list[Array] = [
            None if array is None else array[where if array.ndim == len(shape) else of_units]
            for array in arrays
        ]
        try:
            size = tuple(parts[0].shape)
            total += _one(library, parts, kinds, scratch, launch(size), factor)
        except NoSuchClassError as wrong:
            first = tuple(low for axis, low in enumerate(start) if axis not in lacking)
            place = _position(wrong.position, arrays[1].shape, parts[1].shape, first)
            raise NoSuchClassError(wrong.loss, place, wrong.classes) from None
    return total


def _one(
    library: Library, arrays: Sequence[Array], kinds: Sequence[str], scratch: list[Array],
    launch: Launch, factor: float,
) -> float:  # fmt: skip
    places: list[int] = []
    written = []
    for role, array in enumerate(arrays):
        if array is None:
            places.append(0)
            continue
        kind, room = kinds[role], array
        if not library.whole(array, kind):
            room = scratch[role]
            if room is None or room.shape != array.shape:
                room = scratch[role] = library.empty(array.shape, kind)
            if role < 3:
                library.copy(room, array)
            else:
                written.append((array, room))
        places.append(library.address(room))
    prediction, target, weights, gradient, values = places
    total = launch(prediction, target, weights, gradient, values, factor)
    for array, room in written:
        library.copy(array, room)
    return total


def _piece(
    library: Library, arrays: Sequence[Array], kinds: Sequence[str], shape: Shape,
    lacking: tuple[int, ...],
) -> Shape | None:  # fmt: skip
    """The largest slice along the first axes whose numbers lie in one piece, if it is large.

    Class indices, few beside the logits, may lie as they will.
    """
    reals = [
        (array, kind)
        for array, kind in zip(arrays, kinds, strict=True)
        if array is not None and kind not in INDEX
    ]
    for axis in range(min(lacking, default=len(shape)) + 1):
        if axis and math.prod(shape[axis:]) < PIECE:
            return None
        if all(library.whole(array[(0,) * axis], kind) for array, kind in reals):
            return (1,) * axis + shape[axis:]
    return None


def _block(shape: Shape, lacking: tuple[int, ...]) -> Shape:
    """The largest slice that is copied at once: few of the first axes, whole of the last ones."""
    block = list(shape)
    for axis, length in enumerate(shape):
        numbers = math.prod(block)
        if numbers <= SLICE:
            break
        if axis not in lacking:
            count = -(-length // max(1, SLICE * length // numbers))
            block[axis] = -(-length // count)  # all alike
    return tuple(block)


def _position(position: int, whole: Shape, part: Shape, start: Shape) -> int:
    """Among all class indices, of the one at this position of a part that starts there."""
    inside = np.unravel_index(position, (1, *part))[1:]
    start += (0,) * (len(whole) - len(start))
    where = (0, *(low + int(at) for low, at in zip(start, inside, strict=True)))
    return int(np.ravel_multi_index(where, (1, *whole)))
