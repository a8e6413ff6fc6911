"""The lines that advice and reports give to paste: each runs, and gives the loss's own number."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import jax
import keras
import numpy as np
import pytest
import torch

from lossary.advice import describe
from lossary.advice.calls import calls
from lossary.advice.fit import meet
from lossary.contract import LossError, contracts
from lossary.inputs import arrivals
from lossary.lab.choose import fitted
from lossary.lines import broken

RANDOM = np.random.default_rng(0)
ROWS = 24
TARGETS = {
    "real": RANDOM.lognormal(size=ROWS) * 0.5 + 0.1,
    "share": RANDOM.uniform(0.01, 0.9, ROWS),
    "count": RANDOM.poisson(2.0, ROWS),
    "binary": np.arange(ROWS) % 2,
    "classes": np.array(list("abc"))[np.arange(ROWS) % 3],
    "multi-label": (RANDOM.random((ROWS, 3)) < 0.5).astype(int),
}
ACTIVATIONS = {"linear": "linear", "softplus": "softplus", "sigmoid": "sigmoid", "tanh": "tanh"}
ACTIVATIONS |= {"softmax": "softmax", "exponential": "exponential"}


def target_of(kind):
    return describe(TARGETS[kind], task="real" if kind == "share" else kind)


def cases():
    """Of the losses made for each kind of target, one of every way in which they take arrays."""
    found = {}
    for kind in TARGETS:
        target = target_of(kind)
        for contract in contracts():
            try:
                if not meet(contract, target).natural:
                    continue
                loss = fitted(contract.name, target)
            except LossError:
                continue
            required = [name for name, item in contract.parameters.items() if item.required]
            way = (kind, str(contract.inputs), arrivals(contract), contract.family == "margin")
            found.setdefault((*way, *required), (kind, loss))
    return list(found.values())


def encoded(loss, kind):
    """Targets as the loss wants them: indices, or numbers of shape (rows, units)."""
    target = target_of(kind)
    meeting = meet(loss.contract, target)
    if meeting.encoding == "index":
        return target.values
    numbers = target.values.astype(np.float32)
    numbers = 2 * numbers - 1 if meeting.encoding == "sign" else numbers
    return numbers.reshape(ROWS, meeting.units[0])


@pytest.mark.parametrize(("kind", "loss"), cases(), ids=str)
def test_the_lines_to_paste_run_and_agree(kind, loss):
    contract = loss.contract
    units = meet(contract, target_of(kind)).units
    spaces = [contract.inputs[name] for name in contract.predictions]
    given = RANDOM.normal(size=(ROWS, 4)).astype(np.float32)
    truth = encoded(loss, kind)

    rows = keras.Input((4,))
    outputs = [
        keras.layers.Dense(size, activation=ACTIVATIONS[space.activation])(rows)
        for size, space in zip(units, spaces, strict=True)
    ]
    joined = outputs[0] if len(outputs) == 1 else keras.layers.Concatenate()(outputs)
    scope = {"model": keras.Model(rows, joined)}
    parts = np.split(scope["model"].predict(given, verbose=0), np.cumsum(units)[:-1], axis=1)
    named = dict(zip(contract.predictions, parts, strict=True)) | {contract.target_name: truth}
    arrays = [named[name] for name in contract.inputs]
    wanted = float(loss(*arrays))
    lines = {name: broken(code, 16) for name, code in calls(loss).items()}

    exec(lines["Keras"], scope)
    reached = scope["model"].evaluate(given, truth, batch_size=ROWS, verbose=0)
    assert reached == pytest.approx(wanted, rel=2e-4, abs=1e-6)

    exec(lines["PyTorch"], scope)
    tensors = [torch.from_numpy(np.asarray(item)) for item in arrays]
    assert float(scope["loss"](*tensors)) == pytest.approx(wanted, rel=2e-4, abs=1e-6)

    exec(lines["JAX"], scope)
    step = scope["step"]
    if kind in ("binary", "classes"):  # as in training; else JAX compiles 200 operations one by one
        step = jax.jit(step)
    value, gradient = step(*map(jax.numpy.asarray, arrays))
    assert float(value) == pytest.approx(wanted, rel=2e-4, abs=1e-6)
    assert len(jax.tree.leaves(gradient)) == len(contract.predictions)
