"""``KerasLoss``: a loss as ``keras.losses.Loss``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
from keras import dtype_policies, ops, tree
from keras.losses import Loss as HostLoss
from keras.src import backend
from keras.src.losses.loss import reduce_weighted_values, squeeze_or_expand_to_same_rank

from lossary.contract import Array, Contract, LossError, Space
from lossary.evaluate import Loss
from lossary.inputs import CONVERSIONS
from lossary.keras.arguments import AS_GIVEN, FIXED, HOST, SWITCHES, signature


class KerasLoss(HostLoss):
    """What the generated classes share; each fixes ``contract`` and its signature."""

    contract: Contract
    key: str
    presets: Mapping[str, Any]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        taken = signature(self.contract, self.key, self.presets)
        bound = taken.bind(*arguments, **options)
        self._chosen = {
            name: value
            for name, value in bound.arguments.items()
            if name not in HOST and value != taken.parameters[name].default
        }
        bound.apply_defaults()
        given = dict(bound.arguments)
        self._given_dtype = given["dtype"]
        super().__init__(**{name: given.pop(name) for name in HOST})
        self.axis = given.get("axis", -1)
        self.label_smoothing = given.get("label_smoothing", 0.0)
        inside = {name: given[name] for name in self.contract.parameters if name in given}
        for switch, name in SWITCHES.items():
            if not given.get(switch, True):
                inside.pop(name)
        for name, value in FIXED.items():
            if given.get(name, value) != value:
                raise LossError(f"{self.key}: {name}={given[name]!r} is not offered; leave it out")
        if self.label_smoothing and "label_smoothing" not in inside:
            _check_smoothing(self.contract, self.label_smoothing)
        if self.axis is None:
            inside.pop("axis", None)
        arrival = _arrival(given)
        self._convert = None
        if arrival == "probabilities" and self.contract.family in AS_GIVEN:
            space = self.contract.inputs[self.contract.predictions[0]].name
            self._convert, arrival = CONVERSIONS[space][arrival], "log_probabilities"
        self.loss = Loss(
            self.contract,
            predictions=arrival,
            ignore=given.get("ignore_class"),
            **inside,
        )

    def __call__(self, y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> Array:
        """The reduced loss, as Keras reduces."""
        mask = None if isinstance(y_pred, (list, tuple, dict)) else backend.get_keras_mask(y_pred)
        with keras.name_scope(self.name):
            y_pred = tree.map_structure(
                lambda x: ops.convert_to_tensor(x, dtype=self.dtype), y_pred
            )
            y_true = tree.map_structure(self._target_tensor, y_true)
            values = self._values(y_true, y_pred, mask)
            return reduce_weighted_values(
                values,
                sample_weight=sample_weight,
                mask=backend.get_keras_mask(values),
                reduction=self.reduction,
                dtype=self.dtype,
            )

    def _target_tensor(self, y_true: Any) -> Array:
        """Class indices and labels stay whole numbers: bfloat16 cannot tell class 256 from 257."""
        tensor = ops.convert_to_tensor(y_true)
        if self._takes_codes and keras.backend.is_int_dtype(dtype_of(tensor)):
            return tensor
        return ops.cast(tensor, self.dtype)

    @property
    def _takes_codes(self) -> bool:
        target = self.contract.target
        return (
            target is not None
            and target.layout in ("class", "label", "sequence")
            and target.integral
        )

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """One value per sample; those that do not count carry a Keras mask."""
        return self._values(y_true, y_pred, None)

    def against(
        self, y_true: Array, y_pred: Array, ref_labels: Array, ref_embeddings: Array
    ) -> Array:
        """One value per sample, compared with other samples than those of the batch."""
        known = ops.convert_to_tensor(ref_embeddings, dtype=y_pred.dtype)
        labels = ops.cast(ref_labels, "int32"), ops.cast(y_true, "int32")
        inside, references = self.loss.parameters, (known, labels[0])
        return self.contract.compute(y_pred, labels[1], references=references, **inside)

    def _values(self, y_true: Array, y_pred: Array, mask: Array | None) -> Array:
        try:
            arrays = self._arrays(y_true, y_pred, mask)
            mask = None if self._by_steps else mask  # steps that are masked have no part
            values, counts = self.loss.units(*arrays, mask=mask)
        except LossError as error:
            raise LossError(_in_keras_words(str(error))) from None
        unit = self.contract.unit
        if unit is not None and unit.name == "element" and len(values.shape):
            values, counts = _average(values, counts, -1 if self.axis is None else self.axis)
        if counts is not None:
            backend.set_keras_mask(values, ops.broadcast_to(counts, ops.shape(values)))
        return values

    @property
    def _by_steps(self) -> bool:
        return self.contract.inputs[self.contract.predictions[0]].layout == "steps"

    def _arrays(self, y_true: Array, y_pred: Array, mask: Array | None) -> tuple[Array, ...]:
        """The definition's arguments, in its order, from Keras' pair."""
        contract = self.contract
        predictions = _predictions(contract, y_pred)
        if self._convert is not None:
            predictions = (self._convert(predictions[0]), *predictions[1:])
        if contract.target is None:
            spaces = contract.inputs.values()
            return tuple(_adapted(*item) for item in zip(predictions, spaces, strict=True))
        first = predictions[0]
        target = self._aligned(y_true, first, contract.target)
        if self._takes_codes and (len(target.shape) < len(first.shape) or self._by_steps):
            target = ops.cast(target, "int32")
        target = self._smoothed(target, first, contract.target)
        if "axis" in contract.parameters and self.axis is None:  # one region, the batch included
            predictions = tuple(ops.reshape(item, (1, -1)) for item in predictions)
            target = ops.reshape(target, (1, -1))
        given = dict(zip(contract.predictions, predictions, strict=True))
        given[str(contract.target_name)] = target
        if self._by_steps:
            given |= _sequences(contract, first, target, mask, self.loss.parameters["blank"])
        return tuple(_adapted(given[name], space) for name, space in contract.inputs.items())

    def _aligned(self, y_true: Array, y_pred: Array, space: Space) -> Array:
        """``y_true`` with the dimension of size 1 that Keras forgives added or removed."""
        layout, shape, wanted = space.layout, y_true.shape, y_pred.shape
        if layout == "class":
            axis = self.axis if isinstance(self.axis, int) else -1
            single = len(shape) == len(wanted) > 0 and shape[axis] == 1 != wanted[axis]
            if single and not self.key.startswith("categorical_"):
                return ops.squeeze(y_true, axis=axis)
            if len(shape) == len(wanted) and self.key.startswith("sparse_"):
                raise LossError(
                    f"{self.key}: y_true has shape {tuple(shape)}, like y_pred, so it is one-hot; "
                    f"this loss takes class indices of shape {_without(wanted, axis)}: use "
                    f"{self.key.removeprefix('sparse_')}, or ops.argmax(y_true, axis={axis})"
                )
        elif layout == "element":
            y_true, _ = squeeze_or_expand_to_same_rank(y_true, y_pred)
        elif layout == "label" and len(shape) == len(wanted) and shape[-1] == 1:
            return ops.squeeze(y_true, axis=-1)
        else:
            return y_true
        shape = y_true.shape
        if len(shape) == len(wanted) and not _alike(shape, wanted):
            raise LossError(
                f"{self.key}: y_true and y_pred must have the same shape; y_true has "
                f"{tuple(shape)}, y_pred {tuple(wanted)}: nothing is broadcast"
            )
        return y_true

    def _smoothed(self, y_true: Array, y_pred: Array, space: Space) -> Array:
        """Labels with a share moved to all classes, where the definition does not do it itself."""
        share = self.label_smoothing
        if not share or "label_smoothing" in self.contract.parameters:
            return y_true
        if space.layout != "class":
            return ops.cast(y_true, y_pred.dtype) * (1.0 - share) + 0.5 * share
        classes = y_pred.shape[self.axis]
        if len(y_true.shape) < len(y_pred.shape):
            y_true = ops.one_hot(y_true, classes, axis=self.axis)
        return ops.cast(y_true, y_pred.dtype) * (1.0 - share) + share / classes

    def get_config(self) -> dict[str, Any]:
        """What was chosen: name, reduction and all that differs from the defaults."""
        chosen = {name: _plain(value) for name, value in self._chosen.items()}
        config = {"name": self.name, "reduction": self.reduction, **chosen}
        if self._given_dtype is not None:
            config["dtype"] = dtype_policies.serialize(self._dtype_policy)
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> KerasLoss:
        """The loss of a ``get_config``."""
        known = signature(cls.contract, cls.key, cls.presets).parameters
        unknown = [name for name in config if name not in known]
        if unknown:
            raise LossError(
                f"{cls.key}: the config has {unknown[0]!r}, which this version does not know (it "
                f"knows {', '.join(known)}); was it written by a newer version of lossary?"
            )
        config = dict(config)
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = dtype_policies.deserialize(config["dtype"])
        return cls(**config)

    def __repr__(self) -> str:
        chosen = ", ".join(f"{name}={value!r}" for name, value in self._chosen.items())
        return f"lossary.keras.{type(self).__name__}({chosen})"


def _arrival(given: Mapping[str, Any]) -> str | None:
    return "logits" if given.get("from_logits") else given.get("predictions")


def _check_smoothing(contract: Contract, share: float) -> None:
    if not 0 <= share < 1:
        raise LossError(f"{contract.name}: label_smoothing={share!r} is outside [0, 1)")


def _predictions(contract: Contract, y_pred: Array) -> tuple[Array, ...]:
    """``y_pred`` as the definition's predictions: a list, a dictionary, or one tensor to split.

    Keras gives a loss one output. A loss of several predictions (mean and variance; anchor,
    positive and negative) takes them as equal parts of the last axis.
    """
    names = contract.predictions
    if isinstance(y_pred, Mapping):
        if set(y_pred) != set(names):
            raise LossError(
                f"{contract.name}: y_pred has {', '.join(map(str, y_pred))}; "
                f"expected {', '.join(names)}"
            )
        parts = [y_pred[name] for name in names]
    elif isinstance(y_pred, (list, tuple)):
        parts = list(y_pred)
    elif len(names) == 1:
        parts = [y_pred]
    else:
        size = y_pred.shape[-1] if len(y_pred.shape) else 0
        if not size or size % len(names):
            raise LossError(
                f"{contract.name}: y_pred has shape {tuple(y_pred.shape)}; its last axis must be "
                f"divisible into {', '.join(names)}"
            )
        parts = ops.split(y_pred, len(names), axis=-1)
    if len(parts) != len(names):
        raise LossError(
            f"{contract.name}: y_pred has {len(parts)} parts, expected {', '.join(names)}"
        )
    return tuple(parts)


def _sequences(
    contract: Contract, first: Array, target: Array, mask: Array | None, blank: int
) -> dict[str, Array]:
    """Labels before padding, and lengths: in Keras padding is the blank, also between labels."""
    if len(target.shape) != 2 or len(first.shape) != 3:
        raise LossError(
            f"{contract.name}: y_true has shape {tuple(target.shape)}, y_pred {tuple(first.shape)};"
            " expected (batch, length) and (batch, steps, classes)"
        )
    place, size = ops.arange(target.shape[1], dtype="int32"), target.shape[1]
    written = ops.not_equal(target, blank)
    order = ops.argsort(ops.where(written, place, place + size), axis=1)
    steps = ops.ones_like(first[:, :, 0], dtype="int32")
    if mask is not None:
        steps = steps * ops.cast(mask, "int32")
    lengths = (ops.sum(steps, axis=1), ops.sum(ops.cast(written, "int32"), axis=1))
    names = [name for name, space in contract.inputs.items() if space.name == "length"]
    return {
        str(contract.target_name): ops.take_along_axis(target, order, axis=1),
        **dict(zip(names, lengths, strict=True)),
    }


def _average(values: Array, counts: Array | None, axis: Any) -> tuple[Array, Array | None]:
    """Per-element values averaged along the axis, over the places that count."""
    if counts is None:
        return ops.mean(values, axis=axis), None
    if counts.shape[-1] == 1 and axis in (-1, len(values.shape) - 1):
        return ops.mean(values, axis=axis), ops.squeeze(counts, axis=-1)
    counts = ops.broadcast_to(counts, ops.shape(values))
    number = ops.sum(ops.cast(counts, values.dtype), axis=axis)
    return ops.divide_no_nan(ops.sum(values, axis=axis), number), number > 0


def _adapted(array: Array, space: Space) -> Array:
    """Channels of images where the definition has them; negatives raised to 0, as Keras does."""
    if space.layout == "image" and keras.config.image_data_format() == "channels_last":
        return ops.moveaxis(array, -1, 1)
    return ops.maximum(array, 0) if space.name == "nonnegative" else array


def _alike(one: Any, other: Any) -> bool:
    """Equal shapes; a dimension that is not known yet (None) equals any."""
    return all(a == b or a is None or b is None for a, b in zip(one, other, strict=True))


def _without(shape: Any, axis: int) -> tuple[Any, ...]:
    sizes = list(shape)
    del sizes[axis]
    return tuple(sizes)


def _in_keras_words(message: str) -> str:
    return re.sub(r"\bprediction\b", "y_pred", re.sub(r"\btarget\b", "y_true", message))


def _plain(value: Any) -> Any:
    """Arrays and tuples as lists, as JSON keeps them."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def dtype_of(tensor: Array) -> str:
    """The dtype's name, on any backend."""
    return keras.backend.standardize_dtype(tensor.dtype)
