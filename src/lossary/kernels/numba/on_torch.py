"""Compiled kernels on torch tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from lossary.kernels import Kernel
from lossary.kernels.numba import available, memory, strided
from lossary.kernels.numba.program import Launch, Purpose, from_size, program
from lossary.kernels.one_pass_torch import OnePass, Tensor

_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.int64: "int64",
    torch.int32: "int32",
}


def kernel(loss: str) -> Kernel:
    """The compiled kernel of ``loss`` for torch."""
    return _Compiled(loss).kernel(from_size("torch", loss))


@functools.cache
def _looking(part: str, real: str, target: torch.dtype) -> Callable[..., float]:
    from lossary.kernels.numba import softmax

    found: Callable[..., float] = softmax.compiled(part, real, _NAMES[target], ())
    return found


def _classes_last(
    prediction: Tensor, target: Tensor, given: dict[str, Any]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """``logits.transpose(1, 2)`` and the like as they lie in memory, classes last."""
    axis = given.get("axis", -1)
    if axis in (-1, prediction.ndim - 1) or prediction.is_contiguous():
        return prediction, target, given
    if not -prediction.ndim <= axis < prediction.ndim or prediction.stride(axis) != 1:
        return prediction, target, given
    if target.ndim == prediction.ndim:
        target = target.movedim(axis, -1)
    return prediction.movedim(axis, -1), target, {**given, "axis": -1}


class _Compiled(OnePass):
    toolchain = "numba"
    devices = ("cpu",)
    copies_indices = True

    def unavailable(self, device: str) -> str | None:
        return available.why_not()

    def decline(self, prediction: Tensor, target: Tensor, parameters: Any) -> str | None:
        return program(self.loss).decline(
            tuple(prediction.shape), _NAMES[prediction.dtype],
            tuple(target.shape), _NAMES.get(target.dtype, str(target.dtype)), parameters,
        )  # fmt: skip

    def supports(self, prediction: Tensor, target: Tensor, **parameters: Any) -> str | None:
        prediction, target, parameters = _classes_last(prediction, target, parameters)
        return super().supports(prediction, target, **parameters)

    def values(self, prediction: Tensor, target: Tensor, **given: Any) -> Tensor:
        prediction, target, given = _classes_last(prediction, target, given)
        return super().values(prediction, target, **given)

    def scaled_sum(self, prediction: Tensor, target: Tensor, **given: Any) -> Tensor:
        prediction, target, given = _classes_last(prediction, target, given)
        return super().scaled_sum(prediction, target, **given)

    def value_and_grad(
        self, prediction: Tensor, target: Tensor, **given: Any
    ) -> tuple[Tensor, Tensor]:
        lies, target, moved = _classes_last(prediction, target, given)
        value, gradient = super().value_and_grad(lies, target, **moved)
        return value, gradient if lies is prediction else gradient.movedim(-1, given["axis"])

    def scattered(self, prediction: Tensor, target: Tensor, parameters: Any) -> str | None:
        return strided.scattered(
            self.loss, strided.of_tensor(prediction), strided.of_tensor(target), parameters
        )

    def unit_axes(self, prediction: Tensor, parameters: Any) -> tuple[int, ...]:
        return program(self.loss).unit_axes(tuple(prediction.shape), parameters)

    def empty_like(self, tensor: Tensor) -> Tensor:
        if tensor.nbytes < memory.LARGE and tensor.is_contiguous():  # small calls are short
            return torch.empty_like(tensor)
        return memory.tensor(tensor)

    def scaled(self, gradient: Tensor, upstream: Tensor) -> Tensor:
        factor = upstream.item()  # nearly always 1: one pass over memory less
        return gradient if factor == 1.0 else gradient.mul_(factor)

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
        if not (target.is_contiguous() or target.is_floating_point()):
            target = target.contiguous()
        launch = self.launch(
            prediction, target, (weights is not None, gradient is not None, values is not None),
            parameters,
        )  # fmt: skip
        total = launch(
            prediction.data_ptr(), target.data_ptr(),
            0 if weights is None else weights.data_ptr(),
            0 if gradient is None else gradient.data_ptr(),
            0 if values is None else values.data_ptr(), factor,
        )  # fmt: skip
        return torch.scalar_tensor(total, dtype=prediction.dtype)

    def launch(
        self, prediction: Tensor, target: Tensor, purpose: Purpose, parameters: Any
    ) -> Launch:
        return strided.launch(
            self.loss, strided.of_tensor(prediction), strided.of_tensor(target), purpose, parameters
        )

    def prepare(
        self, prediction: Tensor, target: Tensor, *, factor: float | None, **parameters: Any
    ) -> Callable[[Tensor, Tensor], Tensor]:
        fixed = _Fixed(self.loss)
        return OnePass.prepare(fixed, prediction, target, factor=factor, **parameters)


class _Fixed(_Compiled):
    """For tensors of one shape and dtype, and one set of parameters."""

    def __init__(self, loss: str) -> None:
        super().__init__(loss)
        self.launches: dict[Purpose, Launch] = {}

    def launch(
        self, prediction: Tensor, target: Tensor, purpose: Purpose, parameters: Any
    ) -> Launch:
        found = self.launches.get(purpose)
        if found is None:  # only now: who trains need not wait for the value's own kernel
            found = self.launches[purpose] = super().launch(prediction, target, purpose, parameters)
        return found
