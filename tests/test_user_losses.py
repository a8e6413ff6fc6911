"""``lossary check`` on what users write: means, samples, objects, one library only, and broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lossary.contract import LossError
from lossary.testing import CHECKS, library_of
from lossary.testing.users import prepare
from lossary.xp import namespace

BY_NAME = {check.name: check for check in CHECKS}


def mean(prediction, target):
    return ((prediction - target) ** 2).mean()


def per_sample(prediction, target):
    return ((prediction - target) ** 2).sum(-1)


def per_element(prediction, target):
    return abs(prediction - target)


def surprise(scores, labels):
    return torch.nn.functional.cross_entropy(scores, labels, reduction="none")


def mean_surprise(scores, labels):
    return torch.nn.functional.cross_entropy(scores, labels)


def jax_only(prediction, target):
    import jax.numpy as jnp

    return jnp.square(prediction - target)


class Module(torch.nn.Module):
    def forward(self, prediction, target):
        return torch.square(prediction - target)


CASES: list[tuple[Any, str, str]] = [  # the loss, what a value stands for, where it runs
    (mean, "sample", "numpy torch"),
    (per_sample, "sample", "numpy torch"),
    (per_element, "element", "numpy torch"),
    (surprise, "sample", "torch"),
    (mean_surprise, "sample", "torch"),
    (jax_only, "element", "jax"),
    (Module(), "element", "torch"),
]


@pytest.mark.parametrize(
    ("loss", "unit", "homes"),
    CASES,
    ids=[getattr(loss, "__name__", "module") for loss, _, _ in CASES],
)
def test_any_shape_of_result_is_taken_apart_into_units(loss, unit, homes) -> None:
    ready = prepare(
        loss, "mine", ["numpy", "torch", "jax"] if "jax" in homes else ["numpy", "torch"]
    )
    assert [library.name for library in ready.libraries] == homes.split()
    assert ready.subject.contract.unit.name == unit
    for name in ("reductions_follow_from_values", "masked_is_absent", "totals_add", "empty_batch"):
        BY_NAME[name](ready.subject, ready.libraries[0])
    for name in ("odd_arrays", "masked_is_absent"):  # on NumPy, wherever the loss runs
        BY_NAME[name](ready.subject, library_of("numpy"))


def raises(prediction, target):
    raise ValueError("broken")


def writes(prediction, target):
    prediction -= target
    return prediction * prediction


BROKEN = [
    (raises, "raised ValueError: broken"),
    (lambda prediction, target: (prediction - target) * float("nan"), "returned nan"),
    (lambda prediction, target: (prediction - target, 1.0), "returned tuple"),
    (lambda prediction, target: None, "returned NoneType"),
    (lambda prediction, target: float(np.sum(prediction - target)), "has no gradient"),
    (lambda prediction, target: namespace(prediction).stack([prediction] * 2), "of shape (2, 6)"),
    (writes, "wrote into prediction"),
    (Module, "is a class"),
]


@pytest.mark.parametrize(("loss", "said"), BROKEN, ids=[said for _, said in BROKEN])
def test_a_broken_loss_is_one_clear_line(loss, said) -> None:
    with pytest.raises(LossError) as caught:
        prepare(loss, "mine", ["numpy"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_takes_a_mean_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def cost(p, t):\n    return ((p - t) ** 2).mean()\n")
    command = [sys.executable, "-c", "from lossary.cli import main; main()", "check", "own:cost"]
    done = subprocess.run(
        [*command, "--library", "numpy", "--json"],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["passed"]
    assert "checked one sample at a time" in done.stderr
