"""Small data for the examples on the checks' pages: ``from lossary.doctor.cases.data import *``."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.doctor import examine
from lossary.doctor.cases import losses as _losses
from lossary.doctor.terms import Term
from lossary.evaluate import Loss

__all__ = ["Loss", "Term", "examine", "np"]


def __getattr__(name: str) -> Any:  # tells type checkers that there are more names
    raise AttributeError(name)


def public(value: Any) -> Any:
    """Put a function's name into what ``import *`` brings."""
    __all__.append(value.__name__)
    return value


@public
def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@public
def log_softmax(scores: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(softmax(scores)))


@public
def sigmoid(score: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-score)))


@public
def with_gaps(values: np.ndarray) -> np.ndarray:
    """Every 30th value missing."""
    return np.where(np.arange(len(values)) % 30 == 7, np.nan, values)


@public
def with_outliers(values: np.ndarray) -> np.ndarray:
    """Two rows in 250 are off by a factor of a thousand."""
    return np.where(np.arange(len(values)) % 125 == 3, 1000 * values + 300, values)


def _make(seed: int = 0) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    classes = chance.integers(0, 10, 256)
    binary = chance.integers(0, 2, 256).astype(float)
    truth = chance.normal(1.0, 2.0, 250)
    tokens = chance.integers(0, 20, (16, 13))
    next_tokens = tokens[:, 1:]
    lengths = chance.integers(1, 13, 16)
    uneven = np.where(np.arange(12) < lengths[:, None], next_tokens, -100)
    sharp = 6.0 * np.eye(20)[next_tokens] + chance.normal(size=(16, 12, 20))
    mild = sharp * np.linspace(0.1, 1.0, 16)[:, None, None]
    score_map = chance.normal(size=(4, 8, 9, 3))
    masks = (chance.random((6, 12, 12)) < np.linspace(0.02, 0.5, 6)[:, None, None]).astype(float)
    return {
        "logits": 2.5 * np.eye(10)[classes] + chance.normal(size=(256, 10)),
        "classes": classes,
        "teacher": chance.normal(size=(256, 10)) * 2,
        "multi_hot": (chance.random((256, 10)) < 0.25).astype(float),
        "binary": binary,
        "binary_logits": 2 * binary - 1 + 1.5 * chance.normal(size=256),
        "truth": truth,
        "estimate": truth + chance.normal(0, 0.5, 250),
        "counts": chance.poisson(chance.gamma(1.5, 4.0, 250)).astype(float),
        "observed": chance.random(250) < 0.7,
        "wide_logits": chance.normal(size=(64, 5000)).astype(np.float32),
        "wide_classes": chance.integers(0, 5000, 64),
        "score_map": score_map,
        "label_map": chance.integers(0, 3, (4, 8, 9)),
        "square_means": chance.normal(size=(8, 8)),
        "transcripts": chance.integers(1, 6, (20, 10)),
        "letters": np.full(20, 10),
        "frames": np.full(20, 36),
        "next_tokens": next_tokens,
        "language_logits": sharp,
        "uneven_tokens": uneven,
        "token_logits": mild,
        "rare_classes": np.repeat([0, 1, 2], [220, 30, 6]),
        "masks": masks,
        "mask_scores": np.clip(0.7 * masks + 0.3 * chance.random(masks.shape), 0, 1),
        "anchors": chance.normal(size=(32, 8)),
        "positives": chance.normal(size=(32, 8)),
        "collapsed": np.ones((16, 8)) + 1e-6 * chance.normal(size=(16, 8)),
        "spread_out": chance.normal(size=(16, 8)),
        "pair_classes": np.arange(16) // 4,
        "half_truth": (truth + 40).astype(np.float16),
        "half_estimate": (truth + 40 + chance.normal(0, 20, 250)).astype(np.float16),
        "half_probability": sigmoid(chance.normal(size=64)).astype(np.float16),
        "half_binary": chance.integers(0, 2, 64).astype(np.float16),
    }


_DATA = _make()
globals().update(_DATA)
__all__ += list(_DATA)
for _name in _losses.__all__:
    globals()[_name] = getattr(_losses, _name)
    __all__.append(_name)
