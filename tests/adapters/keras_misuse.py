"""Misuse of lossary.keras, on the backend of KERAS_BACKEND; test_keras.py runs it on each."""

import keras
import numpy as np
import pytest

import lossary.keras
from lossary import LossError


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda k: k.MeanSquaredError()(np.zeros((3, 2)), np.zeros((3, 4))),
            "must have the same shape",
        ),
        (
            lambda k: k.SparseCategoricalCrossentropy()(np.eye(3), np.ones((3, 3)) / 3),
            "so it is one-hot; this loss takes class indices",
        ),
        (
            lambda k: k.CategoricalCrossentropy()(np.zeros((3, 1)), np.ones((3, 3)) / 3),
            "must have the same shape",
        ),
        (
            lambda k: k.CrossEntropy()(np.zeros((4, 3, 2), "int64"), np.zeros((4, 3))),
            "y_true has shape",
        ),
        (
            lambda k: k.CrossEntropy()(np.zeros((4, 5), "int64"), np.zeros((4, 3, 5))),
            "if the classes are on axis 1, say axis=1",
        ),
        (
            lambda k: k.CTC()(np.ones((4, 5), "int64"), np.zeros((4, 3))),
            r"expected .batch, length. and .batch, steps, classes.",
        ),
        (lambda k: k.Circle(remove_diagonal=False), "remove_diagonal=False is not offered"),
        (
            lambda k: keras.losses.deserialize(
                {
                    "class_name": "Huber",
                    "module": "lossary.keras",
                    "registered_name": "lossary>Huber",
                    "config": {"name": "h", "warmth": 2.0},
                }
            ),
            "'warmth', which this version does not know",
        ),
        (lambda k: k.Huber(delta=-1.0), "delta=-1.0 is outside"),
        (lambda k: k.Huber(reduction="avg"), "Invalid value for argument"),
        (lambda k: k.get("crossentropi"), "did you mean"),
        (
            lambda k: k.Huber.from_config({"name": "h", "delta": 1.0, "shape": "new"}),
            "newer version",
        ),
        (lambda k: k.GaussianNll()(np.zeros((2, 1)), np.zeros((2, 3))), "divisible into"),
        (lambda k: k.BinaryFocal(label_smoothing=2.0), "label_smoothing=2.0 is outside"),
    ],
)
def test_misuse_raises_value_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(lossary.keras)


def test_messages_speak_of_y_true_and_y_pred():
    with pytest.raises(LossError) as caught:
        lossary.keras.CrossEntropy()(np.zeros((4, 3, 2), "int64"), np.zeros((4, 3)))
    assert "y_pred" in str(caught.value)
    assert "prediction" not in str(caught.value)
