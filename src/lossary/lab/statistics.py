"""Paired differences between losses over seeds: intervals, probabilities, and correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lossary.lab.need import need


@dataclass(frozen=True)
class Difference:
    """A minus B over paired seeds.

    ``low`` to ``high``: 95 % interval of the mean by paired bootstrap. ``p``: two-sided, by the
    t-test corrected for overlapping training parts; ``corrected``: the same after Holm.
    ``positive``: share of bootstrap means above zero.
    """

    mean: float
    low: float
    high: float
    p: float
    positive: float
    corrected: float = float("nan")


def difference(
    a: np.ndarray, b: np.ndarray, *, overlap: float = 0.2 / 0.64, seed: int = 0
) -> Difference:
    """Compare paired scores (n,). ``overlap``: test rows over training rows of each seed.

    Seeds share rows, so plain tests find too much: the variance grows by ``overlap`` (Nadeau and
    Bengio 2003, doi:10.1023/A:1024068626366).
    """
    stats = need("scipy.stats")
    gaps = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    gaps = gaps[np.isfinite(gaps)]
    if len(gaps) < 2:
        mean = float(gaps.mean()) if len(gaps) else float("nan")
        return Difference(mean, float("nan"), float("nan"), 1.0, float("nan"))
    mean, spread = float(gaps.mean()), float(gaps.std(ddof=1))
    if spread == 0:
        same = mean == 0
        return Difference(mean, mean, mean, 1.0 if same else 0.0, 0.5 if same else float(mean > 0))
    means = stats.bootstrap(
        (gaps,), np.mean, n_resamples=4999, method="percentile", rng=np.random.default_rng(seed)
    )
    t = mean / (spread * np.sqrt(1 / len(gaps) + overlap))
    p = float(2 * stats.t.sf(abs(t), len(gaps) - 1))
    interval = means.confidence_interval
    draws = means.bootstrap_distribution
    positive = float((draws > 0).mean() + (draws == 0).mean() / 2)
    return Difference(mean, float(interval.low), float(interval.high), p, positive)


def holm(p: np.ndarray) -> np.ndarray:
    """P-values corrected for their number (Holm 1979): the smallest times n, the next times n
    - 1, ...
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    scaled = p[order] * (len(p) - np.arange(len(p)))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return corrected


def differences(scores: dict[str, np.ndarray], reference: str) -> dict[str, Difference]:
    """Every loss against ``reference``, Holm-corrected together."""
    from dataclasses import replace

    found = {
        name: difference(values, scores[reference])
        for name, values in scores.items()
        if name != reference
    }
    corrected = holm(np.array([item.p for item in found.values()]))
    return {
        name: replace(item, corrected=float(c))
        for (name, item), c in zip(found.items(), corrected, strict=True)
    }
