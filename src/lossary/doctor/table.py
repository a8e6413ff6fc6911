"""``python -m lossary.doctor.table``: check × caught × quiet, over all cases and libraries."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.arrays import like
from lossary.doctor.case import Case
from lossary.doctor.cases import Example, examples_of
from lossary.doctor.registry import Check, NotApplicable, all_checks
from lossary.evaluate import Loss

LIBRARIES = ("numpy", "torch", "jax")
_ARRAYS = (
    "prediction",
    "target",
    "weights",
    "mask",
    "class_weights",
    "gradient",
    "hessian",
    "variance",
    "lengths",
    "target_lengths",
)


@dataclass
class Row:
    """How one check did on its cases."""

    check: str
    caught: int = 0
    broken: int = 0
    quiet: int = 0
    correct: int = 0
    asked: int = 0  # correct cases that the check looked at, not only left alone
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.caught == self.broken >= 3 and self.quiet == self.correct >= 3


def in_library(given: Mapping[str, Any], library: str) -> Mapping[str, Any] | None:
    """The same case with arrays of another library; None where that says nothing new."""
    if library == "numpy":
        return given
    loss = given.get("loss")
    if not any(name in given for name in _ARRAYS) or not _travels(loss):
        return None

    def moved(name: str, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(moved(name, item) for item in value)
        if name not in _ARRAYS or not isinstance(value, np.ndarray):
            return value
        return like(value, library)

    return {name: moved(name, value) for name, value in given.items()}


def _travels(loss: Any) -> bool:
    """Whether a loss takes arrays of any library: ours, and functions that name none."""
    if loss is None or isinstance(loss, (str, Loss)):
        return True
    plain = inspect.isfunction(loss) and not hasattr(loss, "__lossary_library__")
    return plain and not {"np", "torch"} & set(loss.__code__.co_names)


def ask(check: Check, given: Mapping[str, Any]) -> bool | None:
    """True: something was found. False: all is well. None: not applicable."""
    try:
        return check(Case.of(**given)) is not None
    except (NotApplicable, LossError):
        return None


def measure(check: Check, libraries: tuple[str, ...] = LIBRARIES) -> Row:
    """Ask one check about all its cases, in every library where that applies."""
    row = Row(check.name)
    for example in examples_of(check.name):
        for library in libraries:
            given = in_library(example.given, library)
            if library == "jax" and check.name == "callable":
                continue  # no code can change a JAX array in place
            if given is not None:
                _count(row, example, ask(check, given), library)
    return row


def _count(row: Row, example: Example, answer: bool | None, library: str) -> None:
    right = bool(answer) == example.broken
    if example.broken:
        row.broken += 1
        row.caught += right
    else:
        row.correct += 1
        row.quiet += right
        row.asked += answer is not None
    if not right:
        row.failures += (f"{example.label} ({library})",)


def main(names: list[str]) -> int:
    """Print the table; 1 when a broken case is missed or a correct one reported."""
    chosen = [check for name, check in all_checks().items() if not names or name in names]
    print(f"{'check':28} {'caught':>9} {'quiet':>9} {'asked':>6}")
    rows = []
    for check in chosen:
        row = measure(check)
        rows.append(row)
        print(
            f"{row.check:28} {row.caught:>4} /{row.broken:>3} {row.quiet:>4} /{row.correct:>3} "
            f"{row.asked:>6}" + "".join(f"\n  WRONG: {failure}" for failure in row.failures),
            flush=True,
        )
    broken, correct = sum(row.broken for row in rows), sum(row.correct for row in rows)
    print(
        f"{len(rows)} checks: {sum(row.caught for row in rows)} of {broken} broken cases caught, "
        f"{sum(row.quiet for row in rows)} of {correct} correct cases quiet"
    )
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
