# mypy: disable-error-code="no-untyped-call"
"""Compiled kernels as operations of ``torch.library``, for the graphs of torch.compile."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import torch

from lossary import kernels
from lossary.kernels.numba import memory, on_torch
from lossary.kernels.numba.program import program

Tensor = torch.Tensor
_LIBRARY = torch.library.Library("lossary", "FRAGMENT")


@functools.cache
def operations(loss: str) -> tuple[Any, Any]:
    """The kernel's operations: the sum divided by ``count``; and with its gradients beside it.

    With ``each`` they give the unreduced values instead of the sum.
    """
    places, inputs = kernels.differentiated(loss), kernels.inputs_of(loss)

    def value(*given: Any) -> Tensor:
        return _run(loss, given, None)

    def both(*given: Any) -> Any:
        gradients = tuple(memory.tensor(given[place], contiguous=True) for place in places)
        return _run(loss, given, gradients), *gradients

    def empty(*given: Any) -> Tensor:
        *_, each, text = given
        return _empty(loss, given[0], each, text)

    def empties(*given: Any) -> Any:
        kind = torch.contiguous_format
        return empty(*given), *(
            torch.empty_like(given[place], memory_format=kind) for place in places
        )

    named = ", ".join(f"Tensor {name}" for name in inputs)
    schema = f"({named}, Tensor? weights, SymInt count, bool each, str parameters)"
    for name, results, run, shapes in (
        (f"{loss}_value", "Tensor", value, empty),
        (f"{loss}_value_and_slopes", f"(Tensor{', Tensor' * len(places)})", both, empties),
    ):
        _LIBRARY.define(f"{name}{schema} -> {results}")
        _LIBRARY.impl(name, run, "CPU")
        _LIBRARY.impl(name, shapes, "Meta")
    ours = torch.ops.lossary
    return (
        getattr(ours, f"{loss}_value").default,
        getattr(ours, f"{loss}_value_and_slopes").default,
    )


def _empty(loss: str, first: Tensor, each: bool, text: str) -> Tensor:
    if not each:
        return first.new_empty(())
    lacking = unit_axes(loss, first, json.loads(text))
    return first.new_empty([n for axis, n in enumerate(first.shape) if axis not in lacking])


def _run(loss: str, given: tuple[Any, ...], gradients: tuple[Tensor, ...] | None) -> Tensor:
    *arrays, weights, count, each, text = given
    signature: tuple[Any, ...] = ()
    for array in arrays:
        signature += (array.shape, array.dtype)
    bound, parameters = _bound(loss, text, signature)
    values = _empty(loss, arrays[0], each, text) if each else None
    total = bound.run(tuple(arrays), weights, gradients, values, 1.0 / count, parameters)
    return total if values is None else values


def unit_axes(loss: str, prediction: Tensor, parameters: Mapping[str, Any]) -> tuple[int, ...]:
    """The axes of the prediction that units lack."""
    if loss in kernels.WHOLE_ARRAY:
        return program(loss).unit_axes(tuple(prediction.shape), parameters)
    return ()


@functools.lru_cache(maxsize=256)
def _bound(loss: str, text: str, signature: tuple[Any, ...]) -> Any:
    """The kernel for tensors of these shapes and dtypes, and its parameters."""
    return on_torch.fixed(loss), json.loads(text)
