"""Cases of the checks on numbers and implementations."""

# ruff: noqa: D103 - the names of these losses say what they are

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.doctor.cases import Pairs, cases
from lossary.doctor.cases import data as d
from lossary.doctor.cases.losses import (
    branches_on_values,
    changes_its_input,
    forgets_delta,
    leaves_its_input,
    log_with_half_epsilon,
    log_with_tiny_epsilon,
    on_torch,
    smooth_l1_called_huber,
    torch_float_sum,
    torch_half_sum,
    uses_delta,
)

_chance = np.random.default_rng(3)


_pair = {"prediction": d.estimate, "target": d.truth}


def _torch(name: str, **settings: Any) -> Any:
    import torch

    return getattr(torch.nn, name)(**settings)


def squared(prediction: Any, target: Any) -> Any:
    return ((prediction - target) ** 2).mean()


@cases("precision-gap")
def _() -> Pairs:
    half = {"prediction": d.half_estimate, "target": d.half_truth}

    @on_torch
    def softplus_by_hand(prediction: Any, target: Any) -> Any:
        return ((1 + (4 * prediction).exp()).log() - target * prediction).mean()

    @on_torch
    def tiny_slopes(prediction: Any, target: Any) -> Any:
        return ((prediction - target) * 1e-3).square().mean()

    return (
        {
            "a sum of squares in float16": {**half, "loss": torch_half_sum},
            "exp overflows": {**half, "loss": softplus_by_hand},
            "slopes that underflow": {
                "prediction": (d.estimate / 10).astype(np.float16),
                "target": (d.truth / 10).astype(np.float16),
                "loss": tiny_slopes,
            },
        },
        {
            "in float32 inside": {**half, "loss": torch_float_sum},
            "Lossary in float16": {**half, "loss": "mse"},
            "cross-entropy in float16": {
                "prediction": d.logits.astype(np.float16),
                "target": d.classes,
                "loss": _torch("CrossEntropyLoss"),
            },
        },
    )


@cases("epsilon-underflow")
def _() -> Pairs:
    half = {"prediction": d.half_probability, "target": d.half_binary}
    single = {
        "prediction": d.half_probability.astype(np.float32),
        "target": d.half_binary.astype(np.float32),
    }

    def named(prediction: Any, target: Any, eps: float = 1e-8) -> Any:
        return -(target * np.log(prediction + np.asarray(eps, prediction.dtype))).mean()

    def clipped(prediction: Any, target: Any) -> Any:
        inside = prediction.clip(1e-9, 1 - 1e-9)
        return -(target * np.log(inside) + (1 - target) * np.log(1 - inside)).mean()

    return (
        {
            "1e-8 in float16": {**half, "loss": log_with_tiny_epsilon},
            "eps=1e-8 in float16": {**half, "loss": named},
            "1 - 1e-9 in float32": {**single, "loss": clipped},
        },
        {
            "2.5e-4 in float16": {**half, "loss": log_with_half_epsilon},
            "1e-8 in float32": {**single, "loss": log_with_tiny_epsilon},
            "an epsilon given": {**single, "epsilon": 1e-7},
        },
    )


@cases("oracle-parity")
def _() -> Pairs:
    masks = {
        "prediction": np.log(
            np.clip(d.mask_scores, 1e-3, 1 - 1e-3) / (1 - np.clip(d.mask_scores, 1e-3, 1 - 1e-3))
        ),
        "target": d.masks,
    }

    def tversky(prediction: Any, target: Any, alpha: float, beta: float) -> Any:
        p, axes = 1 / (1 + np.exp(-prediction)), (1, 2)
        hit = (p * target).sum(axes)
        return (
            1
            - hit
            / (hit + alpha * (p * (1 - target)).sum(axes) + beta * ((1 - p) * target).sum(axes))
        ).mean()

    def exchanged(prediction: Any, target: Any, alpha: float = 0.5, beta: float = 0.5) -> Any:
        return tversky(prediction, target, beta, alpha)

    def halved(prediction: Any, target: Any) -> Any:
        return 0.5 * ((prediction - target) ** 2).mean()

    def summed(prediction: Any, target: Any) -> Any:
        return ((prediction - target) ** 2).sum()

    return (
        {
            "smooth L1 called Huber": {
                **_pair,
                "loss": smooth_l1_called_huber,
                "reference": "huber",
            },
            "half the squared error": {**_pair, "loss": halved, "reference": "mse"},
            "a sum called a mean": {**_pair, "loss": summed, "reference": "mse"},
            "Tversky with alpha and beta exchanged": {
                **masks,
                "loss": exchanged,
                "reference": "tversky",
            },
        },
        {
            "Huber": {**_pair, "loss": uses_delta, "reference": "huber"},
            "squared error": {**_pair, "loss": squared, "reference": "mse"},
            "PyTorch's cross-entropy": {
                "prediction": d.logits,
                "target": d.classes,
                "loss": _torch("CrossEntropyLoss"),
                "reference": "cross_entropy",
            },
        },
    )


@cases("memory-forecast")
def _() -> Pairs:
    return (
        {
            "8 × 4096 tokens × 128 000": {"shape": (8, 4096, 128_000), "loss": "cross_entropy"},
            "the same in bfloat16": {
                "shape": (8, 4096, 128_000),
                "dtype": "bfloat16",
                "loss": "cross_entropy",
            },
            "a small device": {
                "shape": (8, 512, 32_000),
                "memory": 2 * 2**30,
                "loss": "cross_entropy",
            },
        },
        {
            "8 × 512 × 32 000": {"shape": (8, 512, 32_000), "loss": "cross_entropy"},
            "10 classes": {"prediction": d.logits, "target": d.classes, "loss": "cross_entropy"},
            "a large device": {
                "shape": (8, 4096, 128_000),
                "memory": 141 * 10**9,
                "loss": "cross_entropy",
            },
        },
    )


@cases("compile-hazards")
def _() -> Pairs:
    def waits(prediction: Any, target: Any) -> Any:
        scale = target.max().item()
        return ((prediction - target) ** 2).mean() / max(scale, 1e-3)

    def selects(prediction: Any, target: Any) -> Any:
        error = prediction - target
        return (error[target > 0] ** 2).mean()

    def asks_for_shapes(prediction: Any, target: Any) -> Any:
        if prediction.shape != target.shape or prediction.ndim > 2:
            raise ValueError("shapes differ")
        return ((prediction - target) ** 2).mean()

    def optional(prediction: Any, target: Any, weights: Any = None) -> Any:
        error = (prediction - target) ** 2
        return error.mean() if weights is None else (error * weights).mean()

    return (
        {
            "a branch on values": {**_pair, "loss": branches_on_values},
            "item()": {**_pair, "loss": waits},
            "boolean selection": {**_pair, "loss": selects},
        },
        {
            "no branch": {**_pair, "loss": uses_delta},
            "a branch on shapes": {**_pair, "loss": asks_for_shapes},
            "a branch on None": {**_pair, "loss": optional},
        },
    )


@cases("callable")
def _() -> Pairs:
    def returns_a_tuple(prediction: Any, target: Any) -> Any:
        return ((prediction - target) ** 2).mean(), 3

    def raises(prediction: Any, target: Any) -> Any:
        raise KeyError("no such key")

    def per_row(prediction: Any, target: Any) -> Any:
        return (prediction - target) ** 2

    return (
        {
            "changes its prediction": {**_pair, "loss": changes_its_input},
            "returns a tuple": {**_pair, "loss": returns_a_tuple},
            "raises": {**_pair, "loss": raises},
        },
        {
            "leaves its prediction": {**_pair, "loss": leaves_its_input},
            "one value per row": {**_pair, "loss": per_row},
            "a number": {**_pair, "loss": forgets_delta},
        },
    )
