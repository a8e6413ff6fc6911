"""Compiled kernels on torch tensors."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from lossary.kernels import NATIVE, WHOLE_ARRAY, Kernel
from lossary.kernels.numba import available, memory, slices
from lossary.kernels.numba.program import Launch, Purpose, Shape, from_size, program
from lossary.kernels.one_pass_torch import HALVES, OnePass, Tensor

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
    "int32": torch.int32,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def kernel(loss: str) -> Kernel:
    """The compiled kernel of ``loss`` for torch."""
    found = _Compiled(loss).kernel(from_size("torch", loss))
    if (loss, "torch") not in NATIVE:
        return found
    # torch's own loops read gaps as they are, where slices are copied first.
    return replace(found, size=_in_one_piece, counted="elements in one piece")


def _in_one_piece(prediction: Tensor, target: Tensor) -> int:
    whole = prediction.is_contiguous() and target.is_contiguous()
    return prediction.numel() if whole else 0


@functools.cache
def _looking(part: str, real: str, target: torch.dtype) -> Callable[..., float]:
    from lossary.kernels.numba import softmax

    found: Callable[..., float] = softmax.compiled(part, real, _NAMES[target], ())
    return found


def _launched(
    launch: Launch, prediction: Tensor, target: Tensor, weights: Tensor | None,
    gradient: Tensor | None, values: Tensor | None, factor: float,
) -> Tensor:  # fmt: skip
    total = launch(
        prediction.data_ptr(), target.data_ptr(), 0 if weights is None else weights.data_ptr(),
        0 if gradient is None else gradient.data_ptr(),
        0 if values is None else values.data_ptr(), factor,
    )  # fmt: skip
    return torch.scalar_tensor(total, dtype=prediction.dtype)


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

    def unavailable(self, device: str) -> str | None:
        return available.why_not()

    def decline(self, prediction: Tensor, target: Tensor, parameters: Any) -> str | None:
        (prediction, target), parameters = self.arranged((prediction, target), parameters)
        real, kind = self.dtypes(prediction, target)
        return program(self.loss).decline(
            tuple(prediction.shape), real, tuple(target.shape), kind, parameters
        )

    def dtypes(self, prediction: Tensor, target: Tensor) -> tuple[str, str]:
        """What the kernel computes in, and its type of target; slices are converted."""
        real = _NAMES.get(prediction.dtype, "float32")
        if target.dtype in HALVES:
            return real, real
        return real, _NAMES.get(target.dtype) or str(target.dtype)

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
            if way == "softmax" and (prediction.is_contiguous() or prediction.stride(axis) != 1):
                return arrays, parameters
            order = [each for each in range(last + 1) if each != axis] + [axis]
            parameters = {**parameters, "axis": -1}
        # What has one number per sample has its axes in this order already.
        return [
            each.permute(order) if each is not None and each.ndim == last + 1 else each
            for each in arrays
        ], parameters

    def unit_axes(self, prediction: Tensor, parameters: Any) -> tuple[int, ...]:
        return program(self.loss).unit_axes(tuple(prediction.shape), parameters)

    def empty_like(self, tensor: Tensor) -> Tensor:
        if tensor.nbytes < memory.LARGE:  # small calls are short
            return torch.empty_like(tensor)
        return memory.tensor(tensor)

    def scaled(self, gradient: Tensor, upstream: Tensor) -> Tensor | None:
        factor = upstream.item()  # nearly always 1: one pass over memory less
        if factor == 1.0:
            return gradient
        if gradient.dtype in HALVES:
            exact = gradient.dtype == torch.bfloat16 and abs(math.frexp(factor)[0]) == 0.5
            return gradient.mul_(factor) if exact else None
        return gradient.mul_(factor)

    def straight(
        self, prediction: Tensor, target: Tensor, weights: Tensor | None, parameters: Any
    ) -> bool:
        """Whether the kernel reads all of it where it lies, as most do: found out quickly."""
        return (
            prediction.is_contiguous()
            and target.is_contiguous()
            and prediction.dtype not in HALVES
            and target.dtype not in HALVES
            and (weights is None or _memory.whole(weights, _NAMES[prediction.dtype]))
            and (self.way != "divergences" or parameters["axis"] in (-1, prediction.ndim - 1))
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
        self, prediction: Tensor, target: Tensor, weights: Tensor | None,
        gradient: Tensor | None, values: Tensor | None, factor: float, parameters: Any,
    ) -> Tensor:  # fmt: skip
        purpose = (weights is not None, gradient is not None, values is not None)
        real, kind = dtypes = self.dtypes(prediction, target)
        if self.straight(prediction, target, weights, parameters):
            launch = self.launch(prediction.shape, real, kind, purpose, parameters)
            return _launched(launch, prediction, target, weights, gradient, values, factor)
        arrays, parameters = self.arranged(
            (prediction, target, weights, gradient, values), parameters
        )
        total = slices.run(
            _memory, arrays, dtypes, self.unit_axes(arrays[0], parameters),
            lambda shape: self.launch(shape, real, kind, purpose, parameters), factor,
        )  # fmt: skip
        return torch.scalar_tensor(total, dtype=_DTYPES[real])

    def launch(
        self, shape: Shape, real: str, kind: str, purpose: Purpose, parameters: Any
    ) -> Launch:
        return program(self.loss).prepare(shape, real, kind, purpose, parameters)

    def prepare(
        self, prediction: Tensor, target: Tensor, *, factor: float | None, **parameters: Any
    ) -> Callable[[Tensor, Tensor], Tensor]:
        return OnePass.prepare(fixed(self.loss), prediction, target, factor=factor, **parameters)


def fixed(loss: str) -> OnePass:
    """For tensors of one shape and dtype, and one set of parameters."""
    return _Fixed(loss)


class _Fixed(_Compiled):
    def __init__(self, loss: str) -> None:
        super().__init__(loss)
        self.launches: dict[Any, Launch] = {}
        self.in_place: dict[Purpose, Launch] = {}  # for tensors that lie as most do

    def run(
        self, prediction: Tensor, target: Tensor, weights: Tensor | None,
        gradient: Tensor | None, values: Tensor | None, factor: float, parameters: Any,
    ) -> Tensor:  # fmt: skip
        purpose = (weights is not None, gradient is not None, values is not None)
        launch = self.in_place.get(purpose)
        if launch is None or not (
            prediction.is_contiguous()
            and target.is_contiguous()
            and (weights is None or weights.is_contiguous())
        ):
            if not self.straight(prediction, target, weights, parameters):
                return super().run(
                    prediction, target, weights, gradient, values, factor, parameters
                )
            kinds = self.dtypes(prediction, target)
            launch = self.launch(prediction.shape, *kinds, purpose, parameters)
            self.in_place[purpose] = launch
        return _launched(launch, prediction, target, weights, gradient, values, factor)

    def launch(
        self, shape: Shape, real: str, kind: str, purpose: Purpose, parameters: Any
    ) -> Launch:
        key = (shape, purpose, parameters.get("axis"))
        found = self.launches.get(key)
        if found is None:  # only now: who trains need not wait for the value's own kernel
            found = super().launch(shape, real, kind, purpose, parameters)
            self.launches[key] = found
        return found
