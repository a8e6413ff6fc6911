"""The doctor draws nothing from anybody's random generators: after it, chance goes on as before."""

import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from lossary.doctor import examine
from lossary.doctor.chance import same_chance

ROWS = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
GENERATORS: dict[str, Any] = {
    "python": random.Random(3),
    "numpy": np.random.default_rng(3),
    "old numpy": np.random.RandomState(3),
    "torch": torch.Generator(),
    "keras": keras.random.SeedGenerator(3),
    "tensorflow": tf.random.Generator.from_seed(3),
}
DRAWS: dict[str, Any] = {
    "python": lambda own: own.random(),
    "numpy": lambda own: own.random(),
    "old numpy": lambda own: own.random_sample(),
    "torch": lambda own: float(torch.rand((), generator=own)),
    "keras": lambda own: float(keras.random.uniform((), seed=own)),
    "tensorflow": lambda own: float(own.uniform(())),
}
GLOBAL: dict[str, Any] = {
    "python": random.random,
    "numpy": lambda: np.random.rand(),  # noqa: NPY002
    "torch": lambda: float(torch.rand(())),
    "keras": lambda: float(keras.random.uniform(())),
    "tensorflow": lambda: float(tf.random.uniform(())),
    "a generator of tensorflow": lambda: float(tf.random.get_global_generator().uniform(())),
}
MODULE = np.random.default_rng(4)
KERAS = keras.src.backend.common.global_state


def drawing(draw: Any, on: str) -> Any:
    """A loss that draws at every call."""

    def noisy(prediction: Any, target: Any) -> Any:
        error = (prediction - target) ** 2 * (1 + 0.1 * draw())
        return tf.reduce_mean(error) if on == "tensorflow" else error.mean()

    return noisy


def start() -> None:
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    tf.random.set_seed(7)
    keras.utils.set_random_seed(7)
    KERAS.set_global_attribute("global_seed_generator", None)  # made anew at the first draw
    tf.random.get_global_generator().reset_from_seed(7)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    with same_chance():
        yield


@pytest.mark.parametrize("on", ["numpy", "torch", "tensorflow"])
@pytest.mark.parametrize("name", GLOBAL)
def test_global_generators_go_on_as_if_nobody_had_looked(name: str, on: str) -> None:
    make = {"numpy": np.asarray, "torch": torch.tensor, "tensorflow": tf.constant}[on]
    start()
    wanted = [{each: draw() for each, draw in GLOBAL.items()} for _ in range(2)]
    start()
    first = {each: draw() for each, draw in GLOBAL.items()}
    examine(make(ROWS), make(ROWS[::-1].copy()), loss=drawing(GLOBAL[name], on))
    assert [first, {each: draw() for each, draw in GLOBAL.items()}] == wanted


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_of_the_loss_go_on_too(name: str) -> None:
    own, draw = GENERATORS[name], DRAWS[name]

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = own

        def forward(self, prediction: Any, target: Any) -> Any:
            return ((prediction - target) ** 2).mean() * (1 + 0.1 * draw(self.own))

    def closed(prediction: Any, target: Any) -> Any:
        return ((prediction - target) ** 2).mean() * (1 + 0.1 * draw(own))

    for loss in (Loss(), closed):
        with same_chance(parts=[loss]):
            wanted = draw(own)
        examine(torch.tensor(ROWS), torch.tensor(ROWS[::-1].copy()), loss=loss)
        assert draw(own) == wanted


def from_the_module(prediction: Any, target: Any) -> Any:
    return ((prediction - target) ** 2).mean() * (1 + 0.1 * MODULE.random())


def test_a_generator_of_the_module_goes_on_too() -> None:
    wanted = MODULE.bit_generator.state
    examine(ROWS, ROWS[::-1].copy(), loss=from_the_module)
    assert MODULE.bit_generator.state == wanted


def test_no_generator_is_left_in_keras() -> None:
    KERAS.set_global_attribute("global_seed_generator", None)
    with same_chance(0):
        keras.random.uniform(())
        assert KERAS.get_global_attribute("global_seed_generator") is not None
    assert KERAS.get_global_attribute("global_seed_generator") is None


def test_every_device_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generators of the CPU stand for those of two devices."""
    devices = torch.Generator(), torch.Generator()
    monkeypatch.setattr(torch.cuda, "default_generators", devices)
    with same_chance(0):
        devices[0].manual_seed(1)
    assert devices[0].initial_seed() == 1, "CUDA has not been started: nothing to look after"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    states = [device.get_state() for device in devices]
    with same_chance(0):
        assert [device.initial_seed() for device in devices] == [0, 0]
        torch.rand(3, generator=devices[1])
    assert all(map(torch.equal, states, [device.get_state() for device in devices]))
