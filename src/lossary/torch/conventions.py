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
    "weight pos_weight ignore_index size_average reduce reduction log_target log_input eps "
    "distance_function".split()
)
_RETIRED = ("size_average", "reduce")  # kept for their places in the order of arguments
_EMPTY = inspect.Parameter.empty
_SIGNS = ("sign", "element")


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
    if contract.learned:
        for name in ("in_features", "num_classes"):
            place = inspect.Parameter.POSITIONAL_OR_KEYWORD
            arguments[name] = inspect.Parameter(name, place)
    if target is not None:
        if target.name in ("classes", "binary") or (target.name, target.layout) == _SIGNS:
            extra["weight"] = None
        if target.layout != "sequence":
            extra["ignore_index"] = -100 if target.name == "classes" else None
    extra["reduction"] = "mean"
    if len(arrivals(contract)) > 1 and "log_input" not in arguments and not _by_steps(contract):
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


def _by_steps(contract: Contract) -> bool:
    return any(space.layout == "steps" for space in contract.inputs.values())


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
    time_first: bool  # steps come before the batch, and a mean divides by the target's length too
    labels_by_index: bool  # true labels come as indices, -1 after the last

    @property
    def changes_inputs(self) -> bool:
        """Whether a call's inputs are not the loss's, or its values are reduced in two steps."""
        # A mean over rows of means over labels is the mean of all.
        means = self.each_label and self.reduction != "mean"
        return means or self.time_first

    @property
    def prepares_inputs(self) -> bool:
        """Whether a call's inputs become the loss's by a change of each."""
        divergence = self.each_class or self.log_target
        return divergence or self.labels_by_index or self.least_variance is not None

    @classmethod
    def of(cls, contract: Contract, key: str, given: Mapping[str, Any]) -> Conventions:
        """Read from the arguments that a module was given."""
        host, target = host_of(key), contract.target
        word = given["reduction"]
        for name in _RETIRED:
            if given.get(name) is not None:
                raise LossError(
                    f"{key}: {name}={given[name]!r} is PyTorch's from before version 0.4; say "
                    "reduction='mean', 'sum' or 'none' instead"
                )
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
            each_label=host is not None
            and key.startswith("multi_label")
            and contract.unit is not None
            and contract.unit.name == "element",
            element_weight=not by_class,
            by_count=host is not None and "class_weights" not in contract.accepts,
            log_target=bool(given.get("log_target")),
            least_variance=given.get("eps") if "variance" in contract.inputs else None,
            time_first=host is not None and _by_steps(contract),
            labels_by_index=host is not None and target is not None and target.name == "multi-hot",
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


def sequences(
    prediction: Tensor, target: Tensor, input_lengths: Any, target_lengths: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """PyTorch's steps before batch, targets in rows or end to end, lengths as numbers or tensors.

    Returned are (batch, steps, classes), (batch, length) and two of (batch,).
    """
    lengths = [
        torch.as_tensor(each, device=prediction.device).reshape(-1)
        for each in (input_lengths, target_lengths)
    ]
    if prediction.ndim == 2:
        prediction, target = prediction.unsqueeze(1), target.reshape(1, -1)
    if target.ndim == 1:  # all targets in one row
        rows = torch.split(target, lengths[1].tolist())
        target = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    return prediction.movedim(0, 1), target, lengths[0], lengths[1]


def multi_hot(target: Tensor, prediction: Tensor) -> Tensor:
    """How often each label stands in a row of indices, before the first -1."""
    if target.is_floating_point():
        return target
    if not prediction.ndim:
        raise LossError("the prediction is one number, expected (labels,) or (batch, labels)")
    classes = prediction.shape[-1]
    kind = prediction.dtype if prediction.itemsize > 2 else torch.float32
    written = torch.cumsum(target < 0, dim=-1) == 0
    hot = prediction.new_zeros((*target.shape[:-1], classes), dtype=kind)
    return hot.scatter_add_(-1, torch.where(written, target, 0), written.to(kind))
