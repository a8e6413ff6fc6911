"""The same split, corruption and standardisation for every loss, decided by the seed alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lossary.advice.target import Target
from lossary.contract import LossError
from lossary.lab.data import Data
from lossary.lab.need import need

CORRUPTIONS = ("label noise", "outliers", "imbalance")


@dataclass(frozen=True)
class Corruption:
    """Harm done to the training part alone: wrong labels, targets far out, or rare classes.

    ``share``: of targets harmed; for imbalance, the rarest class keeps this share of its rows.
    """

    kind: str = "none"
    share: float = 0.0

    def check(self, target: Target) -> None:
        """A LossError where this harm does not apply to such a target."""
        classes = target.task in ("binary", "classes")
        quantity = target.task in ("real", "count")
        fits = {"none": True, "label noise": classes, "imbalance": classes, "outliers": quantity}
        if not fits[self.kind]:
            raise LossError(f"{self.kind}: does not apply to a {target.task} target")

    def __str__(self) -> str:
        return "as is" if self.kind == "none" else f"{self.share:.0%} {self.kind}"


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of one part for every seed: features (seeds, n, ...), targets (seeds, n), row
    numbers.
    """

    features: torch.Tensor
    target: torch.Tensor
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class Split:
    """Training, validation and test parts (60, 20 and 20 %), stacked over seeds.

    Rows that the data hold out are the test part; the rest is cut into 80 and 20 %.
    """

    seeds: tuple[int, ...]
    train: Part
    validation: Part
    test: Part
    clean: torch.Tensor  # the training targets before corruption


def split(data: Data, seeds: Sequence[int], corruption: Corruption | None = None) -> Split:
    """Every seed its own split, stratified by class; standardised by its training part."""
    corruption = corruption or Corruption()
    _refuse_rare(data)
    parts = [_indices(data, seed) for seed in seeds]
    targets = data.target.values
    harmed = [
        _corrupt(data, rows[0], corruption, seed) for rows, seed in zip(parts, seeds, strict=True)
    ]
    # A stack needs equal lengths; imbalance leaves each seed about the same number of rows.
    shortest = min(len(rows) for rows, _ in harmed)
    train_rows = np.stack([rows[:shortest] for rows, _ in harmed])
    train_targets = np.stack([values[:shortest] for _, values in harmed])
    centres, spreads = _standards(data.features, train_rows)

    def part(rows: np.ndarray, values: np.ndarray) -> Part:
        features = np.stack(
            [(data.features[r] - c) / s for r, c, s in zip(rows, centres, spreads, strict=True)]
        )
        return Part(torch.from_numpy(features.astype(np.float32)), torch.from_numpy(values), rows)

    validation, test = (np.stack([p[k] for p in parts]) for k in (1, 2))
    return Split(
        tuple(seeds),
        part(train_rows, train_targets),
        part(validation, targets[validation]),
        part(test, targets[test]),
        torch.from_numpy(targets[train_rows]),
    )


def _refuse_rare(data: Data) -> None:
    target = data.target
    rows = len(data.features)
    if rows - data.held_out < 20:
        raise LossError(
            f"{data.name}: {rows - data.held_out} rows are too few to train, validate and test on; "
            "give 20 or more"
        )
    if target.task in ("binary", "classes"):
        trained = target.values[: rows - data.held_out]
        counts = np.bincount(trained, minlength=len(target.labels))
        rare = int(counts.argmin())
        if counts[rare] < 5:
            raise LossError(
                f"target {target.name}: class {target.labels[rare]!r} has {counts[rare]} rows; "
                "a split needs at least 5 of each: merge or remove rare classes"
            )


def _indices(data: Data, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cut = need("sklearn.model_selection").train_test_split
    kind = data.target.task
    classes = data.target.values if kind in ("binary", "classes") else None
    everything = np.arange(len(data.features))
    if data.held_out:
        kept, test = np.split(everything, [len(everything) - data.held_out])
        fifth = math.ceil(len(kept) / 5)
    else:
        fifth = math.ceil(len(everything) / 5)
        kept, test = cut(everything, test_size=fifth, random_state=seed, stratify=classes)
    again = None if classes is None else classes[kept]
    train, validation = cut(kept, test_size=fifth, random_state=seed, stratify=again)
    return train, validation, test


def _corrupt(
    data: Data, rows: np.ndarray, corruption: Corruption, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    target = data.target
    corruption.check(target)
    values = target.values[rows].copy()
    random = np.random.default_rng([seed, 7919])
    if corruption.kind == "none":
        return rows, values
    if corruption.kind == "label noise":
        wrong = random.random(len(values)) < corruption.share
        shift = random.integers(1, len(target.labels), len(values))
        return rows, np.where(wrong, (values + shift) % len(target.labels), values)
    if corruption.kind == "outliers":
        wrong = random.random(len(values)) < corruption.share
        size = 10 * target.facts["standard deviation"] * (1 + random.random(len(values)))
        far = values + (
            size if target.facts["minimum"] >= 0 else size * random.choice([-1, 1], len(values))
        )
        return rows, np.where(wrong, np.round(far) if target.task == "count" else far, values)
    return _thin(rows, values, corruption.share, len(target.labels))


def _thin(
    rows: np.ndarray, values: np.ndarray, share: float, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Class k keeps share ** (k / (classes - 1)) of the commonest's rows: an exponential tail."""
    most = np.bincount(values).max()
    order = np.zeros(len(rows), dtype=np.int64)
    for k in range(classes):
        where = np.flatnonzero(values == k)
        order[where] = np.arange(len(where))
    keep = np.maximum(2, np.round(most * share ** (np.arange(classes) / (classes - 1))))
    kept = order < keep[values]
    return rows[kept], values[kept]


def _standards(features: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of each column over each seed's training rows; images are only centred."""
    axes = (0,) if features.ndim == 2 else (0, 2, 3)
    shape = (len(rows), *[features.shape[1]], *[1] * (features.ndim - 2))
    centres = np.stack([features[r].mean(axis=axes, dtype=np.float64) for r in rows])
    spreads = np.stack([features[r].std(axis=axes, dtype=np.float64) for r in rows])
    spreads = np.where(spreads > 1e-12, spreads, 1.0)
    return centres.reshape(shape), spreads.reshape(shape)
