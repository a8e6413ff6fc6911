"""Where PyTorch says something differently: its argument names, and what they mean to a contract.

PyTorch's own signatures are read, not copied: a class of ``torch.nn`` whose name is a name of a
loss is that loss's host. What its arguments mean follows from the contract (spaces, units,
parameters); there is no table of losses.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import _reduction as legacy

from lossary.contract import Contract, LossError, key_of, resolve
from lossary.inputs import arrivals

REDUCTIONS = {
    "none": "none",
    "sum": "sum",
    "mean": "mean",
    "batchmean": "batch_mean",
}
# PyTorch's arguments that are no parameter of a definition.
# eps is accepted where PyTorch needs it; the formulas here need none, but for a clamped variance.
_ARGUMENTS = frozenset(
    "weight pos_weight ignore_index size_average reduce reduction log_target log_input eps".split()
)
_EMPTY = inspect.Parameter.empty


@cache
def host_of(key: str) -> type[torch.nn.Module] | None:
    """PyTorch's own module of this name, if Lossary has all of its arguments."""
    contract, _ = resolve(key)
    for name, kind in vars(torch.nn).items():
        if name.endswith("Loss") and key_of(name) == key:
            arguments = set(_host_parameters(kind))
            return kind if arguments <= _ARGUMENTS | set(contract.parameters) else None
    return None


def _host_parameters(host: type[torch.nn.Module]) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(host.__init__).parameters)
    del found["self"]
    return found


def learned(contract: Contract) -> tuple[str, ...]:
    """Inputs that are a weight matrix beside other inputs: the module's own parameters."""
    whole = tuple(name for name, space in contract.inputs.items() if space.layout == "tensor")
    return whole if len(whole) < len(contract.inputs) else ()


def signature(contract: Contract, key: str, presets: Mapping[str, Any]) -> inspect.Signature:
    """PyTorch's arguments in PyTorch's order, then the loss's own as keywords."""
    host, target = host_of(key), contract.target
    arguments: dict[str, inspect.Parameter] = {}
    if host is not None:
        arguments |= _host_parameters(host)
    extra: dict[str, Any] = {
        name: presets.get(name, _EMPTY if item.required else item.default)
        for name, item in contract.parameters.items()
    }
    if "pos_weight" in extra:
        extra["pos_weight"] = None  # a buffer
    if "axis" in extra and class_axis(contract) is not None:
        extra["axis"] = 1
    if learned(contract):
        extra |= {"num_classes": _EMPTY, "embedding_size": _EMPTY}
    if target is not None:
        if target.name in ("classes", "binary", "sign"):
            extra["weight"] = None
        extra["ignore_index"] = -100 if target.name == "classes" else None
    extra["reduction"] = "mean"
    if len(arrivals(contract)) > 1 and "log_input" not in arguments:
        extra["predictions"] = presets.get("predictions")
    extra["empty"] = "zero"
    for name, default in extra.items():
        if name not in arguments:
            kind = inspect.Parameter.KEYWORD_ONLY
            arguments[name] = inspect.Parameter(name, kind, default=default)
    return inspect.Signature(sorted(arguments.values(), key=lambda item: item.kind))


def class_axis(contract: Contract) -> int | None:
    """1 for losses over classes, as in PyTorch; None for others."""
    first = contract.inputs[contract.predictions[0]] if contract.predictions else None
    return 1 if first is not None and first.layout == "class axis" else None


@dataclass(frozen=True)
class Conventions:
    """How one module calls its loss."""

    reduction: str  # in the words of Loss
    predictions: str | None
    each_class: bool  # PyTorch takes a divergence element by element, unsummed
    each_label: bool  # ... and averages a loss over a row of labels
    element_weight: bool  # ``weight`` multiplies elements, it does not belong to classes
    by_count: bool  # the mean of weighted values divides by their number
    log_target: bool
    least_variance: float | None

    @classmethod
    def of(cls, contract: Contract, key: str, given: Mapping[str, Any]) -> Conventions:
        """Read from the arguments that a module was given."""
        host, target = host_of(key), contract.target
        word = given["reduction"]
        if given.get("size_average") is not None or given.get("reduce") is not None:
            word = legacy.legacy_get_string(given["size_average"], given["reduce"])
        if word not in REDUCTIONS:
            raise LossError(
                f"{key}: reduction={word!r} is not known; it can be {', '.join(REDUCTIONS)}"
            )
        predictions = given.get("predictions")
        if "log_input" in given:
            predictions = "log_rates" if given["log_input"] else "rates"
        each_class = host is not None and contract.family == "divergence"
        if each_class:
            predictions = "log_probabilities"
        by_class = target is not None and target.name == "classes"
        return cls(
            reduction=REDUCTIONS[word],
            predictions=predictions,
            each_class=each_class,
            each_label=host is not None and key.startswith("multi_label"),
            element_weight=not by_class,
            by_count=host is not None and "class_weights" not in contract.accepts,
            log_target=bool(given.get("log_target")),
            least_variance=given.get("eps") if "variance" in contract.inputs else None,
        )


def positive_weighted(target: Tensor, pos_weight: Tensor) -> tuple[Tensor, Tensor]:
    """``(target, weights)`` by which binary cross-entropy weighs its positive part alone.

    w y L(1) + (1 - y) L(0) is (w y + 1 - y) times the loss at the target w y / (w y + 1 - y).
    """
    positive = pos_weight.to(target.dtype) * target
    weights = positive + (1.0 - target)
    return torch.where(
        weights == 0, target, positive / torch.where(weights == 0, 1.0, weights)
    ), weights
