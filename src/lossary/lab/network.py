"""Many networks as one: replicas stacked along a leading axis, trained by one batched pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch.optim.adam import adam as update

from lossary.contract import LossError

Tensor = torch.Tensor


class Stack(Protocol):
    """Replicas of one architecture; ``backward`` leaves each parameter's gradient in its
    ``grad``.
    """

    parameters: list[Tensor]

    @property
    def state(self) -> list[Tensor]:
        """All that training changes, replicas along the first axis."""
        ...

    def forward(self, rows: Tensor) -> Tensor:
        """(replicas, batch, ...) to linear outputs (replicas, batch, width)."""
        ...

    def backward(self, slopes: Tensor) -> None:
        """Gradients from ``slopes``, those by the outputs of the latest forward pass."""
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
            parameter.grad = torch.zeros_like(parameter)
        self._seen: list[Tensor] = []  # each layer's input in the latest forward pass

    @property
    def state(self) -> list[Tensor]:
        """The parameters."""
        return self.parameters

    def forward(self, rows: Tensor) -> Tensor:
        """(replicas, batch, inputs) to (replicas, batch, width)."""
        weights, biases = self.parameters[0::2], self.parameters[1::2]
        self._seen = []
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            if layer:
                rows = rows.relu_()
            self._seen.append(rows)
            rows = torch.baddbmm(bias, rows, weight)
        return rows

    def backward(self, slopes: Tensor) -> None:
        """The chain rule by hand: a third of the time of autograd on networks this small."""
        for layer in reversed(range(len(self._seen))):
            weight, bias = self.parameters[2 * layer : 2 * layer + 2]
            before = self._seen[layer]
            torch.bmm(before.mT, slopes, out=weight.grad)
            torch.sum(slopes, 1, keepdim=True, out=bias.grad)
            if layer:
                # After relu the sign is its derivative, 0 or 1; the input is not needed again.
                slopes = torch.bmm(slopes, weight.mT).mul_(before.sign_())


class Modules:
    """Any PyTorch modules of one architecture, stacked with torch.func and mapped by vmap; one
    after the other where vmap has no rule for an operation (recurrent layers).
    """

    def __init__(
        self, build: Callable[..., Any], inputs: Any, width: int, seeds: Sequence[int]
    ) -> None:
        modules = []
        for seed in seeds:
            torch.manual_seed(seed)
            try:
                modules.append(build(inputs, width))
            except Exception as error:
                first = str(error).strip().partition("\n")[0]
                raise LossError(
                    f"model: the factory raised {type(error).__name__}: {first}; it is called as "
                    f"build({inputs}, {width}) and returns a torch.nn.Module"
                ) from error
        if not isinstance(modules[0], torch.nn.Module):
            raise LossError(
                f"model: the factory returned {type(modules[0]).__name__}, expected a "
                "torch.nn.Module"
            )
        named, self._buffers = (_stacked(modules, kind) for kind in ("parameters", "buffers"))
        if not named:
            raise LossError("model: the factory returned a module without parameters to train")
        self._names = list(named)
        self.parameters = [named[name].requires_grad_() for name in self._names]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self._outputs = torch.empty(0)
        self._skeleton = skeleton = modules[0].to("meta")

        def one(parameters: Any, buffers: Any, rows: Tensor) -> Tensor:
            return torch.func.functional_call(skeleton, (parameters, buffers), (rows,))

        def one_by_one(parameters: Any, buffers: Any, rows: Tensor) -> Tensor:
            def pick(named: Any, k: int) -> Any:
                return {name: tensor[k] for name, tensor in named.items()}

            return torch.stack(
                [one(pick(parameters, k), pick(buffers, k), rows[k]) for k in range(len(rows))]
            )

        self._ways = [torch.vmap(one, randomness="different"), one_by_one]

    @property
    def state(self) -> list[Tensor]:
        """Parameters and buffers, such as running averages."""
        return [*self.parameters, *self._buffers.values()]

    def forward(self, rows: Tensor) -> Tensor:
        """(replicas, batch, ...) to (replicas, batch, width); without gradients, in the module's
        evaluation mode.
        """
        named = dict(zip(self._names, self.parameters, strict=True))
        self._skeleton.train(torch.is_grad_enabled())
        try:
            self._outputs = self._ways[0](named, self._buffers, rows)
        except Exception as error:
            if len(self._ways) > 1:
                del self._ways[0]
                return self.forward(rows)
            first = str(error).strip().partition("\n")[0]
            raise LossError(
                f"model: its forward raised {type(error).__name__} on rows of shape "
                f"{tuple(rows.shape[1:])}: {first}"
            ) from error
        return self._outputs.detach()

    def backward(self, slopes: Tensor) -> None:
        """Gradients by autograd."""
        found = torch.autograd.grad(self._outputs, self.parameters, slopes, allow_unused=True)
        for parameter, gradient in zip(self.parameters, found, strict=True):
            if gradient is not None:
                assert parameter.grad is not None
                parameter.grad.copy_(gradient)


def _stacked(modules: Sequence[torch.nn.Module], kind: str) -> dict[str, Tensor]:
    """Parameters or buffers of all modules by name, stacked."""
    states = [dict(getattr(module, f"named_{kind}")()) for module in modules]
    try:
        return {name: torch.stack([state[name].detach() for state in states]) for name in states[0]}
    except (KeyError, RuntimeError):
        raise LossError(
            f"model: the factory returns modules with unlike {kind}; only their values may differ "
            "from call to call"
        ) from None


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
    """PyTorch's fused Adam for stacked parameters, replica r at ``rates[r]``.

    Runs of replicas with one rate are one group of slices, which share memory with the whole.
    PyTorch's functional form does the work: on networks this small the optimiser object takes as
    long again for its books.
    """

    def __init__(self, parameters: Sequence[Tensor], rates: Sequence[float]) -> None:
        starts = [r for r, rate in enumerate(rates) if r == 0 or rate != rates[r - 1]]
        self._groups: list[tuple[float, list[list[Tensor]]]] = []
        for first, last in pairwise([*starts, len(rates)]):
            slices = [parameter.detach()[first:last] for parameter in parameters]
            slopes = []
            for parameter in parameters:
                assert parameter.grad is not None
                slopes.append(parameter.grad[first:last])
            means, squares = ([torch.zeros_like(part) for part in slices] for _ in range(2))
            steps = [torch.zeros(()) for _ in slices]
            self._groups.append((rates[first], [slices, slopes, means, squares, [], steps]))

    def step(self) -> None:
        """One step of every replica by the parameters' ``grad``."""
        for rate, (parameters, slopes, means, squares, largest, steps) in self._groups:
            update(
                parameters,
                slopes,
                means,
                squares,
                largest,
                steps,
                fused=True,
                lr=rate,
                beta1=0.9,
                beta2=0.999,
                eps=1e-8,
                weight_decay=0.0,
                amsgrad=False,
                maximize=False,
            )
