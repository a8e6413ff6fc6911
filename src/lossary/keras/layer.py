"""``LossLayer``: a loss that has weights of its own, as the last layer of a model in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from lossary.contract import Array, Contract, LossError
from lossary.evaluate import Loss
from lossary.keras.arguments import signature

_REDUCTIONS = {"sum_over_batch_size": ops.mean, "mean": ops.mean, "sum": ops.sum}


class LossLayer(keras.layers.Layer):
    """What the generated layers share: ``layer(y_pred, y_true)`` adds its loss to the model's.

    >>> embedding, label = Dense(16)(inputs), keras.Input((), dtype="int32")
    >>> outputs = lossary.keras.ArcFace(num_classes=10)(embedding, label)
    >>> model = keras.Model([inputs, label], outputs)
    >>> model.compile("adam")                  # the loss is in the layer, with its weights
    >>> model.fit([x, y])

    It returns ``y_pred`` unchanged, so that the same layers without it are the model in use. Keras
    trains the weights of layers, not those of ``keras.losses.Loss``.
    """

    contract: Contract
    key: str
    presets: Mapping[str, Any]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        taken = signature(self.contract, self.key, self.presets)
        names = set(taken.parameters)
        layer = {name: options.pop(name) for name in list(options) if name not in names}
        bound = taken.bind(*arguments, **options)
        bound.apply_defaults()
        given = dict(bound.arguments)
        super().__init__(name=given.pop("name"), dtype=given.pop("dtype"), **layer)
        self.reduction = given.pop("reduction")
        if self.reduction not in _REDUCTIONS:
            raise LossError(
                f"{self.key}: reduction={self.reduction!r} is not known to a layer; it can be "
                f"{', '.join(_REDUCTIONS)}"
            )
        self.num_classes = given["num_classes"]
        inside = {name: given[name] for name in self.contract.parameters}
        self.loss = Loss(self.contract, reduction="none", **inside)

    def build(self, y_pred_shape: Any, y_true_shape: Any = None) -> None:
        """Weights of shape (classes, features of the embedding)."""
        shape = (self.num_classes, y_pred_shape[-1])
        for name in self.contract.learned:
            weight = self.add_weight(name=name, shape=shape, initializer="glorot_uniform")
            setattr(self, name, weight)

    def call(self, y_pred: Array, y_true: Array) -> Array:
        """``y_pred``; the loss is added to the model's."""
        # Multiplied by 1, a variable of any backend is a tensor.
        given = {name: ops.multiply(getattr(self, name), 1.0) for name in self.contract.learned}
        labels = ops.cast(y_true, "int32")
        if len(labels.shape) == len(y_pred.shape) and labels.shape[-1] == 1:
            labels = ops.squeeze(labels, axis=-1)
        given |= {self.contract.predictions[0]: y_pred, str(self.contract.target_name): labels}
        self.add_loss(_REDUCTIONS[self.reduction](self.loss(**given)))
        return y_pred

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "reduction": self.reduction,
            **self.loss.parameters,
        }
