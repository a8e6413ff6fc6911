"""A check that raises is a failure here, not a line of a report; the command, and files for it."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lossary.doctor
from lossary.cli import main
from lossary.doctor.cases import data as d

Run = Callable[..., tuple[int, str, str]]


def raise_it(error: Exception) -> str:
    raise error


@pytest.fixture(autouse=True)
def faults_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lossary.doctor, "could_not_run", raise_it)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lossary", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return command


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    np.save(tmp_path / "p.npy", d.softmax(d.logits).astype(np.float32))
    np.save(tmp_path / "t.npy", d.classes)
    return tmp_path / "p.npy", tmp_path / "t.npy"
