"""The table of advice: choosing on one half of the seeds, judging on the other."""

import numpy as np
import pytest

from lossary.lab import advised

SEEDS = len(advised.SEEDS)


def test_luck_on_the_same_seeds_is_not_called_better():
    """Forty rivals that differ from ours by noise alone: the best of them is no better."""
    random = np.random.default_rng(0)
    behind, naive = [], []
    for _ in range(50):
        scores = {f"rival {k}": random.normal(1, 0.1, (3, SEEDS)) for k in range(40)}
        scores["ours"] = random.normal(1, 0.1, (3, SEEDS))
        own, best = advised.crossed(scores, "ours", -1)
        behind.append((own - best).mean())
        means = [advised.best_rate_mean(values, -1) for values in scores.values()]
        naive.append(advised.best_rate_mean(scores["ours"], -1) - min(means))
    assert abs(np.mean(behind)) < 0.015
    assert np.mean(naive) > 0.02


@pytest.mark.parametrize("sign", [1, -1])
def test_a_better_rival_is_found_at_its_best_rate(sign):
    random = np.random.default_rng(1)
    rates = np.array([0.0, 0.3, 0.1])[:, None]
    ours = 1 + sign * rates + random.normal(0, 0.01, (3, SEEDS))
    broken = np.full((3, SEEDS), np.nan)
    broken[0] = 1.0
    own, best = advised.crossed(
        {"ours": ours, "rival": ours + sign * 0.1, "b": broken}, "ours", sign
    )
    np.testing.assert_allclose(own, ours[1])
    np.testing.assert_allclose(best, ours[1] + sign * 0.1)


def test_the_interval_allows_for_shared_rows():
    random = np.random.default_rng(2)
    mean, low, high, probability = advised._gap(random.normal(0.05, 0.02, SEEDS))
    assert low < mean < high
    assert high - low > 2 * 1.96 * 0.02 * np.sqrt(1 / SEEDS)
    assert 0 < probability < 0.05
    assert advised._gap(np.zeros(SEEDS)) == (0.0, 0.0, 0.0, 1.0)


def test_the_data_of_the_table_are_at_hand():
    for source, target, uses in advised.USES:
        data = advised.load(source, target)
        assert len(data.features) == len(data.target.values) >= 150
        assert uses
