"""Small Keras models trained under the doctor's callback, on the backend of KERAS_BACKEND.

tests/adapters/test_keras.py runs it on each.
"""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, losses, ops

from lossary.doctor.watch_keras import Watch

chance = np.random.default_rng(0)
rows = chance.normal(size=(160, 6)).astype("float32")
kinds = (rows @ chance.normal(size=(6, 4))).argmax(1)
yes = (rows[:, 0] + 0.3 * chance.normal(size=160) > 0).astype("float32")
size = (rows @ chance.normal(size=6) + 0.2 * chance.normal(size=160)).astype("float32")
hot = np.eye(4, dtype="float32")[kinds]
words = chance.integers(1, 9, (160, 7))
words[np.arange(7) >= chance.integers(2, 8, (160, 1))] = 0
weight = chance.random(160).astype("float32")


def net(units: int, activation: str | None = None) -> Any:
    hidden = layers.Dense(16, activation="relu")
    return keras.Sequential([hidden, layers.Dense(units, activation=activation)])


def tagger() -> Any:
    hidden = layers.Embedding(9, 8, mask_zero=True)
    return keras.Sequential([hidden, layers.Dense(9)])


def two_heads(activation: str | None = "softmax") -> Any:
    inputs = keras.Input((6,))
    kind = layers.Dense(4, activation=activation, name="kind")(inputs)
    return keras.Model(inputs, {"kind": kind, "size": layers.Dense(1, name="size")(inputs)})


def squared(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


class Squared(losses.Loss):
    """Of a subclass Keras adapts nothing: a target (N,) meets every prediction (N, 1)."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


BCE, SCE, CCE = (
    losses.BinaryCrossentropy,
    losses.SparseCategoricalCrossentropy,
    losses.CategoricalCrossentropy,
)
both = {"kind": kinds, "size": size}
TRAININGS: dict[str, tuple[Any, Any, Any, Any, dict[str, Any]]] = {
    "right: (N,) and a sigmoid": (net(1, "sigmoid"), BCE(), rows, yes, {}),
    "right: (N, 1) and logits": (net(1), BCE(from_logits=True), rows, yes[:, None], {}),
    "right: a name": (net(1, "sigmoid"), "binary_crossentropy", rows, yes, {}),
    "right: classes on logits": (net(4), SCE(from_logits=True), rows, kinds, {}),
    "right: classes (N, 1)": (net(4, "softmax"), SCE(), rows, kinds[:, None], {}),
    "right: one-hot": (net(4, "softmax"), CCE(), rows, hot, {}),
    "right: smoothed": (net(4), CCE(from_logits=True, label_smoothing=0.1), rows, hot, {}),
    "right: crossentropy": (net(4, "softmax"), "crossentropy", rows, kinds, {}),
    "right: values (N,)": (net(1), "mse", rows, size, {}),
    "right: values (N, 1)": (net(1), losses.MeanSquaredError(), rows, size[:, None], {}),
    "right: a function": (net(1), squared, rows, size, {}),
    "right: weighted": (net(1), losses.Huber(), rows, size, {"sample_weight": weight}),
    "right: class weights": (net(4), SCE(from_logits=True), rows, kinds, {"class_weight": {1: 3}}),
    "right: hinge of 0 and 1": (net(1, "tanh"), losses.Hinge(), rows, yes, {}),
    "right: masked words": (tagger(), SCE(from_logits=True), words, words, {}),
    "right: an ignored class": (
        net(4),
        SCE(from_logits=True, ignore_class=-1),
        rows,
        np.where(weight < 0.2, -1, kinds),
        {},
    ),
    "right: two outputs": (
        two_heads(),
        {"kind": "sparse_categorical_crossentropy", "size": "mse"},
        rows,
        both,
        {},
    ),
    "logits-as-probabilities": (net(1), BCE(), rows, yes, {}),
    "double-sigmoid": (net(1, "sigmoid"), BCE(from_logits=True), rows, yes, {}),
    "double-softmax": (net(4, "softmax"), SCE(from_logits=True), rows, kinds, {}),
    "label-range": (net(4), SCE(from_logits=True), rows, kinds + 1, {}),
    "target-range": (net(1, "sigmoid"), BCE(), rows, 255 * yes, {}),
    "encoding": (net(4), CCE(from_logits=True), rows, np.maximum(hot, hot[::-1]), {}),
    "nan-target": (net(1), "mse", rows, np.where(weight < 0.1, np.nan, size), {}),
    "broadcast": (net(1), Squared(), rows, size, {}),
    "logits-as-probabilities of one output": (
        two_heads(None),
        {"kind": "sparse_categorical_crossentropy", "size": "mse"},
        rows,
        both,
        {},
    ),
}


def findings(name: str) -> list[str]:
    model, loss, inputs, target, options = TRAININGS[name]
    keras.utils.set_random_seed(1)
    model.compile(keras.optimizers.Adam(0.02), loss)
    watch = Watch(inputs, target, every=4, stop=False, tell=lambda text: None)
    if name.startswith("right"):
        model.fit(inputs, target, epochs=2, verbose=0, callbacks=[watch], **options)
    else:  # the first look is enough, and some of these models cannot be trained at all
        watch.set_model(model)
        watch.on_train_begin()
    return sorted(item.check for item in watch.findings.values() if item.severity != "note")


# JAX and TensorFlow compile each one anew: they take some in turn.
STEP = {"torch": 1, "tensorflow": 2, "jax": 7}[keras.backend.backend()]


@pytest.mark.parametrize("name", list(TRAININGS)[::STEP])
def test_quiet_on_right_trainings_and_true_on_broken_ones(name: str) -> None:
    found = findings(name)
    if name.startswith("right"):
        assert found == []
    else:
        assert name.partition(" ")[0] in found
