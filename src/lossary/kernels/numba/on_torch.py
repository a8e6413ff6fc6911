"""Compiled kernels on torch tensors."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from lossary.kernels import WHOLE_ARRAY, Kernel
from lossary.kernels.numba import available, memory, slices
from lossary.kernels.numba.program import FROM_SIZE, Launch, Purpose, Shape, Shapes, program
from lossary.kernels.one_pass_torch import HALVES, Arrays, OnePass, Tensor

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
    "int32": torch.int32,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# How losses of single numbers, and those that read classes along any axis, are computed.
_ANY_AXIS = (None, "softmax", "picked", "dice")


def kernel(loss: str) -> Kernel:
    """The compiled kernel of ``loss`` for torch."""
    return _Compiled(loss).kernel(FROM_SIZE)


@functools.cache
def _looking(part: str, real: str, target: torch.dtype) -> Callable[..., float]:
    from lossary.kernels.numba import softmax

    found: Callable[..., float] = softmax.compiled(part, real, _NAMES[target], ())
    return found


def _launched(
    launch: Launch, arrays: Arrays, weights: Tensor | None, gradients: Sequence[Tensor | None],
    values: Tensor | None, factor: float,
) -> Tensor:  # fmt: skip
    if len(arrays) == 2 and len(gradients) == 1:  # as most are: every call comes here
        (first, second), (gradient,) = arrays, gradients
        total = launch(
            first.data_ptr(), second.data_ptr(), 0 if weights is None else weights.data_ptr(),
            0 if gradient is None else gradient.data_ptr(),
            0 if values is None else values.data_ptr(), factor,
        )  # fmt: skip
    else:
        memory = (*arrays, weights, *gradients, values)
        total = launch(*[0 if each is None else each.data_ptr() for each in memory], factor)
    return torch.scalar_tensor(total, dtype=arrays[0].dtype)


class _Memory:
    """Tensors as memory."""

    def whole(self, array: Tensor, dtype: str) -> bool:
        return array.dtype is _DTYPES[dtype] and array.is_contiguous()

    def address(self, array: Tensor) -> int:
        return array.data_ptr()

    def empty(self, shape: Shape, dtype: str) -> Tensor:
        return torch.empty(shape, dtype=_DTYPES[dtype])

    def copy(self, into: Tensor, array: Tensor) -> None:
        into.copy_(array)


_memory = _Memory()


class _Compiled(OnePass):
    toolchain = "numba"
    devices = ("cpu",)
    halves = True
    anywhere = True

    def __init__(self, loss: str) -> None:
        super().__init__(loss)
        self.way = WHOLE_ARRAY.get(loss)
        self.nowhere = (None,) * len(self.places)

    def unavailable(self, device: str) -> str | None:
        return available.why_not()

    def decline(self, arrays: Arrays, parameters: Any) -> str | None:
        placed, parameters = self.arranged(arrays, parameters)
        shapes = tuple(tuple(array.shape) for array in placed)
        return program(self.loss).decline(shapes, self.dtypes(arrays), parameters)

    def dtypes(self, arrays: Arrays) -> tuple[str, ...]:
        """The inputs' types as the kernel reads them; slices in half precision are converted."""
        real = _NAMES.get(arrays[0].dtype, "float32")
        return tuple(
            [
                real if array.dtype in HALVES else _NAMES.get(array.dtype) or str(array.dtype)
                for array in arrays
            ]
        )

    def arranged(
        self, arrays: Sequence[Tensor | None], parameters: Any
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """The arrays with their axes in the order in which the kernel reads them.

        Losses of single numbers read them in memory's order. Classes are read last where they lie
        last, as in ``logits.transpose(1, 2)``, and where the kernel knows no other place.
        """
        prediction = arrays[0]
        assert prediction is not None
        way, last = self.way, prediction.ndim - 1
        if way is None:
            if prediction.numel() <= slices.SMALL or prediction.is_contiguous():
                return arrays, parameters
            if any(isinstance(value, tuple) for value in parameters.values()):  # of the last axis
                return arrays, parameters
            strides = prediction.stride()
            if 0 in strides:
                return arrays, parameters
            order = sorted(range(last + 1), key=lambda axis: -strides[axis])
        else:
            axis = parameters.get("axis", -1)
            if way == "dice" or axis in (-1, last) or not -last <= axis + 1 <= last:
                return arrays, parameters
            axis %= last + 1
            if way in _ANY_AXIS and (prediction.is_contiguous() or prediction.stride(axis) != 1):
                return arrays, parameters
            order = [each for each in range(last + 1) if each != axis] + [axis]
            parameters = {**parameters, "axis": -1}
        # What has one number per sample has its axes in this order already.
        return [
            each.permute(order) if each is not None and each.ndim == last + 1 else each
            for each in arrays
        ], parameters

    def unit_axes(self, first: Tensor, parameters: Any) -> tuple[int, ...]:
        return program(self.loss).unit_axes(tuple(first.shape), parameters)

    def empty_like(self, tensor: Tensor) -> Tensor:
        if tensor.nbytes < memory.LARGE:  # small calls are short
            return torch.empty_like(tensor)
        return memory.tensor(tensor)

    def scaled(self, gradients: Arrays, upstream: Tensor) -> Arrays | None:
        factor = upstream.item()  # nearly always 1: one pass over memory less
        if factor == 1.0:
            return gradients
        for gradient in gradients:
            if gradient.dtype in HALVES:
                exact = gradient.dtype == torch.bfloat16 and abs(math.frexp(factor)[0]) == 0.5
                if not exact:
                    return None
        return tuple([gradient.mul_(factor) for gradient in gradients])

    def straight(self, arrays: Arrays, weights: Tensor | None, parameters: Any) -> bool:
        """Whether the kernel reads all of it where it lies, as most do: found out quickly."""
        for array in arrays:
            if not array.is_contiguous() or array.dtype in HALVES:
                return False
        return (weights is None or _memory.whole(weights, _NAMES[arrays[0].dtype])) and (
            self.way in _ANY_AXIS or parameters.get("axis", -1) in (-1, arrays[0].ndim - 1)
        )

    def count(self, target: Tensor, index: int) -> int:
        target = target.contiguous()
        find = _looking("occurrences", "float32", target.dtype)
        return int(find(target.numel(), target.data_ptr(), index))

    def weight(self, target: Tensor, ignore: int | None, class_weights: Tensor) -> float:
        target, of_class = target.contiguous(), class_weights.contiguous()
        add = _looking("weight_behind", _NAMES[of_class.dtype], target.dtype)
        # -1 is never a class.
        return float(add(
            target.numel(), target.data_ptr(), -1 if ignore is None else ignore,
            len(of_class), of_class.data_ptr(),
        ))  # fmt: skip

    def run(
        self, arrays: Arrays, weights: Tensor | None, gradients: Arrays | None,
        values: Tensor | None, factor: float, parameters: Any,
    ) -> Tensor:  # fmt: skip
        purpose = (weights is not None, gradients is not None, values is not None)
        dtypes, into = self.dtypes(arrays), gradients or self.nowhere
        if self.straight(arrays, weights, parameters):
            launch = self.launch(_shapes(arrays), dtypes, purpose, parameters)
            return _launched(launch, arrays, weights, into, values, factor)
        placed, parameters = self.arranged((*arrays, weights, *into, values), parameters)
        lacking = program(self.loss).unit_axes(tuple(placed[0].shape), parameters)
        total = slices.run(
            _memory, placed, dtypes, lacking,
            lambda shapes: self.launch(shapes, dtypes, purpose, parameters), factor,
        )  # fmt: skip
        return torch.scalar_tensor(total, dtype=_DTYPES[dtypes[0]])

    def launch(
        self, shapes: Shapes, dtypes: tuple[str, ...], purpose: Purpose, parameters: Any
    ) -> Launch:
        return program(self.loss).prepare(shapes, dtypes, purpose, parameters)

    def prepare(
        self, *arrays: Tensor, factor: float | None, **parameters: Any
    ) -> Callable[..., Tensor]:
        return OnePass.prepare(fixed(self.loss), *arrays, factor=factor, **parameters)


def _shapes(arrays: Sequence[Tensor]) -> Shapes:
    return tuple([tuple(array.shape) for array in arrays])


def fixed(loss: str) -> OnePass:
    """For tensors of one shape and dtype, and one set of parameters."""
    return _Fixed(loss)


class _Fixed(_Compiled):
    def __init__(self, loss: str) -> None:
        super().__init__(loss)
        self.launches: dict[Any, Launch] = {}
        self.in_place: dict[Purpose, Launch] = {}  # for tensors that lie as most do
        self.lacking: tuple[int, ...] | None = None

    def run(
        self, arrays: Arrays, weights: Tensor | None, gradients: Arrays | None,
        values: Tensor | None, factor: float, parameters: Any,
    ) -> Tensor:  # fmt: skip
        purpose = (weights is not None, gradients is not None, values is not None)
        launch = self.in_place.get(purpose)
        if launch is None or not _lie_as_most(arrays, weights):
            if not self.straight(arrays, weights, parameters):
                return super().run(arrays, weights, gradients, values, factor, parameters)
            launch = self.launch(_shapes(arrays), self.dtypes(arrays), purpose, parameters)
            self.in_place[purpose] = launch
        return _launched(launch, arrays, weights, gradients or self.nowhere, values, factor)

    def unit_axes(self, first: Tensor, parameters: Any) -> tuple[int, ...]:
        if self.lacking is None:
            self.lacking = super().unit_axes(first, parameters)
        return self.lacking

    def launch(
        self, shapes: Shapes, dtypes: tuple[str, ...], purpose: Purpose, parameters: Any
    ) -> Launch:
        key = (shapes, purpose, parameters.get("axis"))
        found = self.launches.get(key)
        if found is None:  # only now: who trains need not wait for the value's own kernel
            found = super().launch(shapes, dtypes, purpose, parameters)
            self.launches[key] = found
        return found


def _lie_as_most(arrays: Arrays, weights: Tensor | None) -> bool:
    for array in arrays:
        if not array.is_contiguous():
            return False
    return weights is None or weights.is_contiguous()
