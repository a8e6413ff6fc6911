"""Ours beside torch, optax and Keras: the same number, or the documented difference exactly."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest

from lossary import Loss
from lossary.testing import library_of
from peers import PEERS, Peer

HOMES = {"torch": "torch.nn.functional", "optax": "optax.losses", "keras": "keras"}


def _theirs(peer: Peer) -> np.ndarray:
    home = importlib.import_module(HOMES[peer.library])
    if peer.library == "torch":
        arrays = [library_of("torch").array(array) for array in peer.inputs]
    elif peer.library == "optax":
        arrays = [library_of("jax").array(array) for array in peer.inputs]
    else:
        arrays = [home.ops.convert_to_tensor(array) for array in peer.inputs]
    found: Any = peer.theirs(home, *arrays)
    if peer.library == "keras":
        found = home.ops.convert_to_numpy(found)
    return np.asarray(found)


@pytest.mark.parametrize(
    "peer", PEERS, ids=lambda peer: f"{peer.library}-{peer.function}-{peer.loss}"
)
def test_peer(peer: Peer) -> None:
    ours = Loss(peer.loss, **peer.parameters).values(*peer.inputs)
    theirs = peer.convert(_theirs(peer))
    if theirs.ndim < np.ndim(ours):
        ours = np.mean(ours, axis=-1)
    # Keras adds and clips by 1e-7, and torch and Keras may compute in float32.
    np.testing.assert_allclose(ours, theirs, rtol=3e-6, atol=3e-7)


def test_keras_epsilon_makes_its_number_wrong() -> None:
    """A certain wrong answer: Keras clips at 1e-7 and has no gradient there; ours is right."""
    import keras

    keras_cost = keras.losses.binary_crossentropy(np.float32([1.0]), np.float32([1e-12]))
    assert float(keras.ops.convert_to_numpy(keras_cost)) == pytest.approx(-math.log(1e-7), rel=1e-5)
    ours = Loss("binary_crossentropy")(np.float32([1e-12]), np.float32([1.0]))
    assert float(ours) == pytest.approx(-math.log(1e-12), rel=1e-6)


def test_keras_divergence_clips_zero_targets() -> None:
    import keras

    prediction, target = np.float32([[0.5, 0.5]]), np.float32([[1.0, 0.0]])
    theirs = keras.ops.convert_to_numpy(keras.losses.kl_divergence(target, prediction))
    clipped = math.log(1 / 0.5) + 1e-7 * math.log(1e-7 / 0.5)
    np.testing.assert_allclose(theirs, [clipped], rtol=1e-6)
    ours = Loss("kullback_leibler_divergence")(prediction, target)
    assert float(ours) == pytest.approx(math.log(2), rel=1e-7)


def test_torch_divergence_averages_over_elements() -> None:
    import torch

    from lossary import Loss

    logits, target = np.random.default_rng(0).standard_normal((5, 4)), np.eye(4)[[0, 1, 2, 3, 0]]
    log_probability = torch.log_softmax(torch.from_numpy(logits), -1)
    arguments = (log_probability, torch.from_numpy(target))
    theirs = torch.nn.functional.kl_div(*arguments, reduction="mean")
    ours = Loss("kl_divergence")(logits, target)
    assert float(theirs) * 4 == pytest.approx(float(ours), rel=1e-12)


def test_torch_mean_of_weighted_classes() -> None:
    import torch

    logits, target = np.random.default_rng(1).standard_normal((5, 3)), np.array([0, 1, 2, 1, 0])
    weights = np.array([0.5, 2.0, 1.0])
    tensors = [torch.from_numpy(array) for array in (logits, target, weights)]
    theirs = torch.nn.functional.cross_entropy(tensors[0], tensors[1], weight=tensors[2])
    ours = Loss("cross_entropy")(logits, target, class_weights=weights)
    assert float(theirs) == pytest.approx(float(ours), rel=1e-12)
