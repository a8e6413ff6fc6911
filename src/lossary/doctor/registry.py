"""The checks by name: one function each, whose docstring is its page."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from lossary.contract import LossError
from lossary.doctor.report import Finding, Severity
from lossary.doctor.search import index_of

if TYPE_CHECKING:
    from lossary.doctor.case import Case


T = TypeVar("T")


class NotApplicable(Exception):  # noqa: N818 - not an error: the check has nothing to look at
    """What a check needs and this case does not have."""


def need(condition: object, what: str) -> None:
    """Leave the check quietly when the case lacks something: ``need(case.history, "history=")``."""
    if not condition:
        raise NotApplicable(what)


def present(value: T | None, what: str) -> T:
    """``value``, or leave the check quietly where the case lacks it."""
    if value is None:
        raise NotApplicable(what)
    return value


@dataclass(frozen=True)
class Check:
    """A named question to a :class:`~lossary.doctor.case.Case`."""

    name: str
    severity: Severity
    ask: Callable[[Case], Finding | None]

    @cached_property
    def page(self) -> str:
        return inspect.getdoc(self.ask) or ""

    @property
    def summary(self) -> str:
        return self.page.partition("\n")[0]

    @property
    def searches(self) -> tuple[str, ...]:
        """What people type when they have this fault."""
        found = re.search(r"^People type:(.*?)(?:\n\s*\n|\Z)", self.page, re.DOTALL | re.MULTILINE)
        text = " ".join(found.group(1).split()) if found else ""
        return tuple(phrase.strip() for phrase in text.split(";") if phrase.strip())

    def __call__(self, case: Case) -> Finding | None:
        finding = self.ask(case)
        if finding is None:
            return None
        return replace(finding, check=self.name, severity=finding.severity or self.severity)


CHECKS: dict[str, Check] = {}
_GROUPS = (
    "scale",
    "shapes",
    "encoding",
    "values",
    "likelihood",
    "averages",
    "masks",
    "weights",
    "sequence",
    "embeddings",
    "finite",
    "gradients",
    "numerics",
    "implementation",
    "signal",
    "terms",
    "history",
)


def check(name: str, severity: Severity) -> Callable[[Callable[[Case], Finding | None]], Check]:
    """Register a function that looks at a case and returns a finding, or None when all is well."""

    def register(ask: Callable[[Case], Finding | None]) -> Check:
        CHECKS[name] = Check(name, severity, ask)
        return CHECKS[name]

    return register


def all_checks() -> dict[str, Check]:
    """Every check, cheapest groups first."""
    for group in _GROUPS:
        import_module(f"lossary.doctor.checks.{group}")
    return CHECKS


def check_of(name: str) -> Check:
    """The check of this name; else a LossError with the nearest names."""
    known = all_checks()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise LossError(f"{name!r}: no check of this name; {hint}`lossary explain` lists all")


def search(text: str) -> list[Check]:
    """Checks whose pages describe ``text``, a name or a symptom, best first."""
    known = all_checks()
    exact = [known[text]] if text in known else []
    return exact + [
        item for item in index_of(tuple(known.values())).find(text) if item not in exact
    ]
