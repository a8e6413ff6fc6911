"""Cases of the checks on flags, weights, sequences and ranks."""

# ruff: noqa: D103 - the names of these losses say what they are

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.doctor.cases import Pairs, cases
from lossary.doctor.cases import data as d
from lossary.doctor.cases.losses import (
    batch_dice,
    forgets_delta,
    image_dice,
    torch_info_nce,
    torch_kl,
    uses_delta,
)
from lossary.doctor.terms import Term
from lossary.evaluate import Loss

_chance = np.random.default_rng(2)


def _torch_ce(**settings: Any) -> Any:
    import torch

    return torch.nn.CrossEntropyLoss(**settings)


def mean_squared(prediction: Any, target: Any) -> Any:
    return ((prediction - target) ** 2).mean()


@cases("batch-dependence")
def _() -> Pairs:
    def batch_jaccard(prediction: Any, target: Any) -> Any:
        inside = (prediction * target).sum()
        return 1 - inside / (prediction.sum() + target.sum() - inside)

    def correlation(prediction: Any, target: Any) -> Any:
        a, b = prediction - prediction.mean(), target - target.mean()
        return 1 - (a * b).sum() / ((a * a).sum() * (b * b).sum()) ** 0.5

    def image_jaccard(prediction: Any, target: Any) -> Any:
        inside = (prediction * target).reshape(len(target), -1).sum(-1)
        both = (prediction + target).reshape(len(target), -1).sum(-1)
        return (1 - inside / (both - inside)).mean()

    masks = {"prediction": d.mask_scores, "target": d.masks}
    return (
        {
            "Dice over the batch": {**masks, "loss": batch_dice},
            "Jaccard over the batch": {**masks, "loss": batch_jaccard},
            "correlation over the batch": {**masks, "loss": correlation},
        },
        {
            "Dice per image": {**masks, "loss": image_dice},
            "Jaccard per image": {**masks, "loss": image_jaccard},
            "squared error": {**masks, "loss": mean_squared},
        },
    )


@cases("reduction-mismatch")
def _() -> Pairs:
    logs, teacher = d.log_softmax(d.logits), d.softmax(d.teacher)
    return (
        {
            "a sum and a mean": {
                "terms": {
                    "reconstruction": Term(9000.0, "sum", 128 * 784),
                    "kl": Term(0.02, "mean", 128 * 20),
                }
            },
            "KLDivLoss over all entries": {
                "prediction": logs,
                "target": teacher,
                "loss": torch_kl("mean"),
            },
            "a mean and a sum": {
                "terms": {
                    "pixels": Term(0.02, "mean", 3 * 64 * 64),
                    "regulariser": Term(500.0, "sum", 10_000),
                }
            },
        },
        {
            "two means": {
                "terms": {
                    "reconstruction": Term(0.09, "mean", 128 * 784),
                    "kl": Term(0.02, "mean", 128 * 20),
                }
            },
            "KLDivLoss per sample": {
                "prediction": logs,
                "target": teacher,
                "loss": torch_kl("batchmean"),
            },
            "two sums": {
                "terms": {
                    "reconstruction": Term(9000.0, "sum", 128 * 784),
                    "kl": Term(20.0, "sum", 128 * 20),
                }
            },
        },
    )


@cases("dead-flag")
def _() -> Pairs:
    pair = {"prediction": d.estimate, "target": d.truth}

    def alpha_needs_a_flag(
        prediction: Any, target: Any, alpha: float = 0.25, balanced: bool = False
    ) -> Any:
        weight = alpha if balanced else 1.0
        return (weight * (prediction - target) ** 2).mean()

    def gamma_unused(prediction: Any, target: Any, gamma: float = 2.0, alpha: float = 0.5) -> Any:
        return alpha * abs(prediction - target).mean()

    def both_used(prediction: Any, target: Any, gamma: float = 2.0, alpha: float = 0.5) -> Any:
        return alpha * (abs(prediction - target) ** gamma).mean()

    return (
        {
            "delta is never used": {**pair, "loss": forgets_delta},
            "alpha works with another flag only": {**pair, "loss": alpha_needs_a_flag},
            "gamma is never used": {**pair, "loss": gamma_unused},
        },
        {
            "delta is used": {**pair, "loss": uses_delta},
            "both are used": {**pair, "loss": both_used},
            "PyTorch's label smoothing": {
                "prediction": d.logits,
                "target": d.classes,
                "loss": _torch_ce(label_smoothing=0.1),
            },
        },
    )


@cases("weight-cancels")
def _() -> Pairs:
    import torch

    weights = np.arange(1.0, 11.0)
    ce = {
        "prediction": d.logits,
        "target": d.classes,
        "loss": "cross_entropy",
        "class_weights": weights,
    }
    ordered = np.sort(d.classes)
    return (
        {
            "batch size 1": {**ce, "batch_size": 1},
            "sorted by class": {**ce, "target": ordered, "batch_size": 8},
            "PyTorch, batch size 1": {
                "prediction": d.logits,
                "target": d.classes,
                "batch_size": 1,
                "loss": _torch_ce(weight=torch.from_numpy(weights)),
            },
        },
        {
            "batch size 64": {**ce, "batch_size": 64},
            "a mean over the batch": {
                **ce,
                "loss": Loss("cross_entropy", reduction="mean_over_batch"),
                "batch_size": 1,
            },
            "equal weights": {**ce, "class_weights": np.ones(10), "batch_size": 1},
        },
    )


@cases("weights-suspicious")
def _() -> Pairs:
    rare = {"prediction": d.logits[:, :3], "target": d.rare_classes, "loss": "cross_entropy"}
    return (
        {
            "frequencies instead of their inverse": {
                **rare,
                "class_weights": np.array([0.86, 0.12, 0.02]),
            },
            "one weight too few": {**rare, "class_weights": np.array([1.0, 2.0])},
            "a class of weight 0": {**rare, "class_weights": np.array([1.0, 2.0, 0.0])},
            "a factor of 5000": {**rare, "class_weights": np.array([1.0, 2.0, 5000.0])},
            "negative sample weights": {
                "prediction": d.estimate,
                "target": d.truth,
                "loss": "mse",
                "weights": np.linspace(-0.1, 1, 250),
            },
        },
        {
            "inverse frequencies": {**rare, "class_weights": np.array([0.39, 2.8, 14.2])},
            "balanced classes, uneven weights": {
                "prediction": d.logits,
                "target": d.classes,
                "loss": "cross_entropy",
                "class_weights": np.linspace(1, 2, 10),
            },
            "sample weights": {
                "prediction": d.estimate,
                "target": d.truth,
                "loss": "mse",
                "weights": np.linspace(0.1, 1, 250),
            },
        },
    )


@cases("calibration-shift")
def _() -> Pairs:
    two = {"prediction": d.binary_logits, "target": d.binary}
    return (
        {
            "class weight 10": {
                **two,
                "loss": "binary_cross_entropy",
                "class_weights": np.array([1.0, 10.0]),
            },
            "focal": {**two, "loss": "binary_focal"},
            "label smoothing": {
                "prediction": d.logits,
                "target": d.classes,
                "loss": Loss("cross_entropy", label_smoothing=0.2),
            },
        },
        {
            "plain": {**two, "loss": "binary_cross_entropy"},
            "plain, over classes": {
                "prediction": d.logits,
                "target": d.classes,
                "loss": "cross_entropy",
            },
            "equal class weights": {
                **two,
                "loss": "binary_cross_entropy",
                "class_weights": np.array([3.0, 3.0]),
            },
        },
    )


@cases("label-shift")
def _() -> Pairs:
    logits, labels = d.language_logits, d.next_tokens
    back = np.concatenate([np.full((16, 1), -100), labels[:, :-1]], axis=1)
    twice = np.concatenate([labels[:, 1:], np.full((16, 1), -100)], axis=1)
    return (
        {
            "shifted twice": {
                "prediction": logits,
                "target": twice,
                "loss": "cross_entropy",
                "ignore": -100,
            },
            "not shifted": {
                "prediction": logits,
                "target": back,
                "loss": "cross_entropy",
                "ignore": -100,
            },
            "shifted twice, in PyTorch": {
                "prediction": np.moveaxis(logits, -1, 1),
                "target": twice,
                "loss": _torch_ce(),
            },
        },
        {
            "shifted once": {"prediction": logits, "target": labels, "loss": "cross_entropy"},
            "an untrained model": {
                "prediction": _chance.normal(size=logits.shape),
                "target": twice,
                "loss": "cross_entropy",
                "ignore": -100,
            },
            "labels that change slowly": {
                "prediction": 4 * np.eye(20)[np.repeat(labels[:, :3], 4, axis=1)],
                "target": np.repeat(labels[:, :3], 4, axis=1),
                "loss": "cross_entropy",
            },
        },
    )


@cases("contrastive-scale")
def _() -> Pairs:
    pair = {"prediction": (d.anchors, d.positives), "loss": torch_info_nce, "ranks": 4}
    own = {**pair, "loss": "info_nce"}
    return (
        {
            "other ranks detached": {**pair, "gather": "detached"},
            "scaled although it need not be": {**pair, "gather": "gradient scaled"},
            "own rows only, others detached": {**own, "gather": "rows"},
        },
        {
            "gathered with gradient": {**pair, "gather": "gradient"},
            "detached and scaled": {**pair, "gather": "scaled"},
            "gathered with gradient, Lossary": {**own, "gather": "gradient"},
        },
    )
