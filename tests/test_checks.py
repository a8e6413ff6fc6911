"""Every check can fail: it rejects a loss that is wrong in exactly the way it guards against."""

from __future__ import annotations

import pytest

from lossary.testing import CHECKS, CheckFailed, library_of
from lossary.testing.mutants import MUTANTS, Mutant

BY_NAME = {check.name: check for check in CHECKS}


def test_every_check_has_a_mutant() -> None:
    assert sorted(BY_NAME) == sorted({mutant.check for mutant in MUTANTS})


def _title(mutant: Mutant) -> str:
    return f"{mutant.check}-{mutant.subject.make.__name__}-{mutant.subject.name}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=_title)
def test_check_rejects_its_mutant(mutant: Mutant) -> None:
    check, library = BY_NAME[mutant.check], library_of(mutant.library)
    assert check.applies(mutant.subject, library), "the check does not even look at its mutant"
    with pytest.raises(CheckFailed) as caught:
        check(mutant.subject, library)
    assert mutant.subject.name in str(caught.value)
