"""Broken code that each check must catch, and correct code alike on which it must be quiet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

Pairs = tuple[Mapping[str, Mapping[str, Any]], Mapping[str, Mapping[str, Any]]]
_MAKERS: dict[str, Callable[[], Pairs]] = {}
_GROUPS = ("inputs", "labels", "averages", "weights", "gradients", "implementation", "signal")


@dataclass(frozen=True)
class Example:
    """Arguments of ``examine``, and whether the check must find something."""

    check: str
    label: str
    broken: bool
    given: Mapping[str, Any]


def cases(check: str) -> Callable[[Callable[[], Pairs]], Callable[[], Pairs]]:
    """Register a maker of (broken, correct) cases: each a mapping from a label to arguments."""

    def register(make: Callable[[], Pairs]) -> Callable[[], Pairs]:
        _MAKERS[check] = make
        return make

    return register


def examples_of(check: str) -> list[Example]:
    """All cases of one check."""
    for group in _GROUPS:
        import_module(f"lossary.doctor.cases.{group}")
    broken, correct = _MAKERS[check]()
    made = [Example(check, label, True, given) for label, given in broken.items()]
    return made + [Example(check, label, False, given) for label, given in correct.items()]
