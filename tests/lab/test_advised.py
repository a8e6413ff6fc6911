"""The table of advice: choosing on one half of the seeds, judging on the other."""

import numpy as np
import pytest

from lossary.lab import advised
from lossary.lab.metrics import find_metric

SEEDS = len(advised.SEEDS)


def test_luck_on_the_same_seeds_is_not_called_better():
    """Forty rivals that differ from ours by noise alone: the best of them is no better."""
    random = np.random.default_rng(0)
    behind, naive = [], []
    for _ in range(50):
        scores = {f"rival {k}": random.normal(1, 0.1, SEEDS) for k in range(40)}
        scores["ours"] = random.normal(1, 0.1, SEEDS)
        behind.append((scores["ours"] - advised.crossed(scores, -1)).mean())
        naive.append(scores["ours"].mean() - min(values.mean() for values in scores.values()))
    assert abs(np.mean(behind)) < 0.015
    assert np.mean(naive) > 0.02


@pytest.mark.parametrize("sign", [1, -1])
def test_a_better_rival_is_found(sign):
    ours = 1 + np.random.default_rng(1).normal(0, 0.01, SEEDS)
    best = advised.crossed({"ours": ours, "rival": ours + sign * 0.1}, sign)
    np.testing.assert_allclose(best, ours + sign * 0.1)


def test_every_loss_gets_its_best_rate_and_those_that_none_suits_are_left_out(monkeypatch):
    monkeypatch.setattr(advised, "SEEDS", (0, 1))
    monkeypatch.setattr(advised, "EPOCHS", 3)
    monkeypatch.setattr(advised, "RATES", (1e-9, 0.02))
    wine = advised.load("wine", None)
    found = advised.score_all(wine, ["cross_entropy"], find_metric("accuracy", wine.target))
    assert found["cross_entropy"].shape == (2,)
    assert found["cross_entropy"].min() > 0.7  # out of reach at the first rate
    monkeypatch.setattr(advised, "RATES", (1e30, 1e31))
    assert advised.score_all(wine, ["squared_error"], find_metric("log loss", wine.target)) == {}


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
