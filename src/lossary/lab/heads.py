"""The output layer a loss needs, the target as it wants it, and its outputs in common terms.

Everything is read from the loss's contract: the spaces of its predictions and of its target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lossary.advice.fit import meet
from lossary.advice.target import Target
from lossary.contract import Space
from lossary.evaluate import Loss

Tensor = torch.Tensor

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "softplus": torch.nn.functional.softplus,
    "exponential": torch.exp,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda x: torch.softmax(x, -1),
}
# Where a quantity lives after the activation, undone: the linear output that gives ``mean``.
_INVERSES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda mean: mean,
    "softplus": lambda mean: math.log(math.expm1(mean)) if mean < 30 else mean,
    "exponential": math.log,
    "sigmoid": lambda mean: math.log(mean) - math.log1p(-mean),
}


@dataclass(frozen=True)
class Head:
    """How a network's linear outputs (..., units) meet one loss on one target.

    ``units`` per prediction argument; ``encoding`` of the target: quantity, index, one-hot, sign or
    binary; quantities are divided by ``scale`` first, which ``offset`` centres at the start.
    """

    loss: Loss
    target: Target
    spaces: tuple[Space, ...]
    units: tuple[int, ...]
    encoding: str
    scale: float = 1.0
    offset: float = 0.0

    @property
    def width(self) -> int:
        """Linear outputs in all."""
        return sum(self.units)

    def predictions(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """The loss's prediction arguments from linear outputs (..., width)."""
        parts = (
            torch.split(outputs, list(self.units), dim=-1) if len(self.units) > 1 else (outputs,)
        )
        result = []
        for position, (part, space) in enumerate(zip(parts, self.spaces, strict=True)):
            if position == 0 and self.offset:
                part = part + self.offset
            arrived = ACTIVATIONS[space.activation](part)
            squeeze = part.shape[-1] == 1 and self.encoding in ("quantity", "sign", "binary")
            result.append(arrived[..., 0] if squeeze else arrived)
        return tuple(result)

    def encode(self, values: Tensor) -> Tensor:
        """The target as the loss wants it, from ``Target.values`` (...,) as float or index."""
        if self.encoding == "quantity":
            return (values / self.scale).float()
        if self.encoding == "index":
            return values.long()
        if self.target.task == "multi-label" or self.units[0] == 1:
            hot = values.float()
        else:
            hot = torch.nn.functional.one_hot(values.long(), self.units[0]).float()
        return 2 * hot - 1 if self.encoding == "sign" else hot

    def values(self, outputs: Tensor, target: Tensor) -> Tensor:
        """One mean loss per replica, (replicas,), from outputs (replicas, batch, width)."""
        predictions = self.predictions(outputs)
        unit = self.loss.contract.unit
        if unit is not None and unit.name in ("anchor", "tensor"):
            # Rows interact within a batch, so replicas must be kept apart.
            each = [
                self.unreduced([p[i] for p in predictions], target[i]).mean()
                for i in range(len(outputs))
            ]
            return torch.stack(each)
        if unit is not None and unit.name in ("element", "sample"):  # one long batch, for kernels
            flat = [prediction.flatten(0, 1) for prediction in predictions]
            found = self.unreduced(flat, target.flatten(0, 1))
        else:
            found = self.unreduced(predictions, target)
        return found.reshape(len(outputs), -1).mean(1)

    def values_and_slopes(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The ``values``, and their gradient by the outputs: replicas share nothing, so that of
        the sum is every replica's own.
        """
        leaf = outputs.detach().requires_grad_()
        values = self.values(leaf, target)
        (slopes,) = torch.autograd.grad(values, leaf, torch.ones_like(values))
        return values.detach(), slopes

    def unreduced(self, predictions: Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss's values; by name, since the target may stand between the predictions."""
        contract = self.loss.contract
        named = dict(zip(contract.predictions, predictions, strict=True))
        return self.loss.values(**named, **{str(contract.target_name): target})

    # -- common terms -----------------------------------------------------------------------

    def point(self, outputs: Tensor) -> np.ndarray:
        """Predicted quantities in the target's own unit, shape (...)."""
        return (self.meant(outputs).double() * self.scale).numpy()

    def meant(self, outputs: Tensor) -> Tensor:
        """The first prediction as what it stands for: a quantity over ``scale``, a probability."""
        first = self.predictions(outputs)[0]
        name = self.spaces[0].name
        if name == "log rate":
            return torch.exp(first)
        if name == "logit":
            return torch.sigmoid(first)
        return torch.softmax(first, -1) if name == "class logits" else first

    def scores(self, outputs: Tensor) -> np.ndarray:
        """Evidence for each class, (..., classes); each label, (..., labels); or for yes, (...)."""
        return self.predictions(outputs)[0].double().numpy()

    @property
    def threshold(self) -> float:
        """Above this score of yes, the prediction is yes."""
        space = self.spaces[0].name
        return 0.0 if space in ("logit", "margin", "sign") or self.encoding == "sign" else 0.5

    def decisions(self, outputs: Tensor) -> np.ndarray:
        """Class indices (...), or 0/1 labels (..., labels)."""
        scores = self.scores(outputs)
        if self.units[0] > 1 and self.target.task != "multi-label":
            return scores.argmax(-1)
        return (scores > self.threshold).astype(np.int64)

    @property
    def is_probability(self) -> bool:
        """Whether the outputs can be read as probabilities (calibrated or not)."""
        name = self.spaces[0].name
        if name == "real" and self.encoding != "sign":
            fact = self.loss.contract.fact("elicits", self.loss.parameters)
            return fact is not None and fact.value == "mean"
        return name in ("logit", "class logits", "probability", "simplex", "binary", "mask")

    def probabilities(self, outputs: Tensor) -> np.ndarray | None:
        """(..., classes); of yes (...); of labels (..., labels); None for margins."""
        if not self.is_probability:
            return None
        name = self.spaces[0].name
        scores = self.predictions(outputs)[0].double()
        many = self.units[0] > 1 and self.target.task != "multi-label"
        if name == "class logits":
            return torch.softmax(scores, -1).numpy()
        if name == "logit":
            scores = torch.sigmoid(scores)
        # Real outputs may leave [0, 1]; a tiny floor keeps every logarithm finite.
        scores = scores.clamp(1e-6, 1 - 1e-6)
        return (scores / scores.sum(-1, keepdim=True) if many else scores).numpy()


def head_for(loss: Loss, target: Target) -> Head:
    """The head of a loss for a target, or a LossError that says why they do not meet."""
    contract = loss.contract
    meeting = meet(contract, target)
    spaces = tuple(contract.inputs[name] for name in contract.predictions)
    if meeting.encoding != "quantity":
        return Head(loss, target, spaces, meeting.units, meeting.encoding)
    assert contract.target is not None
    # Counts and shares keep their unit; others are scaled, so that one learning rate suits all.
    kept = contract.target.integral or spaces[0].name == "logit"
    scale = 1.0 if kept else target.facts["standard deviation"]
    mean = target.facts["mean"] / scale
    links = {"log rate": "exponential", "logit": "sigmoid"}
    link = links.get(spaces[0].name, spaces[0].activation)
    inverse = _INVERSES.get(link)
    offset = inverse(mean) if inverse and (link == "linear" or mean > 0) else 0.0
    return Head(loss, target, spaces, meeting.units, "quantity", scale, offset)


def output_of(loss: Loss, head: Head) -> dict[str, Any]:
    """The head in words: units and activation of each prediction."""
    named = zip(loss.contract.predictions, head.units, head.spaces, strict=True)
    return {
        name: {"units": units, "activation": space.activation, "space": space.name}
        for name, units, space in named
    }


def estimates(loss: Loss) -> str:
    """What the outputs estimate, in words, from the contract."""
    contract = loss.contract
    fact = contract.fact("elicits", loss.parameters)
    if fact is not None:
        return str(fact.value)
    for name in ("strictly proper", "proper"):
        if contract.has(name, loss.parameters):
            return "calibrated probabilities"
    return "not a named statistic"
