"""One loss stays on one worker, so that its oracle and its compiled programs are made once."""

from __future__ import annotations

import csv
import gc
import os
import re
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Inductor's lines for profilers are a tenth of the time that compiling its C++ takes; and each
# worker of the tests compiles on a CPU of its own.
os.environ.setdefault("AOT_INDUCTOR_ENABLE_LINE_TABLES", "0")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--library",
        default="all",
        help="array libraries to prove losses on, separated by commas; a missing one is an error",
    )


def pytest_collection_finish() -> None:
    # Tracing makes objects by the million beside those of four frameworks, which stay: looking
    # through all of them again and again took an eighth of the tests' time.
    gc.freeze()
    gc.set_threshold(100_000)
    _let_inductor_keep_its_rules()


def _let_inductor_keep_its_rules() -> None:
    # Inductor 2.13 fills the table of its only DtypePropagationOpsHandler anew for each operation
    # that it writes: a quarter of the time it spends in Python.
    from torch._inductor.dtype_propagation import DtypePropagationOpsHandler as Rules

    fill = Rules.__init__

    def fill_once(rules: Rules) -> None:
        if not vars(rules):
            fill(rules)

    Rules.__init__ = fill_once  # type: ignore[method-assign]


def shortfalls() -> dict[str, str]:
    """What is known to fall short of 4 ulp, as measured: ``loss-library-check`` -> how far."""
    with (Path(__file__).parent / "shortfalls.csv").open() as file:
        return {row["case"]: row["measured"] for row in csv.DictReader(file)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    known = shortfalls()
    for item in items:
        subject = getattr(item, "callspec", None) and item.callspec.params.get("subject")
        if subject is not None and item.callspec.id in known:
            # Run and shown in the summary, not hidden: each is a point to be won. Not strict,
            # because compilers round otherwise on another processor.
            item.add_marker(pytest.mark.xfail(reason=known[item.callspec.id], strict=False))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One loss's tests on one worker.

    Not by marks: pytest 9 asks for the group's name before this file's marks are set.
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneWorkerPerLoss(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            named = re.search(r"::test_loss\[(\w+)-", nodeid)
            return named[1] if named else nodeid

        def _assign_work_unit(self, node: Any) -> None:
            # Losses stand in the order of how many tests they have, which is nearly that of how
            # their inputs are shaped. One worker takes them from the front, another from the back,
            # so that fewer of JAX's operations, compiled for each shape, are compiled by both.
            losses = [scope for scope in self.workqueue if "::" not in scope]
            if losses and node is self.nodes[-1]:
                self.workqueue.move_to_end(losses[-1], last=False)
            super()._assign_work_unit(node)

    return OneWorkerPerLoss(config, log)
