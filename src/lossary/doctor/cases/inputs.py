"""Cases of the checks on arrays: scale, shapes, labels, values."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.doctor.cases import Pairs, cases
from lossary.doctor.cases import data as d
from lossary.evaluate import Loss

_chance = np.random.default_rng(1)
_two = _chance.integers(0, 2, 300)
_three = _chance.integers(0, 3, 300)
_scores = _chance.normal(size=(300, 3)) + 2 * np.eye(3)[_three]
_pixels = _chance.integers(0, 4, (2, 6, 7))
_pixel_scores = _chance.normal(size=(2, 4, 6, 7)) + 2 * np.moveaxis(np.eye(4)[_pixels], -1, 1)


def _torch(name: str, **settings: Any) -> Any:
    import torch

    return getattr(torch.nn, name)(**settings)


@cases("double-softmax")
def _() -> Pairs:
    ce = {"target": _three, "loss": "cross_entropy"}
    return (
        {
            "a softmax layer at the end": {"prediction": d.softmax(_scores), **ce},
            "the same, in float16": {"prediction": d.softmax(_scores).astype(np.float16), **ce},
            "pixels, classes on axis 1": {
                "prediction": np.exp(_pixel_scores) / np.exp(_pixel_scores).sum(1, keepdims=True),
                "target": _pixels,
                "loss": Loss("cross_entropy", axis=1),
            },
            "PyTorch's CrossEntropyLoss": {
                "prediction": d.softmax(_scores),
                "target": _three,
                "loss": _torch("CrossEntropyLoss"),
            },
        },
        {
            "logits": {"prediction": _scores, **ce},
            "logits that lie in [0, 1]": {"prediction": _chance.random((300, 3)), **ce},
            "log-probabilities": {"prediction": d.log_softmax(_scores), **ce},
            "probabilities, and the loss knows": {
                "prediction": d.softmax(_scores),
                "target": _three,
                "loss": Loss("cross_entropy", predictions="probabilities"),
            },
        },
    )


@cases("double-sigmoid")
def _() -> Pairs:
    logit = _chance.normal(size=300) + 2 * _two
    bce = {"target": _two.astype(float), "loss": "binary_cross_entropy"}
    many = (_chance.random((64, 5)) < 0.3).astype(float)
    return (
        {
            "a sigmoid at the end": {"prediction": d.sigmoid(logit), **bce},
            "multi-label": {
                "prediction": d.sigmoid(_chance.normal(size=(64, 5))),
                "target": many,
                "loss": "binary_cross_entropy",
            },
            "PyTorch's BCEWithLogitsLoss": {
                "prediction": d.sigmoid(logit),
                "target": _two.astype(float),
                "loss": _torch("BCEWithLogitsLoss"),
            },
        },
        {
            "logits": {"prediction": logit, **bce},
            "small logits at the start": {"prediction": 0.05 * logit - 0.02, **bce},
            "probabilities, and the loss knows": {
                "prediction": d.sigmoid(logit),
                "target": _two.astype(float),
                "loss": Loss("binary_cross_entropy", predictions="probabilities"),
            },
            "all logits 0": {"prediction": np.zeros(300), **bce},
        },
    )


@cases("logits-as-probabilities")
def _() -> Pairs:
    logit = 3 * _chance.normal(size=300)
    known = {"loss": "binary_cross_entropy", "predictions": "probabilities"}
    return (
        {
            "binary logits": {"prediction": logit, "target": _two.astype(float), **known},
            "class logits": {
                "prediction": _scores,
                "target": _three,
                "loss": "cross_entropy",
                "predictions": "probabilities",
            },
            "NLLLoss on probabilities": {
                "prediction": d.softmax(_scores),
                "target": _three,
                "loss": _torch("NLLLoss"),
            },
            "NLLLoss on logits": {
                "prediction": _scores,
                "target": _three,
                "loss": _torch("NLLLoss"),
            },
            "Dice on logits": {
                "prediction": _chance.normal(size=(4, 6, 6)),
                "target": (_chance.random((4, 6, 6)) < 0.3) * 1.0,
                "loss": "dice",
            },
        },
        {
            "probabilities": {
                "prediction": d.sigmoid(logit),
                "target": _two.astype(float),
                **known,
            },
            "rounded probabilities": {
                "prediction": d.softmax(_scores).astype(np.float16),
                "target": _three,
                "loss": "cross_entropy",
                "predictions": "probabilities",
            },
            "NLLLoss on log-probabilities": {
                "prediction": d.log_softmax(_scores),
                "target": _three,
                "loss": _torch("NLLLoss"),
            },
            "Dice on logits, and it knows": {
                "prediction": _chance.normal(size=(4, 6, 6)),
                "target": (_chance.random((4, 6, 6)) < 0.3) * 1.0,
                "loss": Loss("dice", predictions="logits"),
            },
            "exactly 0 and 1": {
                "prediction": _two.astype(float),
                "target": _two.astype(float),
                **known,
            },
        },
    )


@cases("log-probabilities-as-logits")
def _() -> Pairs:
    ce = {"target": _three, "loss": "cross_entropy"}
    return (
        {
            "log_softmax at the end": {"prediction": d.log_softmax(_scores), **ce},
            "in float32": {"prediction": d.log_softmax(_scores).astype(np.float32), **ce},
            "PyTorch's CrossEntropyLoss": {
                "prediction": d.log_softmax(_scores),
                "target": _three,
                "loss": _torch("CrossEntropyLoss"),
            },
        },
        {
            "logits": {"prediction": _scores, **ce},
            "negative logits": {"prediction": -np.abs(_scores) - 1, **ce},
            "NLLLoss": {
                "prediction": d.log_softmax(_scores),
                "target": _three,
                "loss": _torch("NLLLoss"),
            },
        },
    )


@cases("one-channel-softmax")
def _() -> Pairs:
    one = _chance.normal(size=(300, 1))
    zeros = np.zeros(300, int)
    return (
        {
            "one output unit": {"prediction": one, "target": zeros, "loss": "cross_entropy"},
            "a one-channel mask": {
                "prediction": _chance.normal(size=(2, 1, 6, 7)),
                "target": np.zeros((2, 6, 7), int),
                "loss": Loss("cross_entropy", axis=1),
            },
            "PyTorch's CrossEntropyLoss": {
                "prediction": one,
                "target": zeros,
                "loss": _torch("CrossEntropyLoss"),
            },
        },
        {
            "two channels": {"prediction": _scores[:, :2], "target": _two, "loss": "cross_entropy"},
            "one channel under a sigmoid": {
                "prediction": one,
                "target": _two[:, None].astype(float),
                "loss": "binary_cross_entropy",
            },
            "a last axis of 1 that is not the class axis": {
                "prediction": _chance.normal(size=(8, 3, 1)),
                "target": _three[:8, None],
                "loss": Loss("cross_entropy", axis=1),
            },
        },
    )


@cases("broadcast")
def _() -> Pairs:
    column, row = _chance.normal(size=(64, 1)), _chance.normal(size=64)
    return (
        {
            "(64, 1) against (64,)": {
                "prediction": column,
                "target": row,
                "loss": _torch("MSELoss"),
            },
            "targets are the column": {"prediction": row, "target": column, "loss": "mae"},
            "a row against a table": {
                "prediction": _chance.normal(size=(64, 5)),
                "target": _chance.normal(size=5),
                "loss": "mse",
            },
            "weights as a column": {
                "prediction": row,
                "target": row + 1,
                "weights": np.ones((64, 1)),
                "loss": None,
            },
        },
        {
            "both (64,)": {"prediction": row, "target": row + 0.1, "loss": "mse"},
            "both (64, 1)": {
                "prediction": column,
                "target": column + 0.1,
                "loss": _torch("MSELoss"),
            },
            "class numbers for class scores": {
                "prediction": _scores,
                "target": _three,
                "loss": "cross_entropy",
            },
            "one weight per row of a table": {
                "prediction": _scores,
                "target": _scores + 0.1,
                "weights": np.ones(300),
                "loss": "mse",
            },
        },
    )


@cases("class-axis")
def _() -> Pairs:
    last = np.moveaxis(_pixel_scores, 1, -1)
    steps = _chance.normal(size=(5, 11, 7))
    tokens = _chance.integers(0, 7, (5, 11))
    return (
        {
            "channels last, axis 1 is read": {
                "prediction": last,
                "target": _pixels,
                "loss": Loss("cross_entropy", axis=1),
            },
            "channels first, axis -1 is read": {
                "prediction": _pixel_scores,
                "target": _pixels,
                "loss": "cross_entropy",
            },
            "(batch, time, classes) in PyTorch": {
                "prediction": steps,
                "target": tokens,
                "loss": _torch("CrossEntropyLoss"),
            },
        },
        {
            "channels last, axis -1": {
                "prediction": last,
                "target": _pixels,
                "loss": "cross_entropy",
            },
            "channels first, axis 1": {
                "prediction": _pixel_scores,
                "target": _pixels,
                "loss": Loss("cross_entropy", axis=1),
            },
            "(batch, classes, time) in PyTorch": {
                "prediction": np.moveaxis(steps, -1, 1),
                "target": tokens,
                "loss": _torch("CrossEntropyLoss"),
            },
        },
    )
