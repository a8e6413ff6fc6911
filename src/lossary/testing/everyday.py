"""Everyday batches, for laws and properties."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lossary.contract import Contract, Space
from lossary.testing.samples import (
    ANCHORS,
    FEATURES,
    SHARE,
    Batch,
    classes_of,
    image_shape,
    sequences,
    single,
)


def plain_batch(
    contract: Contract,
    parameters: Mapping[str, Any],
    rows: int = 6,
    seed: int = 0,
    soft: bool = False,
) -> Batch:
    """An everyday batch of ``rows`` units; ``soft`` gives distributions, not indices."""
    rng = np.random.default_rng(seed)
    classes = classes_of(parameters)
    unit = contract.unit.name if contract.unit else "element"
    layouts = [space.layout for space in contract.inputs.values()]
    if "steps" in layouts:
        return sequences(contract, rows, rng)
    batch = {}
    for name, space in contract.inputs.items():
        if space.layout == "tensor":
            # As many classes as rows in the hard batches: eager JAX compiles for each shape anew.
            shape: tuple[int, ...] = (ANCHORS if contract.learned else 4, FEATURES)
        elif "image" in layouts:
            shape = (rows, *image_shape(contract, parameters))
        elif space.layout == "label" or (space.layout == "class" and not soft):
            shape = (rows,)
        elif space.layout in ("class axis", "class"):
            shape = (rows, classes)
        elif space.layout == "row" or unit == "region":
            shape = (rows, 4 if unit == "region" else FEATURES)
        else:
            shape = (rows,)
        soft_mask = space.name == "mask" and name in contract.predictions
        batch[name] = _draw(SHARE if soft_mask else space, shape, classes, rng)
    return batch


def _draw(space: Space, shape: tuple[int, ...], classes: int, rng: Any) -> np.ndarray:
    if space.layout == "class" and len(shape) == 1:
        return rng.integers(0, classes, shape)
    if space.name == "labels":
        return np.asarray([0, 1] * shape[0])[: shape[0]]
    if space.layout == "class" or space.name == "simplex":
        shares = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
        return single(shares)
    if space.name in ("binary", "mask", "pair labels", "multi-hot"):
        return rng.integers(0, 2, shape).astype(np.float64)
    if space.name == "sign":
        return 2.0 * rng.integers(0, 2, shape) - 1.0
    if space.integral:
        return rng.poisson(3.0, shape).astype(np.float64)
    interval = space.interval
    if interval.high < math.inf:
        return single(
            interval.low + (interval.high - interval.low) * rng.uniform(0.02, 0.98, shape)
        )
    if interval.low > -math.inf:
        return single(interval.low + rng.gamma(2.0, 1.0, shape) + 0.01)
    return single(1.5 * rng.standard_normal(shape))
