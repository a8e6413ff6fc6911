"""Cases of the checks on averages, masks, weights, sequences and ranks."""

# ruff: noqa: D103 - the names of these losses say what they are

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.doctor.cases import Pairs, cases
from lossary.doctor.cases import data as d
from lossary.doctor.cases.losses import (
    masked_mean_over_all,
    masked_rightly,
    masked_wrongly,
    on_torch,
)

_chance = np.random.default_rng(2)
_truth = _chance.normal(size=(60, 12))
_estimate = _truth + _chance.normal(size=(60, 12)) * np.linspace(0.2, 3, 60)[:, None]
_lengths = np.maximum(1, (12 * np.linspace(0.1, 1, 60) ** 2).astype(int))
_observed = np.arange(12) < _lengths[:, None]
_tokens = {
    "prediction": d.token_logits,
    "target": d.uneven_tokens,
    "loss": "cross_entropy",
    "ignore": -100,
}


def _torch_ce(**settings: Any) -> Any:
    import torch

    return torch.nn.CrossEntropyLoss(**settings)


def sum_squared(prediction: Any, target: Any) -> Any:
    return ((prediction - target) ** 2).sum()


def one_too_many(prediction: Any, target: Any) -> Any:
    return ((prediction - target) ** 2).sum() / (target.shape[0] + 1)


def count_off_by_rows(prediction: Any, target: Any, mask: Any) -> Any:
    return ((prediction - target) ** 2 * mask).sum() / (mask.sum() + 40)


def mean_or_zero(prediction: Any, target: Any, mask: Any) -> Any:
    return ((prediction - target) ** 2 * mask).sum() / max(1, mask.sum())


def root_of_mean(prediction: Any, target: Any, mask: Any) -> Any:
    return (((prediction - target) ** 2 * mask).sum() / mask.sum()) ** 0.5


def mean_of_row_means(prediction: Any, target: Any, mask: Any) -> Any:
    return (((prediction - target) ** 2 * mask).sum(1) / mask.sum(1)).mean()


@cases("split-invariance")
def _() -> Pairs:
    whole = {"prediction": _estimate, "target": _truth}
    masked = {**whole, "mask": _observed}
    return (
        {
            "eight micro-batches averaged": {**_tokens, "accumulation": 8},
            "masked rows of unequal length": {**masked, "loss": "mse", "accumulation": 4},
            "a count one too large": {**whole, "loss": one_too_many},
            "a count off by the rows": {**masked, "loss": count_off_by_rows},
            "PyTorch's mean over labels that count": {
                "prediction": np.moveaxis(d.token_logits, -1, 1),
                "target": d.uneven_tokens,
                "loss": _torch_ce(),
                "accumulation": 8,
            },
        },
        {
            "totals combined by count": {**_tokens, "accumulation": 8, "combine": "count"},
            "equal micro-batches": {**whole, "loss": "mse", "accumulation": 4},
            "a mean over what counts": {**masked, "loss": masked_rightly},
            "a sum": {**whole, "loss": sum_squared},
            "a mean of rows": {**masked, "loss": mean_of_row_means},
        },
    )


@cases("accumulation-plan")
def _() -> Pairs:
    return (
        {
            "counts that differ 22-fold": {"counts": [900, 40, 700, 860]},
            "a rank without labels": {"counts": [0, 120, 118, 121]},
            "a mask of growing rows": {
                "prediction": _estimate,
                "target": _truth,
                "mask": _observed,
                "loss": "mse",
                "accumulation": 6,
            },
        },
        {
            "equal counts": {"counts": [128, 128, 128, 127]},
            "combined by count": {"counts": [900, 40, 700, 860], "combine": "count"},
            "nothing masked": {
                "prediction": _estimate,
                "target": _truth,
                "mask": np.ones((60, 12), bool),
                "loss": "mse",
                "accumulation": 6,
            },
        },
    )


@cases("mask-leak")
def _() -> Pairs:
    def not_used(prediction: Any, target: Any, mask: Any) -> Any:
        return ((prediction - target) ** 2).mean()

    @on_torch
    def nan_times_zero(prediction: Any, target: Any, mask: Any) -> Any:
        return ((prediction - target).abs().sqrt() * mask).sum() / mask.sum()

    @on_torch
    def chosen(prediction: Any, target: Any, mask: Any) -> Any:
        return (prediction - target)[mask.bool()].square().mean()

    part = {"prediction": _estimate[:20], "target": _truth[:20], "mask": _observed[:20]}
    equal = {**part, "prediction": np.where(_observed[:20], _estimate[:20], _truth[:20])}
    labels = np.where(_chance.random(256) < 0.3, 255, d.classes)
    return (
        {
            "the mask multiplies the target only": {**part, "loss": masked_wrongly},
            "the mask is not used": {**part, "loss": not_used},
            "NaN times 0": {**equal, "loss": nan_times_zero},
        },
        {
            "the mask multiplies the error": {**part, "loss": masked_rightly},
            "selected": {**part, "loss": chosen},
            "ignore_index": {
                "prediction": d.logits,
                "target": labels,
                "loss": _torch_ce(ignore_index=255),
            },
        },
    )


@cases("padding-invariance")
def _() -> Pairs:
    def mean_of_longest(prediction: Any, target: Any, mask: Any) -> Any:
        return ((prediction - target) ** 2 * mask).sum() / (target.shape[0] * target.shape[1])

    def softmax_over_time(prediction: Any, target: Any, mask: Any) -> Any:
        powers = np.exp(prediction - prediction.max(1, keepdims=True))
        return ((powers / powers.sum(1, keepdims=True) - target) ** 2 * mask).sum() / mask.sum()

    part = {"prediction": _estimate[:20], "target": _truth[:20], "mask": _observed[:20]}
    tokens = {"prediction": np.moveaxis(d.token_logits, -1, 1), "target": d.uneven_tokens}
    return (
        {
            "divided by all": {**part, "loss": masked_mean_over_all},
            "divided by the longest": {**part, "loss": mean_of_longest},
            "softmax over padded positions": {**part, "loss": softmax_over_time},
        },
        {
            "divided by what counts": {**part, "loss": masked_rightly},
            "mean of the rows' means": {**part, "loss": mean_of_row_means},
            "ignore_index": {**tokens, "loss": _torch_ce()},
        },
    )


@cases("all-ignored")
def _() -> Pairs:
    labels = d.uneven_tokens
    gap = np.concatenate([labels, np.full((16, 12), -100)])
    logits = np.concatenate([d.token_logits, d.token_logits])
    rare = np.where(_chance.random((400, 30)) < 0.01, 3, -100)
    every_other = _observed & (np.arange(60) % 2 == 0)[:, None]
    half = {"prediction": _estimate, "target": _truth, "mask": every_other, "batch_size": 6}
    return (
        {
            "no label at all": {
                "prediction": d.token_logits,
                "target": np.full((16, 12), -100),
                "loss": "cross_entropy",
                "ignore": -100,
            },
            "a batch without labels in PyTorch": {
                "prediction": np.moveaxis(logits, -1, 1),
                "target": gap,
                "loss": _torch_ce(),
                "batch_size": 16,
            },
            "one label in a hundred": {
                "prediction": np.zeros((400, 30, 5)),
                "target": rare,
                "loss": "cross_entropy",
                "ignore": -100,
            },
            "an empty mask": {
                "prediction": _estimate,
                "target": _truth,
                "mask": np.zeros((60, 12), bool),
                "loss": "mse",
            },
            "a batch without labels to come": {**half, "loss": masked_rightly},
        },
        {
            "rows of unequal length": {**_tokens, "batch_size": 4},
            "half is masked": {
                "prediction": _estimate,
                "target": _truth,
                "mask": _observed,
                "loss": "mse",
                "batch_size": 10,
            },
            "labels everywhere": {
                "prediction": d.logits,
                "target": d.classes,
                "loss": "cross_entropy",
                "ignore": -100,
            },
            "0 over nothing": {**half, "loss": mean_or_zero},
            "each row has labels": {**half, "mask": _observed, "loss": masked_rightly},
        },
    )
