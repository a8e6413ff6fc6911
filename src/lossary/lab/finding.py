"""One published sentence about losses, and what came of it here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lossary.lab.statistics import difference
from lossary.lab.words import settled


@dataclass(frozen=True)
class Finding:
    """One published sentence and what came of it here.

    ``published``: the sign, or the range, that the ``difference`` should have; ``low`` to ``high``
    is its 95 % interval; ``probability`` that it has it. ``here``: the numbers compared.
    """

    topic: str
    claim: str
    source: str
    published: str
    difference: float
    low: float
    high: float
    probability: float
    here: str

    @property
    def holds(self) -> bool:
        """Whether the published sign is the likelier one here."""
        return self.probability > 0.5


def against(
    topic: str,
    claim: str,
    source: str,
    better: np.ndarray,
    worse: np.ndarray,
    *,
    sign: int = 1,
    slack: float = 0.0,
) -> Finding:
    """``better`` above ``worse`` (sign +1) or below it (-1), but for ``slack``."""
    found = difference(sign * better + slack, sign * worse)
    mean, low, high = (sign * (value - slack) for value in (found.mean, found.low, found.high))
    published = f"above {0 - slack:g}" if sign > 0 else f"below {slack:g}"
    here = f"{better.mean():.4g} against {worse.mean():.4g}"
    first, last = sorted((low, high))
    return Finding(topic, claim, source, published, mean, first, last, found.positive, here)


def show(item: Finding) -> None:
    """Print the claim, whether it holds, and the numbers."""
    scale = max(abs(item.low), abs(item.high))
    measured, low, high = (
        f"{settled(value, scale):+.3g}" for value in (item.difference, item.low, item.high)
    )
    mark = "holds" if item.holds else "DOES NOT HOLD HERE"
    print(f"{item.topic}: {item.claim}: {mark}")
    print(
        f"    published {item.published}; measured {measured}, 95 % interval {low} to {high}, "
        f"probability {item.probability:.3f} ({item.here})",
        flush=True,
    )
