"""Every registered loss against the public list of checks, on every library."""

from __future__ import annotations

import pytest

import oracles
from lossary.contract import Contract, contracts
from lossary.inputs import arrivals
from lossary.testing import CHECKS, LIBRARIES, Check, Library, Subject, library_of


def subject_of(contract: Contract) -> Subject:
    """A registered loss with its oracle; collection fails where there is none.

    An oracle file may hold ``PARAMETERS``: for a loss whose parameters cannot be made from their
    intervals (costs, class counts), the values to check at; and ``<loss>_of_<form>``, where the
    loss is another function of predictions in that form.
    """
    module = oracles.load(contract.family)
    oracle = getattr(module, contract.name, None)
    if oracle is None:
        raise pytest.UsageError(
            f"{contract.name} has no oracle: write its formula in mpmath as "
            f"tests/oracles/{contract.family}.py:{contract.name}"
        )
    own = {way: getattr(module, f"{contract.name}_of_{way}", None) for way in arrivals(contract)}
    forms = {way: formula for way, formula in own.items() if formula is not None}
    given = getattr(module, "PARAMETERS", {}).get(contract.name, ())
    return Subject(contract, oracle, given, forms=forms)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = metafunc.config.getoption("library")
    names = list(LIBRARIES) if asked == "all" else asked.split(",")
    libraries = [library_of(name) for name in names]
    subjects = [subject_of(contract) for contract in contracts()]
    cases = [
        pytest.param(subject, library, check, id=f"{subject.name}-{library.name}-{check.name}")
        for subject in subjects
        for library in libraries
        for check in CHECKS
        if check.applies(subject, library)
    ]
    metafunc.parametrize(("subject", "library", "check"), cases)


def test_loss(subject: Subject, library: Library, check: Check) -> None:
    check(subject, library)
