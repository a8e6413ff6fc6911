"""The doctor in your tests: the fixture ``assert_healthy``.

::

    def test_my_loss(assert_healthy):
        assert_healthy(my_loss, prediction, target, mask=mask)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest


@pytest.fixture
def assert_healthy() -> Callable[..., Any]:
    """Fail with the doctor's findings when a loss on these arrays has errors or warnings.

    ``assert_healthy(loss, prediction, target, ignore_checks=("domination",), **case)``; further
    keywords are those of ``lossary.examine``. Returns the report.
    """

    def check(
        loss: Any,
        prediction: Any,
        target: Any = None,
        *,
        ignore_checks: Iterable[str] = (),
        **case: Any,
    ) -> Any:
        __tracebackhide__ = True
        # Imported here: pytest loads plugins in every run, also where no loss is tested.
        from lossary.doctor import examine

        report = examine(prediction, target, loss=loss, ignore_checks=ignore_checks, **case)
        for line in report.faults.values():
            warnings.warn(line, stacklevel=2)
        if report.exit_code:
            serious = "\n\n".join(str(finding) for finding in (*report.errors, *report.warnings))
            pytest.fail(f"the loss is not healthy:\n\n{serious}", pytrace=False)
        return report

    return check
