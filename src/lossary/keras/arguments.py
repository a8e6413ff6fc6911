"""The arguments of a generated Keras loss: Keras' own where it has the loss, else by contract."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras
from keras.losses import Loss as HostLoss

from lossary.contract import Contract, key_of
from lossary.inputs import arrivals

# How predictions arrive in Keras: behind the output layer's activation.
_ACTIVATED = {"logits": "probabilities", "log_rates": "rates"}

# Scores of these are compared, never made probabilities.
_SCORED = ("margin",)

# Keras uses both distributions of these as they are, whatever they sum to.
AS_GIVEN = ("divergence",)

# Arguments of Keras without which it ignores another.
SWITCHES = {"apply_class_balancing": "alpha"}

# Arguments of Keras with the one value that Lossary has: oneself is no partner.
FIXED = {"remove_diagonal": True}

# Keras smooths no ratio of sums: only its denominator holds an epsilon.
_DEFAULTS = {"smooth": 0.0}

_SMOOTHED = ("binary", "classes", "multi-hot")

HOST = ("reduction", "name", "dtype")


def signature(contract: Contract, key: str, presets: Mapping[str, Any]) -> inspect.Signature:
    """Keras' own signature where it has the loss, then what only the contract knows.

    Else in Keras' order: the loss's parameters, from_logits ..., reduction, name, dtype.
    """
    own = {
        name: presets.get(name, _DEFAULTS.get(name, item.default))
        if name in presets or not item.required
        else inspect.Parameter.empty
        for name, item in contract.parameters.items()
    }
    conventions: dict[str, Any] = {}
    first = contract.inputs[contract.predictions[0]]
    scored = contract.family in _SCORED or first.layout == "steps"
    ways = () if scored else arrivals(contract)
    if "logits" in ways and "probabilities" in ways:
        conventions["from_logits"] = presets.get("predictions") == "logits"
    if len(ways) > 1:
        conventions["predictions"] = presets.get("predictions") or _ACTIVATED.get(ways[0], ways[0])
    target, unit = contract.target, contract.unit
    if target is not None:
        if target.name in _SMOOTHED:
            conventions["label_smoothing"] = own.pop("label_smoothing", 0.0)
        if target.layout == "class":
            conventions["ignore_class"] = None
    if unit is not None and unit.name == "element":
        conventions["axis"] = own.pop("axis", -1)
    elif "axis" in own:
        axis = own.pop("axis")
        conventions["axis"] = -1 if isinstance(axis, int) else axis  # Keras keeps classes last
    if contract.learned:
        own = {"num_classes": inspect.Parameter.empty, **own}
    host = {"reduction": "sum_over_batch_size", "name": key, "dtype": None}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    everything = {**own, **conventions, **host}
    theirs = keras_arguments(key)
    also = {*everything, *SWITCHES, *FIXED}
    known = {name: theirs[name] for name in theirs if name in also}
    everything = {**known, **{name: everything[name] for name in everything if name not in known}}
    required = [name for name, default in everything.items() if default is inspect.Parameter.empty]
    ordered = [*required, *(name for name in everything if name not in required)]
    return inspect.Signature(
        [inspect.Parameter(name, kind, default=everything[name]) for name in ordered]
    )


def keras_arguments(key: str) -> dict[str, Any]:
    """Arguments and defaults of Keras' own class of this name."""
    for name, kind in vars(keras.losses).items():
        if inspect.isclass(kind) and kind is not HostLoss and key_of(name) == key:
            arguments = inspect.signature(kind.__init__).parameters.values()
            return {item.name: item.default for item in arguments if item.name != "self"}
    return {}
