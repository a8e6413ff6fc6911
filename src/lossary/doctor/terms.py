"""The terms of a combined loss, as logged or as measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossary.contract import LossError


@dataclass(frozen=True)
class Term:
    """One term: its value, how it was reduced and over how many values, its gradient's norm."""

    value: float
    reduction: str | None = None
    size: int | None = None
    gradient: float | None = None  # the norm of its gradient by what the terms share


def terms_of(given: Any) -> dict[str, Term]:
    """Terms from a mapping of names to :class:`Term`, numbers, or (value, gradient) pairs."""
    if not isinstance(given, Mapping):
        raise LossError("terms: give a mapping from each term's name to its value or a doctor.Term")
    terms = {}
    for name, item in given.items():
        if isinstance(item, Term):
            terms[name] = item
        elif isinstance(item, (tuple, list)) and len(item) == 2:
            norm = float(np.linalg.norm(np.asarray(item[1], dtype=np.float64)))
            terms[name] = Term(float(item[0]), gradient=norm)
        else:
            terms[name] = Term(float(item))
    return terms
