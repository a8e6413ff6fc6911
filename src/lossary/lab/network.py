"""Many networks as one: replicas stacked along a leading axis, trained by one batched pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import torch

from lossary.contract import LossError

Tensor = torch.Tensor


class Stack(Protocol):
    """Replicas of one architecture."""

    parameters: list[Tensor]

    def forward(self, rows: Tensor) -> Tensor:
        """(replicas, batch, ...) to linear outputs (replicas, batch, width)."""
        ...


class Perceptrons:
    """Multi-layer perceptrons, one batched matrix product per layer.

    Replica r starts from the weights of ``seeds[r]``: equal seeds and shapes, equal weights.
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], width: int, seeds: Sequence[int]
    ) -> None:
        sizes = [inputs, *hidden, width]
        self.parameters: list[Tensor] = []
        for layer, (before, after) in enumerate(pairwise(sizes)):
            bound = 1 / math.sqrt(before)
            draws = [
                torch.empty(before + 1, after).uniform_(
                    -bound, bound, generator=torch.Generator().manual_seed(1000 * seed + layer)
                )
                for seed in seeds
            ]
            stacked = torch.stack(draws)
            self.parameters += [stacked[:, :-1].contiguous(), stacked[:, -1:].contiguous()]
        for parameter in self.parameters:
            parameter.requires_grad_()

    def forward(self, rows: Tensor) -> Tensor:
        """(replicas, batch, inputs) to (replicas, batch, width)."""
        weights, biases = self.parameters[0::2], self.parameters[1::2]
        last = len(weights) - 1
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            rows = torch.baddbmm(bias, rows, weight)
            if layer < last:
                rows = torch.relu(rows)
        return rows


class Modules:
    """Any PyTorch modules of one architecture, stacked with torch.func and mapped by vmap."""

    def __init__(
        self, build: Callable[..., Any], inputs: Any, width: int, seeds: Sequence[int]
    ) -> None:
        modules = []
        for seed in seeds:
            torch.manual_seed(seed)
            try:
                modules.append(build(inputs, width))
            except Exception as error:
                raise LossError(
                    f"model: the factory raised {type(error).__name__}: {error}; it is called as "
                    f"build({inputs}, {width}) and returns a torch.nn.Module"
                ) from error
        if not isinstance(modules[0], torch.nn.Module):
            raise LossError(
                f"model: the factory returned {type(modules[0]).__name__}, expected a "
                "torch.nn.Module"
            )
        if len({type(module) for module in modules}) > 1:
            raise LossError(
                "model: the factory returns modules of different classes; return one class"
            )
        named, self._buffers = torch.func.stack_module_state(modules)
        self._names = list(named)
        self.parameters = [named[name].detach().clone().requires_grad_() for name in self._names]
        skeleton = modules[0].to("meta")

        def one(parameters: Any, buffers: Any, rows: Tensor) -> Tensor:
            return torch.func.functional_call(skeleton, (parameters, buffers), (rows,))

        self._map = torch.vmap(one, randomness="different")

    def forward(self, rows: Tensor) -> Tensor:
        """(replicas, batch, ...) to (replicas, batch, width)."""
        named = dict(zip(self._names, self.parameters, strict=True))
        return self._map(named, self._buffers, rows)


def small_convolution(inputs: tuple[int, int, int], width: int) -> torch.nn.Module:
    """A small convolutional network for images of shape (channels, height, width)."""
    channels = inputs[0]
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(512, width),
    )


class Adam:
    """Adam (Kingma and Ba 2015) with one learning rate per replica.

    torch.optim.Adam takes one rate for all; a search over rates wants many in one batched pass.
    """

    def __init__(self, parameters: list[Tensor], rates: Tensor) -> None:
        self._parameters = parameters
        self._rates = [rates.reshape(-1, *[1] * (p.ndim - 1)) for p in parameters]
        self._first = [torch.zeros_like(p) for p in parameters]
        self._second = [torch.zeros_like(p) for p in parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...] | list[Tensor]) -> None:
        """One update of every replica."""
        self._steps += 1
        first_bias, second_bias = 1 - 0.9**self._steps, 1 - 0.999**self._steps
        torch._foreach_lerp_(self._first, gradients, 0.1)
        torch._foreach_mul_(self._second, 0.999)
        torch._foreach_addcmul_(self._second, gradients, gradients, 0.001)
        sizes = torch._foreach_sqrt(self._second)
        torch._foreach_div_(sizes, math.sqrt(second_bias))
        torch._foreach_add_(sizes, 1e-8)
        for parameter, first, size, rate in zip(
            self._parameters, self._first, sizes, self._rates, strict=True
        ):
            parameter.sub_(torch.div(first, size).mul_(rate / first_bias))
