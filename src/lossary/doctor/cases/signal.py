"""Cases of the checks on the learning signal, terms and logs."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.doctor.cases import Pairs, cases
from lossary.doctor.cases import data as d
from lossary.doctor.terms import Term
from lossary.evaluate import Loss

_chance = np.random.default_rng(4)
_pair = {"prediction": d.estimate, "target": d.truth}
_classes = {"prediction": d.logits, "target": d.classes, "loss": "cross_entropy"}
_binary = {"prediction": d.binary_logits, "target": d.binary, "loss": "binary_cross_entropy"}


@cases("initial-loss")
def _() -> Pairs:
    return (
        {
            "a sum over the batch": {**_classes, "history": [147.4, 130.0], "batch_size": 64},
            "outputs far too wide": {**_classes, "history": [31.0, 12.0], "batch_size": 64},
            "a binary sum": {**_binary, "history": [22.2, 20.0], "batch_size": 32},
        },
        {
            "ln 10": {**_classes, "history": [2.31, 2.1], "batch_size": 64},
            "ln 2": {**_binary, "history": [0.70, 0.6], "batch_size": 32},
            "a regression": {**_pair, "loss": "mse", "history": [5.6, 3.0], "batch_size": 32},
            "a pretrained model": {**_classes, "history": [0.8, 0.5], "batch_size": 64},
        },
    )


@cases("constant-predictor")
def _() -> Pairs:
    rare = (np.arange(400) % 10 == 0).astype(float)
    return (
        {
            "always 50%": {
                "prediction": np.zeros(400) + 1e-3 * _chance.normal(size=400),
                "target": rare,
                "loss": "binary_cross_entropy",
            },
            "the mean": {
                "prediction": np.full(250, d.truth.mean()),
                "target": d.truth,
                "loss": "mse",
            },
            "class frequencies": {
                "prediction": np.tile(np.log(np.bincount(d.classes) / 256), (256, 1)),
                "target": d.classes,
                "loss": "cross_entropy",
            },
        },
        {
            "learnt": _classes,
            "learnt, rare": {
                "prediction": 4 * rare - 3 + 0.5 * _chance.normal(size=400),
                "target": rare,
                "loss": "binary_cross_entropy",
            },
            "learnt, regression": {**_pair, "loss": "mae"},
            "not yet trained, and said so": {
                "prediction": np.zeros(250),
                "target": d.truth,
                "loss": "mse",
                "trained": False,
            },
        },
    )


@cases("floor")
def _() -> Pairs:
    return (
        {
            "label smoothing": {**_classes, "loss": Loss("cross_entropy", label_smoothing=0.1)},
            "soft targets": {**_classes, "target": d.softmax(d.teacher)},
            "soft binary targets": {**_binary, "target": np.clip(d.binary, 0.1, 0.9)},
        },
        {
            "hard labels": _classes,
            "one-hot": {**_classes, "target": np.eye(10)[d.classes]},
            "hard binary labels": _binary,
        },
    )


@cases("domination")
def _() -> Pairs:
    gross = d.with_outliers(d.truth)
    wide = _chance.standard_cauchy(600)
    units = np.where(np.arange(250) % 90 == 1, 1000 * np.abs(d.truth) + 50, d.truth)
    return (
        {
            "two rows off by a thousand": {
                "prediction": d.estimate,
                "target": gross,
                "loss": "mse",
            },
            "Cauchy noise": {"prediction": np.zeros(600), "target": wide, "loss": "mse"},
            "another unit in three rows": {
                "prediction": d.estimate,
                "target": units,
                "loss": "mse",
            },
        },
        {
            "Gaussian noise": {**_pair, "loss": "mse"},
            "the same rows under Huber": {
                "prediction": d.estimate,
                "target": gross,
                "loss": "huber",
            },
            "Laplace noise": {
                "prediction": np.zeros(600),
                "target": _chance.laplace(size=600),
                "loss": "mse",
            },
        },
    )


@cases("negative-value")
def _() -> Pairs:
    def log_density(prediction: Any, target: Any) -> Any:
        return (
            (0.5 * ((prediction - target) / 0.1) ** 2 - 4.0).mean()
            if False
            else (0.5 * (prediction - target) ** 2 - 4.0).mean()
        )

    def similarity(prediction: Any, target: Any) -> Any:
        return -(prediction * target).sum() / ((prediction**2).sum() * (target**2).sum()) ** 0.5

    return (
        {
            "binary targets of 255": {
                **_binary,
                "target": 255.0 * d.binary,
                "prediction": d.binary_logits + 3,
            },
            "a log-density": {**_pair, "loss": log_density},
            "a negated similarity": {**_pair, "loss": similarity},
        },
        {
            "squared error": {**_pair, "loss": "mse"},
            "binary cross-entropy": _binary,
            "one minus a similarity": {
                **_pair,
                "loss": lambda prediction, target: 1 + similarity(prediction, target),
            },
        },
    )


@cases("target-suggests")
def _() -> Pairs:
    zeros = np.where(_chance.random(300) < 0.5, 0.0, _chance.gamma(2.0, 3.0, 300))
    case = {"prediction": np.zeros(300), "loss": "mse"}
    return (
        {
            "counts": {"prediction": d.estimate, "target": d.counts, "loss": "mse"},
            "half of it zeros": {**case, "target": zeros},
            "shares": {**case, "target": _chance.beta(2, 3, 300)},
            "heavy tails": {**case, "target": _chance.standard_cauchy(300)},
        },
        {
            "Gaussian": {**case, "target": _chance.normal(size=300)},
            "heavy tails under Huber": {
                **case,
                "target": _chance.standard_t(2, 300),
                "loss": "huber",
            },
            "classes in a loss over classes": _classes,
        },
    )


@cases("collapse")
def _() -> Pairs:
    rows = _chance.normal(size=(24, 6))
    return (
        {
            "one point": {
                "prediction": np.ones((24, 6)),
                "target": np.arange(24) // 4,
                "margin": 0.2,
            },
            "no two rows of one class": {
                "prediction": rows,
                "target": np.arange(24),
                "margin": 0.2,
            },
            "one class only": {"prediction": rows, "target": np.zeros(24, int), "margin": 0.2},
        },
        {
            "spread": {"prediction": rows, "target": np.arange(24) // 4, "margin": 0.2},
            "tight clusters": {
                "prediction": np.repeat(rows[:6], 4, axis=0) + 1e-3 * rows,
                "target": np.arange(24) // 4,
                "margin": 0.2,
            },
            "pairs": {"prediction": (rows, rows + 0.1), "loss": "info_nce"},
        },
    )


@cases("dead-term")
def _() -> Pairs:
    return (
        {
            "no gradient": {
                "terms": {"dice": Term(0.4, gradient=0.2), "ce": Term(0.0, gradient=0.0)}
            },
            "a weight far too small": {
                "terms": {
                    "reconstruction": Term(120.0, gradient=8.0),
                    "kl": Term(4.0, gradient=1e-6),
                }
            },
            "a value of 0": {"terms": {"main": 1.3, "auxiliary": 0.0}},
        },
        {
            "both pull": {
                "terms": {"dice": Term(0.4, gradient=0.2), "ce": Term(0.7, gradient=0.3)}
            },
            "a small value with a real gradient": {
                "terms": {"main": Term(5.0, gradient=0.5), "penalty": Term(1e-4, gradient=0.02)}
            },
            "a minor term": {"terms": {"main": 1.3, "auxiliary": 0.05}},
        },
    )


@cases("metric-mismatch")
def _() -> Pairs:
    falling = [0.9, 0.8, 0.7, 0.62, 0.58, 0.55, 0.53]
    return (
        {
            "the metric falls": {
                "history": falling,
                "metric_history": [0.8, 0.79, 0.78, 0.74, 0.73, 0.70, 0.69],
            },
            "unrelated": {
                "history": falling,
                "metric_history": [0.7, 0.74, 0.69, 0.73, 0.66, 0.72, 0.68],
            },
            "an error that rises": {
                "history": falling,
                "metric_history": [1.0, 1.2, 1.3, 1.5, 1.5, 1.6, 1.8],
                "metric_goal": "min",
            },
        },
        {
            "the metric rises": {
                "history": falling,
                "metric_history": [0.5, 0.6, 0.68, 0.7, 0.74, 0.75, 0.76],
            },
            "noisy and rising": {
                "history": falling,
                "metric_history": [0.5, 0.62, 0.6, 0.7, 0.69, 0.75, 0.76],
            },
            "an error that falls": {
                "history": falling,
                "metric_history": [1.8, 1.5, 1.4, 1.2, 1.1, 1.0, 0.9],
                "metric_goal": "min",
            },
        },
    )


@cases("hidden-nan")
def _() -> Pairs:
    return (
        {
            "zeros among losses": {"history": [2.1, 1.8, 1.6, 0.0, 1.5, 0.0, 0.0, 1.4]},
            "NaN": {"history": [2.1, 1.8, 1.6, float("nan"), 1.5]},
            "one value repeated": {"history": [2.1, 1.8, 1.6, 1.5, *[1.41] * 8]},
            "zeros from one step on": {"history": [2.1, 1.7, 1.5, 1.4, *[0.0] * 8]},
            "zeros of a cross-entropy": {
                "history": [2.1, 1.1, 0.4, 0.0, 0.3, 0.0, 0.35],
                "loss": "cross_entropy",
            },
        },
        {
            "falling": {"history": [2.1, 1.8, 1.6, 1.5, 1.45, 1.41]},
            "falls to 0 and stays": {"history": [0.4, 0.01, 1e-4, 2e-6, 0.0, 0.0, 0.0]},
            "rounded, repeats twice": {"history": [2.1, 1.8, 1.8, 1.7, 1.6, 1.6, 1.5]},
            "a hinge, now and then 0": {
                "history": [0.93, 0.41, 0.22, 0.09, 0.15, 0.0, 0.01, 0.11, 0.0, 0.0, 0.05, 0.0]
            },
            "a hinge that ends at 0": {"history": [0.9, 0.5, 0.2, 0.08, 0.03, *[0.0] * 8]},
            "a hinge by its name": {
                "history": [1.1, 0.9, 0.0, 0.8, 0.7, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.9],
                "loss": "hinge",
            },
        },
    )


@cases("train-validation-gap")
def _() -> Pairs:
    return (
        {
            "a penalty in one number": {
                "history": [1.1, 0.8, 0.62],
                "validation_history": [0.9, 0.6, 0.51],
                "regularization": 0.11,
            },
            "validation below training": {
                "history": [1.2, 0.9, 0.8, 0.7],
                "validation_history": [1.0, 0.7, 0.6, 0.5],
            },
            "a penalty larger than the gap": {
                "history": [1.1, 0.8, 0.62],
                "validation_history": [0.9, 0.7, 0.6],
                "regularization": 0.3,
            },
        },
        {
            "validation above training": {
                "history": [1.0, 0.7, 0.5],
                "validation_history": [1.1, 0.8, 0.65],
            },
            "equal": {"history": [1.0, 0.7, 0.5], "validation_history": [1.0, 0.71, 0.5]},
            "below in the first epoch only": {
                "history": [1.5, 0.8, 0.6, 0.5],
                "validation_history": [1.0, 0.85, 0.7, 0.66],
            },
        },
    )
