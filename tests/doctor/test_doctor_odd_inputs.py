"""No check may crash, whatever comes: the fixture of this folder turns a fault into a failure."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lossary import LossError, examine

chance = np.random.default_rng(0)


def real(*shape: int) -> np.ndarray:
    return chance.normal(size=shape).astype(np.float32)


def labels(*shape: int, low: int = 0, high: int = 3) -> np.ndarray:
    return chance.integers(low, high, shape)


third = np.arange(30) == 3
INPUTS: dict[str, tuple[Any, Any]] = {
    "a number": (np.float32(1), np.float32(2)),
    "one value": (real(1), real(1)),
    "one row": (real(1, 5), np.array([2])),
    "one class": (real(9, 1), np.zeros(9, int)),
    "two rows": (real(2), real(2)),
    "three rows": (real(3, 2), real(3, 2)),
    "five axes": (real(2, 3, 4, 2, 3), labels(2, 4, 2, 3)),
    "five axes of values": (real(2, 3, 2, 2, 3), real(2, 3, 2, 2, 3)),
    "bool": (real(20) > 0, real(20) > 0),
    "bool targets": (real(20), real(20) > 0),
    "bool rows": (real(12, 3), real(12, 3) > 0),
    "int8": (labels(20, low=-5).astype(np.int8), labels(20, high=2).astype(np.int8)),
    "uint8": (labels(20, 3).astype(np.uint8), labels(20).astype(np.uint8)),
    "int64 values": (real(12, 3), labels(12, 3, high=9)),
    "float16": (real(30).astype(np.float16), real(30).astype(np.float16)),
    "float16 classes": (real(30, 4).astype(np.float16), labels(30)),
    "an infinite prediction": (np.where(third, np.inf, real(30)), real(30)),
    "an infinite target": (real(30), np.where(third, -np.inf, real(30))),
    "a class ruled out": (np.where(np.arange(4) == 3, -np.inf, real(30, 4)), labels(30)),
    "NaN everywhere": (np.full((10, 3), np.nan), np.full((10, 3), np.nan)),
    "NaN as labels": (real(10, 3), np.full(10, np.nan)),
    "huge": (real(30) * 1e38, real(30) * 1e38),
    "huge classes": (real(30, 4) * 1e38, labels(30)),
    "huge in float64": (real(30).astype(float) * 1e300, real(30).astype(float) * 1e300),
    "tiny": (real(30) * 1e-38, real(30) * 1e-38),
    "all equal": (np.ones(100), np.ones(100)),
    "all 0": (np.zeros((100, 3)), np.zeros(100, int)),
    "labels below 0": (real(20, 3), -np.ones(20, int)),
    "labels beyond int32": (real(20, 3), np.full(20, 2**40)),
    "unlike lengths": (real(7, 3), real(5)),
    "unlike ranks": (real(7), real(7, 3, 2)),
    "time first": (real(4, 9, 3), labels(9, 4)),
    "a sequence with -1": (real(3, 9, 5), labels(3, 9, low=-1)),
    "strided": (real(40, 6)[::2, ::2], real(40, 6)[::2, ::2]),
    "no target": (real(10, 3), None),
}


def own(prediction: Any, target: Any, delta: float = 1.0) -> Any:
    return ((prediction - target) ** 2).mean() * delta


def in_place(prediction: Any, target: Any) -> Any:
    prediction -= 1
    return (prediction * target).mean()


LOSSES = {
    "mse": "mse",
    "cross_entropy": "cross_entropy",
    "binary_cross_entropy": "binary_cross_entropy",
    "dice": "dice",
    "info_nce": "info_nce",
    "poisson_nll": "poisson_nll",
    "CrossEntropyLoss": nn.CrossEntropyLoss(),
    "BCELoss": nn.BCELoss(),
    "KLDivLoss": nn.KLDivLoss(),
    "one's own": own,
    "in place": in_place,
    "a tuple": lambda prediction, target: (prediction, target),
    "a number": lambda prediction, target: 1.5,
    "none": None,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("given", INPUTS)
def test_no_check_crashes(given: str, name: str) -> None:
    prediction, target = INPUTS[given]
    rows = len(np.atleast_1d(prediction))
    arrays = {
        "prediction": torch.tensor(prediction),
        "target": None if target is None else torch.tensor(target),
    }
    for more in (
        {},
        {"weights": np.linspace(0, 1, rows)},
        {"mask": np.arange(rows) % 2 == 0, "batch_size": 4},
    ):
        try:
            report = examine(**arrays, loss=LOSSES[name], **more)
            text, failed = str(report), report.failed
        except LossError as problem:
            lines, failed = str(problem).splitlines(), {}
            text = lines[0] if len(lines) == 1 else ""
        assert failed == {}
        assert text
