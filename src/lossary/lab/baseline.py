"""Predictors that learn nothing but a constant: what every loss must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lossary.advice.target import Target
from lossary.lab.data import Data
from lossary.lab.metrics import Metric, View, metrics_for, rounded, table
from lossary.lab.split import Split


def baselines(data: Data, parts: Split, metrics: dict[str, Any] | None = None) -> dict[str, Any]:
    """Metrics of constant predictors on the test parts, by name."""
    metrics = metrics or metrics_for(data.target)
    truths = parts.test.target.numpy()
    trained = parts.train.target.numpy()
    found = {}
    for name, predict in _constants(data.target).items():
        seen = [predict(train, truth) for train, truth in zip(trained, truths, strict=True)]
        found[name] = rounded(table(metrics, seen))
    return found


def constants(target: Target, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Metrics of the constants that fit all targets at hand, by name."""
    truth = target.values
    return {
        name: table(metrics, [predict(truth, truth)])
        for name, predict in _constants(target).items()
    }


def _constants(target: Target) -> dict[str, Any]:
    if target.task in ("real", "count"):
        return {
            "constant: mean": lambda train, truth: View(
                truth, point=np.full(truth.shape, train.mean())
            ),
            "constant: median": lambda train, truth: View(
                truth, point=np.full(truth.shape, np.median(train))
            ),
        }
    if target.task == "multi-label":

        def label_shares(train: np.ndarray, truth: np.ndarray) -> View:
            shares = np.broadcast_to(train.mean(0), truth.shape)
            return View(
                truth, decision=(shares > 0.5).astype(int), score=shares, probability=shares
            )

        return {"constant: share of each label": label_shares}

    def class_shares(train: np.ndarray, truth: np.ndarray) -> View:
        shares = np.bincount(train, minlength=len(target.labels)) / len(train)
        decision = np.full(truth.shape, shares.argmax())
        if target.task == "binary":
            yes = np.full(truth.shape, shares[1])
            return View(truth, decision=decision, score=yes, probability=yes)
        spread = np.broadcast_to(shares, (len(truth), len(shares)))
        return View(truth, decision=decision, score=spread, probability=spread)

    return {"constant: share of each class": class_shares}
