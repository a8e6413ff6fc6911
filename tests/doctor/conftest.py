"""In these tests a check that raises is a failure, not a line of a report."""

import pytest

import lossary.doctor


def raise_it(error: Exception) -> str:
    raise error


@pytest.fixture(autouse=True)
def faults_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lossary.doctor, "could_not_run", raise_it)
