"""What a check is: a function that raises CheckFailed, and where it applies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lossary.testing.libraries import Library
from lossary.testing.subject import Subject

Applies = Callable[[Subject], bool]
Scope = Literal["every", "eager", "differentiable", "once"]


@dataclass(frozen=True)
class Check:
    """One fact about a loss, proved by ``run(subject, library)``.

    ``scope``: on *every* library; the *eager* ones; the *differentiable* ones; or *once*, with
    NumPy, where the library makes no difference.
    """

    name: str
    group: str
    run: Callable[[Subject, Library], None]
    scope: Scope
    to: Applies

    @property
    def summary(self) -> str:
        """What is proved, in one line."""
        return (self.run.__doc__ or "").partition("\n")[0]

    def applies(self, subject: Subject, library: Library) -> bool:
        """Whether the check has something to say of this loss on this library."""
        fits = {
            "every": True,
            "eager": not library.compiled,
            "differentiable": library.differentiates,
            "once": library.name == "numpy",
        }[self.scope]
        # Step by step, JAX compiles anew for each batch size: there the laws take minutes.
        unrolled = library.name == "jax" and self.group == "laws" and "steps" in subject.layouts
        return fits and not unrolled and self.to(subject)

    def __call__(self, subject: Subject, library: Library) -> None:
        # Overflow to infinity is a right answer at hard points; NumPy would warn of it.
        with np.errstate(all="ignore"):
            self.run(subject, library)


CHECKS: list[Check] = []


def always(subject: Subject) -> bool:
    """Every loss."""
    return True


def check(group: str, scope: Scope, to: Applies = always) -> Callable[[Callable[..., None]], Check]:
    """Put a function ``check_<fact>(subject, library)`` into the public list."""

    def register(function: Callable[..., None]) -> Check:
        made = Check(function.__name__.removeprefix("check_"), group, function, scope, to)
        CHECKS.append(made)
        return made

    return register
