# mypy: disable-error-code="no-untyped-call"
"""Compiled kernels inside the graphs of torch.compile, as operations of ``torch.library``.

To the compiler they are opaque, so nothing is fused into them; measured on two cores they still
take 0.3 to 0.8 of the time of what it makes of the framework's own loss, and 0.1 to 0.5 of what it
makes of the definition. Importing this loads neither Numba nor the compiler.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

from lossary import kernels
from lossary.kernels import pointwise
from lossary.kernels.numba import available

Tensor = torch.Tensor
Traced = Callable[[Tensor, Tensor], Any]
SMALLEST = 1 << 15  # numbers from which an opaque operation is worth its call
_LIBRARY = torch.library.Library("lossary", "FRAGMENT")


def traced(loss: str, reduction: str, parameters: Mapping[str, Any]) -> Traced | None:
    """What a compiler is to trace for a reduced loss of (prediction, target); None: nothing.

    The function returns None, too, for tensors that no kernel takes. It must be made before the
    compiler runs: this search cannot be traced.
    """
    if ("numba.on_torch" not in kernels.manifest().get((loss, "torch"), ())) or available.why_not():
        return None
    try:
        text = json.dumps(dict(parameters))
    except TypeError:  # a parameter that is no plain number
        return None
    if reduction not in ("mean", "mean_over_batch", "batch_mean", "sum"):
        return None
    lacking, least = _units(loss), SMALLEST
    if lacking is None:
        return None
    if lacking == 0 and pointwise.decline(loss, (), "", (), "", parameters) is not None:
        return None
    operation = _operation(loss)
    axis = parameters.get("axis", -1)

    def call(prediction: Tensor, target: Tensor) -> Any:
        # Loaded with the compiler, which is the only one to come here.
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        plain = prediction.is_contiguous() and target.is_contiguous() and prediction.is_cpu
        if not plain or target.requires_grad or prediction.dtype not in _REAL:
            return None
        indices = target.ndim < prediction.ndim
        if lacking == 0 or not indices:
            if target.dtype != prediction.dtype or target.shape != prediction.shape:
                return None
        elif target.dtype not in _INDEX or axis % prediction.ndim != prediction.ndim - 1:
            return None
        size = prediction.numel()
        if statically_known_true(size < least):  # asks nothing of sizes that vary
            return None
        count = 1
        if reduction == "batch_mean":
            count = prediction.shape[0]
        elif reduction != "sum":
            count = size // prediction.shape[axis] if lacking else size
        return _InGraph.apply(prediction, target, operation, count, text)

    return call


_REAL = (torch.float32, torch.float64)
_INDEX = (torch.int32, torch.int64)


def _units(loss: str) -> int | None:
    """How many axes of the prediction a unit lacks; None where that depends."""
    if loss not in kernels.WHOLE_ARRAY:
        return 0
    return 1 if loss in ("cross_entropy", "kl_divergence", "jensen_shannon") else None


@functools.cache
def _operation(loss: str) -> Any:
    """The operation: (the scaled sum, its gradient), 1 / count being the scale."""
    name = f"{loss}_sum"
    schema = "(Tensor prediction, Tensor target, SymInt count, str parameters) -> (Tensor, Tensor)"
    _LIBRARY.define(name + schema)

    def run(prediction: Tensor, target: Tensor, count: int, parameters: str) -> Any:
        kernel = kernels.find(loss, "torch", "numba")[0]
        assert kernel.value_and_grad is not None
        return kernel.value_and_grad(
            prediction.contiguous(), target.contiguous(), factor=1.0 / count, **_read(parameters)
        )

    def shapes(prediction: Tensor, target: Tensor, count: int, parameters: str) -> Any:
        return prediction.new_empty(()), torch.empty_like(prediction)

    _LIBRARY.impl(name, run, "CPU")
    _LIBRARY.impl(name, shapes, "Meta")
    return getattr(torch.ops.lossary, name).default


_read = functools.lru_cache(json.loads)


class _InGraph(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, prediction: Tensor, target: Tensor, operation: Any, count: int, text: str
    ) -> Tensor:
        value, gradient = operation(prediction, target, count, text)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return upstream * ctx.saved_tensors[0], None, None, None, None
