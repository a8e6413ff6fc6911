"""``LossModule``: a loss as ``nn.Module``, and the classes generated from contracts."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, is_autocast_enabled, nn

from lossary.contract import REGISTRY, Contract, LossError, contract_of, key_of, resolve
from lossary.cost import Total, reduce
from lossary.evaluate import Loss
from lossary.inputs import class_axis
from lossary.torch import conventions
from lossary.torch.conventions import Conventions


class TorchLossError(LossError, RuntimeError, IndexError):
    """A LossError that is also what PyTorch raises for the same mistake."""


class LossModule(nn.Module):
    """What the generated modules share.

    ``forward(input, target)`` returns the reduced loss, as PyTorch reduces. Classes are on axis 1
    (axis 0 of an input without a batch). Beyond PyTorch, each call takes ``weights`` and ``mask``
    (True counts), one per returned value or per leading dimension; then ``mean`` divides by the sum
    of the weights that count. Half precision, autocast included, is computed in float32; under
    autocast the result is float32, so that a gradient scaler cannot make it overflow.
    """

    contract: Contract
    key: str
    presets: Mapping[str, Any]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__()
        signature = conventions.signature(self.contract, self.key, self.presets)
        bound = signature.bind(*arguments, **options)
        self.chosen = {
            name: value
            for name, value in bound.arguments.items()
            if not isinstance(value, Tensor) and value != signature.parameters[name].default
        }
        bound.apply_defaults()
        given = dict(bound.arguments)
        for name in {"weight", "pos_weight"} & set(given):
            value = given.pop(name)
            self.register_buffer(name, value if value is None else torch.as_tensor(value))
        for name in self.contract.learned:
            matrix = torch.empty(given["num_classes"], given["in_features"])
            self.register_parameter(name, nn.Parameter(nn.init.xavier_uniform_(matrix)))
        self.distance_function: Any = given.get("distance_function")
        self.swap = bool(given.get("swap"))
        if self.distance_function is not None:  # what is left to do is to rank two distances
            self.contract = contract_of("margin_ranking")
        try:
            self.conventions = Conventions.of(self.contract, self.key, given)
            self._losses = {
                (batched, soft): self._loss(given, batched, soft)
                for batched in (True, False)
                for soft in (True, False)
            }
            self._each = self._loss(given, True, True, unreduced=True)
        except LossError as error:
            raise TorchLossError(str(error)) from None
        names, target = list(self.contract.inputs), self.contract.target_name
        self._target_at = 0 if target is None else names.index(target)
        self._direct_from = self._axes_of_inputs_taken_as_they_are()
        # How many inputs go to the loss as they are; 0 where they are looked at first.
        as_they_are = self._direct_from <= 2 and not self.conventions.prepares_inputs
        self._quick = len(names) if as_they_are else 0
        self._positive: tuple[Any, dict[tuple[bool, bool], Loss]] = (None, {})

    def _axes_of_inputs_taken_as_they_are(self) -> float:
        """From how many axes on the loss itself takes what a call without companions brings."""
        own, chosen = self.contract, self.conventions
        changed = chosen.changes_inputs or self.distance_function is not None or own.learned
        if changed or own.inputs[own.predictions[0]].layout == "steps":
            return math.inf
        return 0 if own.unit is not None and own.unit.name == "element" else 2

    def _shortly(self, inputs: tuple[Tensor, ...]) -> Tensor | None:
        """What most calls come to, without detours; None for others."""
        first = inputs[0]
        if first.ndim < self._direct_from or len(inputs) != len(self.contract.inputs):
            return None
        least = self.conventions.least_variance
        if least is not None:
            variance = inputs[-1]
            if not isinstance(variance, Tensor) or variance.shape != first.shape:
                return None
            if not _readable(variance) or not float(variance.detach().min()) >= least:
                return None
        if self.conventions.log_target:
            target, compiled = inputs[1], torch.compiler.is_compiling()
            alike = first.shape == target.shape and first.dtype == target.dtype == torch.float32
            if compiled and alike and first.numel() and not target.requires_grad:
                return reduce(_divergence(first, target), self.conventions.reduction)
            inputs = (first, target.exp())
        if self.conventions.each_class:
            inputs = (first.unsqueeze(-1), inputs[1].unsqueeze(-1))
        if self.conventions.labels_by_index:
            inputs = (first, conventions.multi_hot(inputs[1], first))
        soft = inputs[self._target_at].ndim == inputs[0].ndim
        way = (first.ndim > 1, soft)
        weight, positive = self._buffers.get("weight"), self._buffers.get("pos_weight")
        if weight is None and positive is None:
            return self._losses[way](*inputs)
        if weight is not None and weight.device != first.device:
            return None
        if positive is None:
            assert weight is not None
            if not self.conventions.element_weight:
                if weight.shape != first.shape[1:2]:
                    return None
                return self._losses[way](*inputs, class_weights=weight)
            return self._losses[way](*inputs, weights=self._spread(weight, first))
        if weight is not None or positive.requires_grad:
            return None
        target = inputs[1]
        if torch.compiler.is_compiling():
            traced = self._losses[way]._traced
            return None if traced is None else traced(inputs, None, None, None, positive)
        if not _readable(positive):
            return None
        repeated = positive.numel() == 1 or positive.shape == first.shape[-1:]
        if not (repeated and positive.is_cpu and first.is_cpu):
            return None
        numbers = tuple(positive.reshape(-1).tolist())
        if self._positive[0] != numbers:
            chosen = {"pos_weight": numbers[0] if len(numbers) == 1 else numbers}
            ways = {way: _replaced(loss, chosen) for way, loss in self._losses.items()}
            self._positive = (numbers, ways)
        return self._positive[1][way](first, target)

    def _loss(
        self, given: Mapping[str, Any], batched: bool, soft: bool, unreduced: bool = False
    ) -> Loss:
        """The loss for inputs with or without a batch, of class indices or soft targets."""
        chosen = self.conventions
        parameters = {name: given[name] for name in self.contract.parameters if name in given}
        if conventions.class_axis(self.contract) and "axis" in parameters:
            if chosen.each_class:
                parameters["axis"] = -1
            elif not batched and parameters["axis"] == 1:
                parameters["axis"] = 0
        reduction = chosen.reduction
        # PyTorch divides by the classes' weights where targets are indices, else by the count.
        by_count = self._weighted and (chosen.by_count or soft)
        if reduction == "mean" and (by_count or chosen.time_first):
            reduction = "mean_over_batch"
        return Loss(
            self.contract,
            reduction="none" if unreduced else reduction,
            predictions=chosen.predictions,
            ignore=None if soft and self._by_class else given.get("ignore_index"),
            empty=given["empty"],
            **parameters,
        )

    @property
    def _weighted(self) -> bool:
        return any(self._buffers.get(name) is not None for name in ("weight", "pos_weight"))

    @property
    def _by_class(self) -> bool:
        return self.contract.target is not None and self.contract.target.name == "classes"

    def forward(
        self, *inputs: Tensor, weights: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """The reduced loss; ``none`` keeps one value per unit."""
        if weights is None and mask is None and len(inputs) == self._quick:
            first, buffers = inputs[0], self._buffers
            weight, axes = buffers.get("weight"), first.ndim
            bare = axes > 1 and first.is_cpu and buffers.get("pos_weight") is None
            if weight is not None and bare:  # of classes
                bare = weight.is_cpu and not self.conventions.element_weight
            if bare and not is_autocast_enabled("cpu"):
                soft = inputs[self._target_at].ndim == axes
                try:
                    return self._losses[True, soft](*inputs, class_weights=weight)
                except LossError:
                    pass  # said below, in PyTorch's words
        return self._run(False, inputs, weights, mask)

    def total(
        self, *inputs: Tensor, weights: Tensor | None = None, mask: Tensor | None = None
    ) -> Total:
        """Sum and weight, whose ratio is the mean. Totals of any split of the data add exactly."""
        return self._run(True, inputs, weights, mask)

    def _run(
        self, total: bool, inputs: tuple[Tensor, ...], weights: Tensor | None, mask: Tensor | None
    ) -> Any:
        device = inputs[0].device.type
        try:
            if device == "meta" or not is_autocast_enabled(device):
                return self._compute(total, inputs, weights, mask)
            with torch.autocast(device, enabled=False):
                return self._compute(total, tuple(map(_wide, inputs)), weights, mask)
        except LossError as error:
            raise TorchLossError(str(error)) from None

    def _compute(
        self, total: bool, inputs: tuple[Tensor, ...], weights: Tensor | None, mask: Tensor | None
    ) -> Any:
        if not total and weights is None and mask is None:
            value = self._shortly(inputs)
            if value is not None:
                return value
        arrays = self._arrays(inputs)
        first = arrays[self.contract.predictions[0]]
        target = arrays.get(str(self.contract.target_name))
        soft = target is None or target.ndim == first.ndim
        loss = self._losses[inputs[0].ndim > 1, soft]
        companions: dict[str, Tensor | None] = {"mask": mask}
        # Buffers only: a learned matrix may go by the same name.
        weight, positive = self._buffers.get("weight"), self._buffers.get("pos_weight")
        for name, value in (("weight", weight), ("pos_weight", positive)):
            if value is not None and value.device != first.device:
                raise LossError(
                    f"{self.key}: {name} is on {value.device}, the input on {first.device}; "
                    f"move the module: loss.to({str(first.device)!r})"
                )
        if positive is not None and target is not None:
            target, factor = conventions.positive_weighted(target, positive)
            arrays[str(self.contract.target_name)] = target
            weights = factor if weights is None else weights * factor
        if weight is not None and self.conventions.element_weight:
            factor = self._spread(weight, first)
            weights = factor if weights is None else weights * factor
        elif weight is not None:
            classes = first.shape[class_axis(self.contract, first, loss.parameters)]
            if tuple(weight.shape) != (classes,):
                raise LossError(
                    f"{self.key}: weight has shape {tuple(weight.shape)}, expected ({classes},): "
                    f"one number per class of the input's {tuple(first.shape)}"
                )
            companions["class_weights"] = weight
        if self.conventions.each_label:
            return self._over_labels(total, arrays, weights, mask)
        if self.conventions.time_first and self.conventions.reduction == "mean":
            factor = 1.0 / arrays["target_lengths"].clamp(min=1).to(first.dtype)
            weights = factor if weights is None else weights * factor
        if not total:
            value = loss(*arrays.values(), weights=weights, **companions)
            return value.squeeze(0) if self._alone(inputs) and value.ndim else value
        whole = loss.total(**arrays, weights=weights, **companions)
        if loss.reduction == "mean_over_batch":
            return Total(whole.sum, loss.total(**arrays, mask=mask).weight)
        return whole

    def _arrays(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The definition's arguments from PyTorch's."""
        chosen, own = self.conventions, self.contract.learned
        names = [name for name in self.contract.inputs if name not in own]
        if len(inputs) != len(names):
            raise LossError(f"{self.key}: takes {', '.join(names)}; got {len(inputs)} tensors")
        if chosen.time_first:
            inputs = conventions.sequences(*inputs)
        elif self._alone(inputs):
            inputs = tuple(x.unsqueeze(0) for x in inputs)
        if self.distance_function is not None:
            inputs = self._distances(*inputs)
        given = dict(zip(names, inputs, strict=True)) | {name: getattr(self, name) for name in own}
        arrays = {name: given[name] for name in self.contract.inputs}
        if chosen.labels_by_index:
            arrays["target"] = conventions.multi_hot(arrays["target"], inputs[0])
        if chosen.log_target:
            arrays["target"] = arrays["target"].exp()
        if chosen.each_class:
            arrays = {name: array.unsqueeze(-1) for name, array in arrays.items()}
        if chosen.least_variance is not None:
            arrays["variance"] = self._variance(
                arrays["variance"], inputs[0], chosen.least_variance
            )
        return arrays

    def _alone(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether one vector or one sequence came, without a batch."""
        first = next(iter(type(self).contract.inputs.values())).layout
        return inputs[0].ndim == {"row": 1, "steps": 2}.get(first)

    def _distances(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, ...]:
        """The distance that should rank higher, the other, and ones."""
        near = self.distance_function(anchor, positive)
        far = self.distance_function(anchor, negative)
        if self.swap:
            far = torch.minimum(far, self.distance_function(positive, negative))
        return far, near, torch.ones_like(near)

    def _variance(self, variance: Any, like: Tensor, least: float) -> Tensor:
        """PyTorch takes one variance per row or for all, and clamps it outside of the gradient."""
        if not isinstance(variance, Tensor):
            variance = torch.full_like(like, variance)
        if variance.ndim == like.ndim - 1 and variance.shape == like.shape[:-1]:
            variance = variance.unsqueeze(-1)
        clamped = variance + (variance.clamp(min=least) - variance).detach()
        return clamped.expand(like.shape)

    def _spread(self, weight: Tensor, first: Tensor) -> Tensor:
        """An element weight, broadcast as PyTorch does: along the trailing dimensions."""
        try:
            return weight.expand(first.shape)
        except RuntimeError:
            raise LossError(
                f"{self.key}: weight has shape {tuple(weight.shape)}, which does not broadcast to "
                f"the input's {tuple(first.shape)}; give one weight per element, or per class"
            ) from None

    def _over_labels(
        self,
        total: bool,
        arrays: dict[str, Tensor],
        weights: Tensor | None,
        mask: Tensor | None,
    ) -> Any:
        """One value per row of labels: their mean."""
        values = self._each(**arrays, weights=weights, mask=mask).mean(dim=-1)
        if total:
            return Total(values.sum(), values.new_tensor(float(values.numel())))
        return reduce(values, self.conventions.reduction)

    def extra_repr(self) -> str:
        """What was chosen."""
        return ", ".join(f"{name}={value!r}" for name, value in self.chosen.items())


def _divergence(log_probabilities: Tensor, log_target: Tensor) -> Tensor:
    """Element by element, without the logarithm of what was a logarithm: a compiler fuses it."""
    gap = log_target - log_probabilities
    return torch.where(log_target == -math.inf, 0.0, log_target.exp() * gap)


def _readable(tensor: Tensor) -> bool:
    """Whether its numbers can be read; not where something traces or fakes what is computed."""
    traced = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    traced = traced or torch._C._are_functorch_transforms_active()
    return type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta and not traced


def _replaced(loss: Loss, parameters: Mapping[str, Any]) -> Loss:
    """The loss with other parameters."""
    config = loss.config
    return Loss.from_config({**config, "parameters": {**config["parameters"], **parameters}})


def _wide(x: Any) -> Any:
    """Half precision as float32."""
    half = isinstance(x, Tensor) and x.is_floating_point() and x.itemsize < 4
    return x.float() if half else x


def class_name(key: str) -> str:
    """PyTorch's name where PyTorch has the loss, else the key in capitals, with ``Loss``."""
    host = conventions.host_of(key)
    if host is not None:
        return host.__name__
    return "".join(part[:1].upper() + part[1:] for part in key.split("_")) + "Loss"


def module_class(name: str) -> type[LossModule]:
    """The module class of a loss, by any of its names."""
    try:
        resolve(name)
    except LossError as error:
        raise TorchLossError(str(error)) from None
    return _made(key_of(name))


@cache
def _made(key: str) -> type[LossModule]:
    contract, alias = REGISTRY[key]
    if not contract.predictions:
        raise TorchLossError(f"{key}: has no predictions, so it is no module")
    body = {
        "contract": contract,
        "key": key,
        "presets": alias.presets,
        "__doc__": f"{inspect.getdoc(contract.compute)}\n\n{inspect.getdoc(LossModule)}",
        "__module__": "lossary.torch",
        "__signature__": conventions.signature(contract, key, alias.presets),
    }
    return type(class_name(key), (LossModule,), body)
