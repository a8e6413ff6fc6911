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

from lossary.kernels.numba.program import INDEX, Launch, NoSuchClassError, Shape, Shapes

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
    dtypes: tuple[str, ...],
    lacking: tuple[int, ...],
    launch: Callable[[Shapes], Launch],
    factor: float,
) -> float:
    """What ``launch`` of the shapes of a slice's inputs returns, summed.

    ``arrays`` are the inputs, weights, gradients and values, None where not given; ``dtypes`` are
    the kernel's, of the inputs; units lack the axes ``lacking`` of the first input.
    """
    shape, inputs = tuple(arrays[0].shape), len(dtypes)
    kinds = (*dtypes, *dtypes[:1] * (len(arrays) - inputs))
    scratch: list[Array] = [None] * len(arrays)

    def one(arrays: Sequence[Array]) -> float:
        shapes = tuple(tuple(array.shape) for array in arrays[:inputs])
        return _one(library, arrays, kinds, inputs, scratch, launch(shapes), factor)

    block = shape
    if math.prod(shape) > SMALL:
        block = _piece(library, arrays, kinds, shape, lacking) or _block(shape, lacking)
    if block == shape:
        return one(arrays)
    total = 0.0
    for start in itertools.product(*map(range, itertools.repeat(0), shape, block)):
        where = tuple(map(slice, start, map(int.__add__, start, block)))
        of_units = tuple(each for axis, each in enumerate(where) if axis not in lacking)
        parts: list[Array] = [
            None if array is None else array[where if array.ndim == len(shape) else of_units]
            for array in arrays
        ]
        try:
            total += one(parts)
        except NoSuchClassError as wrong:
            first = tuple(low for axis, low in enumerate(start) if axis not in lacking)
            place = _position(wrong.position, arrays[1].shape, parts[1].shape, first)
            raise NoSuchClassError(wrong.loss, place, wrong.classes) from None
    return total


def _one(
    library: Library, arrays: Sequence[Array], kinds: Sequence[str], inputs: int,
    scratch: list[Array], launch: Launch, factor: float,
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
            if role <= inputs:  # weights come after the inputs
                library.copy(room, array)
            else:
                written.append((array, room))
        places.append(library.address(room))
    total = launch(*places, factor)
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
