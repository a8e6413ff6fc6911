"""The doctor has nothing against our losses: on inputs from their spaces, or in their code."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lossary import Loss, LossError, contracts, examine
from lossary.contract import Contract, Space
from lossary.doctor import all_checks, pages
from lossary.doctor.cases import losses
from lossary.doctor.trial import trial, verdicts

ROWS, CLASSES = 96, 5
PAGES = Path(__file__).parents[2] / "docs" / "doctor"


def sample(space: Space, chance: np.random.Generator) -> np.ndarray:
    """Members of a space."""
    labels = np.arange(ROWS) % CLASSES
    scores = chance.normal(size=(ROWS, CLASSES)) + 2 * np.eye(CLASSES)[labels]
    made: dict[str, Callable[[], np.ndarray]] = {
        "count": lambda: chance.poisson(3, ROWS).astype(float),
        "binary": lambda: chance.integers(0, 2, ROWS).astype(float),
        "sign": lambda: chance.integers(0, 2, ROWS) * 2.0 - 1,
        "class logits": lambda: scores[:, None].repeat(2, 1) if space.layout == "steps" else scores,
        "classes": lambda: labels,
        "class sequence": lambda: np.tile([1, 2], (ROWS, 1)),
        "length": lambda: np.full(ROWS, 2),
        "multi-hot": lambda: chance.integers(0, 2, (ROWS, CLASSES)).astype(float),
        "mask": lambda: chance.random((12, 8, 8)),
        "image": lambda: chance.random((2, 3, 180, 180)),
        "embeddings": lambda: chance.normal(size=(ROWS, 8)),
        "labels": lambda: np.arange(ROWS) // 4,
        "pair labels": lambda: chance.integers(0, 2, ROWS).astype(float),
        "positive": lambda: chance.gamma(2, 1, ROWS) + 0.05,
        "nonnegative": lambda: chance.gamma(2, 1, ROWS),
        "weights": lambda: chance.normal(size=(ROWS // 4, 8)),
    }
    return made.get(space.name, lambda: chance.normal(size=ROWS))()


@pytest.mark.parametrize("contract", contracts(), ids=lambda contract: contract.name)
def test_no_error_on_valid_inputs(contract: Contract) -> None:
    chance = np.random.default_rng(0)
    arrays = {name: sample(space, chance) for name, space in contract.inputs.items()}
    required = {key: 1.0 for key, item in contract.parameters.items() if item.required}
    target = arrays.pop(str(contract.target_name), None)
    prediction = tuple(arrays.values()) if len(arrays) > 1 else next(iter(arrays.values()))
    report = examine(prediction, target, loss=Loss(contract, **required), batch_size=32)
    assert report.errors == ()
    # Random predictions are no better than a constant: that warning is the truth here.
    assert {finding.check for finding in report.warnings} <= {"constant-predictor"}


@pytest.mark.parametrize("contract", contracts(), ids=lambda contract: contract.name)
def test_no_error_in_the_code(contract: Contract) -> None:
    """Our definitions, asked as if they were a stranger's."""
    try:
        report = trial(contract.compute)
    except LossError:
        return  # embeddings, images, several predictions: trial has no data of its own for them
    assert report.errors == ()


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("forgets_delta", "dead-flag"),
        ("masked_wrongly", "mask-leak"),
        ("masked_mean_over_all", "padding-invariance"),
        ("torch_root_error", "edge-gradients"),
        ("changes_its_input", "callable"),
    ],
)
def test_faults_in_the_code(name: str, check: str) -> None:
    failed = {item for item, passed, _ in verdicts(getattr(losses, name)) if not passed}
    assert check in failed


def test_code_that_is_right() -> None:
    assert all(passed for _, passed, _ in verdicts(losses.uses_delta))


def test_lossary_check_asks_the_doctor(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def forgets(prediction, target, *, delta: float = 1.0):\n"
        "    return abs(prediction - target)\n"
    )
    command = [
        sys.executable,
        "-c",
        "from lossary.cli import main; main()",
        "check",
        "mine:forgets",
    ]
    out: Any = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert out.returncode == 1
    assert "dead-flag" in out.stdout
    assert "Changing delta" in out.stdout


def test_pages_are_up_to_date() -> None:
    names = {path.stem for path in PAGES.glob("*.md")}
    assert names == {*all_checks(), "README"}
    assert (PAGES / "README.md").read_text() == pages.index()
    for check in all_checks().values():
        assert (PAGES / f"{check.name}.md").read_text() == pages.as_markdown(check), (
            "write them again: python -m lossary.doctor.pages docs/doctor"
        )
