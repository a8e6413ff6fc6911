"""Cases of the checks on labels and values."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.doctor.cases import Pairs, cases
from lossary.doctor.cases import data as d
from lossary.doctor.cases.losses import torch_kl
from lossary.evaluate import Loss

_chance = np.random.default_rng(1)


_two = _chance.integers(0, 2, 300)


_three = _chance.integers(0, 3, 300)


_scores = _chance.normal(size=(300, 3)) + 2 * np.eye(3)[_three]


def _torch(name: str, **settings: Any) -> Any:
    import torch

    return getattr(torch.nn, name)(**settings)


@cases("label-range")
def _() -> Pairs:
    ce = {"prediction": _scores, "loss": "cross_entropy"}
    void = np.where(_chance.random(300) < 0.1, 255, _three)
    return (
        {
            "counted from 1": {"target": _three + 1, **ce},
            "255 means ignore": {"target": void, **ce},
            "too few outputs": {
                "prediction": _scores[:, :2],
                "target": _three,
                "loss": "cross_entropy",
            },
            "-1 in PyTorch": {
                "target": np.where(void == 255, -1, void),
                "prediction": _scores,
                "loss": _torch("CrossEntropyLoss"),
            },
        },
        {
            "0..2": {"target": _three, **ce},
            "ignored labels named": {"target": void, "ignore": 255, **ce},
            "a class that does not occur": {"target": np.minimum(_three, 1), **ce},
            "-100 in PyTorch": {
                "target": np.where(void == 255, -100, void),
                "prediction": _scores,
                "loss": _torch("CrossEntropyLoss"),
            },
        },
    )


@cases("encoding")
def _() -> Pairs:
    hot = np.eye(3)[_three]
    many = (_chance.random((300, 3)) < 0.6).astype(float)
    return (
        {
            "multi-hot in a softmax loss": {
                "prediction": _scores,
                "target": many,
                "loss": "cross_entropy",
            },
            "class numbers in a sigmoid loss": {
                "prediction": _scores,
                "target": _three,
                "loss": "binary_cross_entropy",
            },
            "whole one-hot rows in PyTorch": {
                "prediction": _scores,
                "target": hot.astype(int),
                "loss": _torch("CrossEntropyLoss"),
            },
            "three classes in a binary loss": {
                "prediction": _scores[:, 0],
                "target": _three.astype(float),
                "loss": "binary_cross_entropy",
            },
        },
        {
            "class numbers": {"prediction": _scores, "target": _three, "loss": "cross_entropy"},
            "one-hot rows": {"prediction": _scores, "target": hot, "loss": "cross_entropy"},
            "distributions": {
                "prediction": _scores,
                "target": d.softmax(_scores),
                "loss": "cross_entropy",
            },
            "multi-hot in a sigmoid loss": {
                "prediction": _scores,
                "target": many,
                "loss": "binary_cross_entropy",
            },
        },
    )


@cases("target-range")
def _() -> Pairs:
    logit = _chance.normal(size=300)
    return (
        {
            "a mask of 0 and 255": {
                "prediction": logit,
                "target": 255.0 * _two,
                "loss": "binary_cross_entropy",
            },
            "labels -1 and 1": {
                "prediction": logit,
                "target": 2.0 * _two - 1,
                "loss": "binary_cross_entropy",
            },
            "real targets": {
                "prediction": logit,
                "target": _chance.normal(size=300),
                "loss": _torch("BCEWithLogitsLoss"),
            },
        },
        {
            "0 and 1": {"prediction": logit, "target": 1.0 * _two, "loss": "binary_cross_entropy"},
            "soft targets": {
                "prediction": logit,
                "target": _chance.random(300),
                "loss": "binary_cross_entropy",
            },
            "ignored 255": {
                "prediction": logit,
                "target": np.where(np.arange(300) % 9 == 0, 255.0, _two),
                "ignore": 255,
                "loss": "binary_cross_entropy",
            },
        },
    )


@cases("label-dtype")
def _() -> Pairs:
    wide, labels = np.zeros((40, 4000), np.float32), _chance.integers(0, 4000, 40)
    return (
        {
            "float16, 4000 classes": {
                "prediction": wide,
                "target": labels.astype(np.float16),
                "loss": "cross_entropy",
            },
            "int8, 4000 classes": {
                "prediction": wide,
                "target": labels.astype(np.int8),
                "loss": "cross_entropy",
            },
            "uint8, 300 classes": {
                "prediction": wide[:, :300],
                "target": (labels % 300).astype(np.uint8),
                "loss": "cross_entropy",
            },
        },
        {
            "int32, 4000 classes": {
                "prediction": wide,
                "target": labels.astype(np.int32),
                "loss": "cross_entropy",
            },
            "float16, 3 classes": {
                "prediction": _scores,
                "target": _three.astype(np.float16),
                "loss": "cross_entropy",
            },
            "uint8, 256 classes": {
                "prediction": wide[:, :256],
                "target": (labels % 256).astype(np.uint8),
                "loss": "cross_entropy",
            },
        },
    )


@cases("arguments-swapped")
def _() -> Pairs:
    p, y = d.sigmoid(_chance.normal(size=300)), _two.astype(float)
    hot = np.eye(3)[_three]
    return (
        {
            "labels first": {"prediction": y, "target": p, "loss": "mse"},
            "one-hot rows first": {
                "prediction": hot,
                "target": d.softmax(_scores),
                "loss": "cross_entropy",
            },
            "Keras order in PyTorch": {"prediction": y, "target": p, "loss": _torch("BCELoss")},
        },
        {
            "predictions first": {"prediction": p, "target": y, "loss": "mse"},
            "predictions that are 0 or 1, labels too": {
                "prediction": np.round(p),
                "target": y,
                "loss": "mse",
            },
            "target first, and said so": {
                "prediction": p,
                "target": y,
                "arguments": "target,prediction",
                "loss": lambda target, prediction: ((target - prediction) ** 2).mean(),
            },
        },
    )


@cases("nan-target")
def _() -> Pairs:
    y = _chance.normal(size=300)
    gaps = np.where(np.arange(300) % 40 == 1, np.nan, y)
    table = np.where(_chance.random((300, 3)) < 0.02, np.nan, _scores)
    return (
        {
            "missing values": {"prediction": y, "target": gaps, "loss": "mse"},
            "missing in a table": {"prediction": _scores, "target": table, "loss": "mae"},
            "infinite values": {
                "prediction": y,
                "target": np.where(np.isnan(gaps), np.inf, y),
                "loss": "huber",
            },
        },
        {
            "complete": {"prediction": y, "target": y + 0.1, "loss": "mse"},
            "masked": {"prediction": y, "target": gaps, "mask": ~np.isnan(gaps), "loss": "mse"},
            "ignore=nan": {"prediction": y, "target": gaps, "loss": Loss("mse", ignore=np.nan)},
        },
    )


@cases("domain")
def _() -> Pairs:
    y = _chance.gamma(2.0, 1.0, 300)
    margin = _chance.normal(size=300)
    return (
        {
            "percentage error of zeros": {
                "prediction": y,
                "target": np.where(np.arange(300) % 20 == 0, 0.0, y),
                "loss": "mape",
            },
            "hinge on 0 and 1": {
                "prediction": margin,
                "target": _two.astype(float),
                "loss": "hinge",
            },
            "squared logarithmic error of negatives": {
                "prediction": y,
                "target": y - 3,
                "loss": "msle",
            },
            "a variance of 0": {
                "prediction": (margin, np.where(y < 0.3, 0.0, y)),
                "target": margin + 1,
                "loss": "gaussian_nll",
            },
            "a negative rate": {
                "prediction": margin,
                "target": np.floor(y),
                "loss": Loss("poisson_nll", predictions="rates"),
            },
            "squared hinge on 0 and 1": {
                "prediction": margin,
                "target": _two.astype(float),
                "loss": "squared_hinge",
            },
        },
        {
            "percentage error of positive targets": {
                "prediction": y,
                "target": y + 0.1,
                "loss": "mape",
            },
            "a positive variance": {
                "prediction": (margin, y + 0.01),
                "target": margin + 1,
                "loss": "gaussian_nll",
            },
            "a log-rate": {"prediction": margin, "target": np.floor(y), "loss": "poisson_nll"},
            "hinge on -1 and 1": {"prediction": margin, "target": 2.0 * _two - 1, "loss": "hinge"},
            "absolute error of zeros": {
                "prediction": y,
                "target": np.where(np.arange(300) % 20 == 0, 0.0, y),
                "loss": "mae",
            },
            "squared logarithmic error of zeros": {
                "prediction": y,
                "target": np.where(y < 1, 0.0, y),
                "loss": "msle",
            },
        },
    )


@cases("kl-inputs")
def _() -> Pairs:
    teacher = d.softmax(_scores[::-1])
    logs = d.log_softmax(_scores)
    return (
        {
            "probabilities for log-probabilities": {
                "prediction": np.exp(logs),
                "target": teacher,
                "loss": torch_kl(),
            },
            "a teacher's logits": {"prediction": logs, "target": _scores, "loss": torch_kl()},
            "a teacher that does not sum to 1": {
                "prediction": _scores,
                "target": 3 * teacher,
                "loss": "kl_divergence",
            },
        },
        {
            "log-probabilities and probabilities": {
                "prediction": logs,
                "target": teacher,
                "loss": torch_kl(),
            },
            "Lossary on logits": {
                "prediction": _scores,
                "target": teacher,
                "loss": "kl_divergence",
            },
            "one-hot teacher": {
                "prediction": logs,
                "target": np.eye(3)[_three],
                "loss": torch_kl(),
            },
        },
    )


@cases("ctc-feasibility")
def _() -> Pairs:
    words = _chance.integers(1, 9, (12, 6))
    words[:, 1] = words[:, 0]  # a repeat in each
    ok = {"target": words, "target_lengths": np.full(12, 6), "lengths": np.full(12, 30)}
    return (
        {
            "too few frames": {**ok, "lengths": np.r_[np.full(11, 30), 4]},
            "no frame left for the repeats": {**ok, "lengths": np.full(12, 6)},
            "blank inside": {**ok, "target": np.where(np.arange(6) == 3, 0, words)},
            "length 0": {**ok, "lengths": np.r_[np.full(11, 30), 0]},
        },
        {
            "plenty of frames": ok,
            "blank in the padding": {
                **ok,
                "target": np.where(np.arange(6) >= 4, 0, words),
                "target_lengths": np.full(12, 4),
            },
            "blank is the last class": {**ok, "target": words - 1, "blank": 20},
        },
    )


@cases("variance-shape")
def _() -> Pairs:
    means = _chance.normal(size=(6, 6))
    case = {"prediction": means, "target": means + 0.1}
    return (
        {
            "one per row, square table": {**case, "variance": np.ones(6)},
            "one per row": {
                "prediction": means[:, :4],
                "target": means[:, :4],
                "variance": np.ones(6),
            },
            "of another shape": {**case, "variance": np.ones((6, 3))},
        },
        {
            "same shape": {**case, "variance": np.ones((6, 6))},
            "one per row as a column": {**case, "variance": np.ones((6, 1))},
            "one for all": {**case, "variance": np.array(1.0)},
        },
    )
