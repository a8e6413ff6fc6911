"""Which library function each loss is compared with, and the convention in which they differ.

A row says: ours on (prediction, target) equals theirs, or equals what ``convert`` makes of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RNG = np.random.default_rng(8)
REAL = (RNG.standard_normal(7), RNG.standard_normal(7))
POSITIVE = (RNG.gamma(2.0, 1.0, 7) + 0.1, RNG.gamma(2.0, 1.0, 7) + 0.1)
RATES = (RNG.gamma(2.0, 1.0, 7) + 0.1, RNG.poisson(2.0, 7).astype(np.float64))
LOG_RATES = (RNG.standard_normal(7), RATES[1])
LOGITS = (2 * RNG.standard_normal(7), RNG.integers(0, 2, 7).astype(np.float64))
PROBABILITIES = (RNG.uniform(0.05, 0.95, 7), LOGITS[1])
MARGINS = (LOGITS[0], 2 * LOGITS[1] - 1)
SCORES = (RNG.standard_normal((6, 4)), RNG.integers(0, 4, 6))
SIMPLEX = (RNG.dirichlet(np.ones(4), 6), SCORES[1])
ONE_HOT = (SIMPLEX[0], np.eye(4)[SCORES[1]])
ONE_HOT_SCORES = (SCORES[0], ONE_HOT[1])
SOFT = (SIMPLEX[0], RNG.dirichlet(np.ones(4), 6))
ROWS = (RNG.standard_normal((6, 3)), RNG.standard_normal((6, 3)))


@dataclass(frozen=True)
class Peer:
    """``theirs(library, prediction, target)`` returns unreduced values of the library."""

    loss: str
    library: str  # torch, optax or keras
    function: str
    inputs: tuple[np.ndarray, np.ndarray]
    theirs: Callable[..., Any]
    parameters: dict[str, Any] = field(default_factory=dict)
    differs: str = ""
    convert: Callable[[np.ndarray], np.ndarray] = lambda values: values


def _torch(loss: str, name: str, inputs: Any, differs: str = "", **more: Any) -> Peer:
    settings = more.pop("settings", {})
    return Peer(
        loss, "torch", name, inputs,
        lambda F, p, t: getattr(F, name)(p, t, reduction="none", **settings),
        differs=differs, **more,
    )  # fmt: skip


def _optax(loss: str, name: str, inputs: Any, differs: str = "", **more: Any) -> Peer:
    settings = more.pop("settings", {})
    return Peer(
        loss, "optax", name, inputs,
        lambda optax, p, t: getattr(optax, name)(p, t, **settings), differs=differs, **more,
    )  # fmt: skip


def _keras(loss: str, name: str, inputs: Any, differs: str = "", **more: Any) -> Peer:
    settings = more.pop("settings", {})
    return Peer(
        loss, "keras", name, inputs,
        lambda keras, p, t: getattr(keras.losses, name)(t, p, **settings),
        differs=differs, **more,
    )  # fmt: skip


PER_ROW = "Keras averages the last axis of element losses: our batch is one row of it"

PEERS = [
    _torch("mse_loss", "mse_loss", REAL),
    _torch("l1_loss", "l1_loss", REAL),
    _torch("huber_loss", "huber_loss", REAL, parameters={"delta": 0.5}, settings={"delta": 0.5}),
    _torch(
        "smooth_l1_loss", "smooth_l1_loss", REAL, parameters={"beta": 0.5}, settings={"beta": 0.5}
    ),
    _torch("cross_entropy", "cross_entropy", SCORES),
    _torch(
        "cross_entropy", "cross_entropy", SCORES, parameters={"label_smoothing": 0.1},
        settings={"label_smoothing": 0.1},
    ),
    _torch("binary_cross_entropy", "binary_cross_entropy_with_logits", LOGITS),
    _torch("poisson_nll_loss", "poisson_nll_loss", LOG_RATES),
    _torch("soft_margin_loss", "soft_margin_loss", MARGINS),
    _torch("multi_margin_loss", "multi_margin_loss", SCORES),
    _optax("squared_error", "squared_error", REAL),
    _optax("l2_loss", "l2_loss", REAL),
    _optax("huber_loss", "huber_loss", REAL, parameters={"delta": 0.5}, settings={"delta": 0.5}),
    _optax("log_cosh", "log_cosh", REAL),
    _optax("cosine_distance", "cosine_distance", ROWS),
    _optax("binary_cross_entropy", "sigmoid_binary_cross_entropy", LOGITS),
    _optax("cross_entropy", "softmax_cross_entropy_with_integer_labels", SCORES),
    _optax("cross_entropy", "softmax_cross_entropy", ONE_HOT_SCORES),
    _optax("hinge_loss", "hinge_loss", MARGINS),
    _optax("poly_loss_cross_entropy", "poly_loss_cross_entropy", ONE_HOT_SCORES),
    _optax(
        "cosine_similarity", "cosine_similarity", ROWS,
        "a likeness; ours, as Keras', is its negative", convert=np.negative,
    ),
    _keras("mean_squared_error", "mean_squared_error", REAL, PER_ROW, convert=np.mean),
    _keras("mean_absolute_error", "mean_absolute_error", REAL, PER_ROW, convert=np.mean),
    _keras("mean_absolute_percentage_error", "mean_absolute_percentage_error", REAL, PER_ROW),
    _keras("mean_squared_logarithmic_error", "mean_squared_logarithmic_error", POSITIVE, PER_ROW),
    _keras("squared_hinge", "squared_hinge", MARGINS, PER_ROW),
    _keras("hinge", "hinge", MARGINS, PER_ROW),
    _keras("categorical_hinge", "categorical_hinge", ONE_HOT_SCORES),
    _keras("logcosh", "log_cosh", REAL, PER_ROW),
    _keras("categorical_crossentropy", "categorical_crossentropy", ONE_HOT),
    _keras("sparse_categorical_crossentropy", "sparse_categorical_crossentropy", SIMPLEX),
    _keras("binary_crossentropy", "binary_crossentropy", PROBABILITIES, PER_ROW),
    _keras("kullback_leibler_divergence", "kl_divergence", SOFT),
    _keras("poisson", "poisson", RATES, PER_ROW),
    _keras("cosine_proximity", "cosine_similarity", ROWS),
]  # fmt: skip

WITHOUT_PEER = "everything else: the oracle is its only judge"
