"""Cases of the checks on gradients, numbers and implementations."""

# ruff: noqa: D103 - the names of these losses say what they are

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.doctor.cases import Pairs, cases
from lossary.doctor.cases import data as d
from lossary.doctor.cases.losses import (
    on_torch,
    torch_clamped,
    torch_root_error,
    torch_safe_root_error,
)

_chance = np.random.default_rng(3)
_pair = {"prediction": d.estimate, "target": d.truth}


def _torch(name: str, **settings: Any) -> Any:
    import torch

    return getattr(torch.nn, name)(**settings)


def squared(prediction: Any, target: Any) -> Any:
    return ((prediction - target) ** 2).mean()


def negated(prediction: Any, target: Any) -> Any:
    return -((prediction - target) ** 2).mean()


@on_torch
def torch_percentage(prediction: Any, target: Any) -> Any:
    return ((prediction - target) / target).abs().mean()


@on_torch
def torch_log_error(prediction: Any, target: Any) -> Any:
    return (prediction.log() - target.log()).square().mean()


@on_torch
def torch_distance(prediction: Any, target: Any) -> Any:
    return (prediction - target).square().sum(-1).sqrt().mean()


@on_torch
def torch_cosine_by_hand(prediction: Any, target: Any) -> Any:
    return (
        1 - ((prediction * target).sum(-1) / (prediction.norm(dim=-1) * target.norm(dim=-1))).mean()
    )


@on_torch
def torch_rounded(prediction: Any, target: Any) -> Any:
    return (prediction.round() - target).abs().mean()


@on_torch
def torch_counted(prediction: Any, target: Any) -> Any:
    return ((prediction > 0.5).float() - target).abs().mean()


def _custom_backward(factor: float) -> Any:
    import torch

    class Squared(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, prediction: Any, target: Any) -> Any:
            context.save_for_backward(prediction, target)
            return ((prediction - target) ** 2).mean()

        @staticmethod
        def backward(context: Any, upstream: Any) -> Any:
            prediction, target = context.saved_tensors
            return factor * upstream * 2 * (prediction - target) / prediction.numel(), None

    def loss(prediction: Any, target: Any) -> Any:
        return Squared.apply(prediction, target)  # type: ignore[no-untyped-call]

    return on_torch(loss)


def jax_log_cosh(prediction: Any, target: Any) -> Any:
    import jax.numpy as jnp

    return jnp.log(jnp.cosh(jnp.asarray(prediction) - jnp.asarray(target))).mean()


jax_log_cosh.__lossary_library__ = "jax"  # type: ignore[attr-defined]


@cases("nan-post-mortem")
def _() -> Pairs:
    zeros = np.where(np.arange(250) == 118, 0.0, d.truth)
    return (
        {
            "predictions that are NaN": {
                "prediction": d.with_gaps(d.estimate),
                "target": d.truth,
                "loss": "mse",
            },
            "a percentage of 0": {
                "prediction": d.estimate,
                "target": zeros,
                "loss": torch_percentage,
            },
            "a logarithm of a negative number": {
                "prediction": d.estimate,
                "target": np.abs(d.truth) + 1,
                "loss": torch_log_error,
            },
            "a root at a perfect row": {
                "prediction": np.where(
                    np.arange(250)[:, None] == 30, 1.0, d.estimate[:, None] + [0, 1.0]
                ),
                "target": np.where(np.arange(250)[:, None] == 30, 1.0, d.truth[:, None] + [0, 2.0]),
                "loss": torch_distance,
            },
        },
        {
            "finite": {**_pair, "loss": "mse"},
            "a percentage, no zeros": {
                "prediction": d.estimate,
                "target": np.abs(d.truth) + 1,
                "loss": torch_percentage,
            },
            "NaN under the mask": {
                "prediction": d.estimate,
                "target": d.with_gaps(d.truth),
                "mask": ~np.isnan(d.with_gaps(d.truth)),
                "loss": "mse",
            },
            "a class that is ruled out": {
                "prediction": np.where(np.eye(10)[(d.classes + 1) % 10] > 0, -np.inf, d.logits),
                "target": d.classes,
                "loss": "cross_entropy",
            },
        },
    )


@cases("edge-gradients")
def _() -> Pairs:
    rows = {"prediction": d.logits, "target": d.logits + 0.5 * _chance.normal(size=d.logits.shape)}

    @on_torch
    def log_of_exp(prediction: Any, target: Any) -> Any:
        return ((1 + prediction.exp()).log() - target * prediction).mean()

    @on_torch
    def over_the_mask(prediction: Any, target: Any, mask: Any) -> Any:
        return ((prediction - target) ** 2 * mask).sum() / mask.sum()

    return (
        {
            "root of the mean square": {**_pair, "loss": torch_root_error},
            "norm of the error": {**rows, "loss": torch_distance},
            "cosine by hand": {**rows, "loss": torch_cosine_by_hand},
        },
        {
            "root with an epsilon": {**_pair, "loss": torch_safe_root_error},
            "divided by what counts": {
                **rows,
                "mask": _chance.random(d.logits.shape) < 0.7,
                "loss": over_the_mask,
            },
            "squared error": {**rows, "loss": _torch("MSELoss")},
            "cross-entropy on logits": {
                "prediction": d.logits,
                "target": d.classes,
                "loss": _torch("CrossEntropyLoss"),
            },
            "binary cross-entropy on logits": {
                "prediction": d.binary_logits,
                "target": d.binary,
                "loss": _torch("BCEWithLogitsLoss"),
            },
        },
    )


@cases("gradient-check")
def _() -> Pairs:
    error = d.estimate - d.truth
    p = d.sigmoid(d.binary_logits)
    return (
        {
            "the wrong sign": {**_pair, "loss": "mse", "gradient": -2 * error / 250},
            "a factor of 2 is missing": {**_pair, "loss": "mse", "gradient": error / 250},
            "a backward pass of your own": {**_pair, "loss": _custom_backward(-1.0)},
            "a Hessian below 0": {"hessian": p * (1 - p) - 0.2},
            "by the probability, not the logit": {
                "prediction": d.binary_logits,
                "target": d.binary,
                "loss": "binary_cross_entropy",
                "gradient": (p - d.binary) / (p * (1 - p)) / 256,
            },
        },
        {
            "right": {**_pair, "loss": "mse", "gradient": 2 * error / 250},
            "a backward pass of your own, right": {**_pair, "loss": _custom_backward(1.0)},
            "a kink": {**_pair, "loss": _torch("L1Loss")},
            "differentiated by JAX": {**_pair, "loss": jax_log_cosh},
            "by the logit": {
                "prediction": d.binary_logits,
                "target": d.binary,
                "loss": "binary_cross_entropy",
                "gradient": (p - d.binary) / 256,
                "hessian": p * (1 - p),
            },
        },
    )


@cases("direction")
def _() -> Pairs:
    def similarity(prediction: Any, target: Any) -> Any:
        return (prediction * target).sum() / ((prediction**2).sum() * (target**2).sum()) ** 0.5

    @on_torch
    def likelihood(prediction: Any, target: Any) -> Any:
        return prediction.log_softmax(1).gather(1, target[:, None]).mean()

    classes = {"prediction": d.logits, "target": d.classes}
    return (
        {
            "a minus too many": {**_pair, "loss": negated},
            "a similarity": {**_pair, "loss": similarity},
            "a likelihood": {**classes, "loss": likelihood},
        },
        {
            "squared error": {**_pair, "loss": squared},
            "one minus the similarity": {
                **_pair,
                "loss": lambda prediction, target: 1 - similarity(prediction, target),
            },
            "cross-entropy": {**classes, "loss": _torch("CrossEntropyLoss")},
        },
    )


@cases("dead-gradient")
def _() -> Pairs:
    p = np.clip(d.sigmoid(3 * d.binary_logits), 1e-3, 1 - 1e-3)
    stuck = np.where(d.binary > 0, 1e-9, p)
    binary = {"target": d.binary}

    @on_torch
    def by_argmax(prediction: Any, target: Any) -> Any:
        return (prediction.argmax(1) - target).abs().float().mean()

    return (
        {
            "clamped before the logarithm": {"prediction": stuck, **binary, "loss": torch_clamped},
            "rounded": {"prediction": p, **binary, "loss": torch_rounded},
            "argmax": {"prediction": d.logits, "target": d.classes, "loss": by_argmax},
            "a gradient given": {
                "prediction": d.binary_logits,
                **binary,
                "loss": "binary_cross_entropy",
                "gradient": np.where(
                    d.binary_logits < 0, 0.0, d.sigmoid(d.binary_logits) - d.binary
                ),
            },
        },
        {
            "no prediction in the clamp": {"prediction": p, **binary, "loss": torch_clamped},
            "on logits": {
                "prediction": 10 * d.binary_logits,
                **binary,
                "loss": _torch("BCEWithLogitsLoss"),
            },
            "hinge beyond its margin": {
                "prediction": d.binary_logits,
                "target": 2 * d.binary - 1,
                "loss": on_torch(
                    lambda prediction, target: (1 - prediction * target).clamp(min=0).mean()
                ),
            },
        },
    )
