"""Differences are paired, honest about overlap, corrected, and may be none."""

import numpy as np
import pytest

from lossary.advice import describe
from lossary.lab.cell import Cell
from lossary.lab.metrics import View, find_metric
from lossary.lab.statistics import difference, differences, holm
from lossary.lab.sweep import in_words, sensitivity
from lossary.lab.terminal import show
from lossary.lab.verdict import judge
from lossary.lab.words import listed, mean_and_spread, number


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])


def test_pairing_finds_what_the_spread_would_hide():
    random = np.random.default_rng(0)
    seed = random.normal(0.9, 0.05, 20)
    found = difference(seed + 0.01 + random.normal(0, 0.002, 20), seed)
    assert found.low > 0.008
    assert found.high < 0.012
    assert found.p < 1e-6
    assert found.positive == 1


def test_no_difference_is_rarely_called_one():
    """Of 200 comparisons of equals, at most some 5 % have p below 0.05."""
    random = np.random.default_rng(1)
    below = [
        difference(*random.normal(size=(2, 10)), seed=k, overlap=0.0).p < 0.05 for k in range(200)
    ]
    assert sum(below) <= 18


def test_overlap_makes_the_test_stricter():
    gaps = np.random.default_rng(2).normal(0.5, 1, 20)
    assert difference(gaps, 0 * gaps).p > difference(gaps, 0 * gaps, overlap=0.0).p


def test_equal_constant_and_single_scores():
    same = difference(np.ones(5), np.ones(5))
    assert (same.p, same.mean, same.positive) == (1.0, 0.0, 0.5)
    assert difference(np.ones(5) + 1, np.ones(5)).p == 0.0
    assert difference(np.ones(1), np.zeros(1)).p == 1.0


@pytest.mark.parametrize(("metric", "best"), [("RMSE", "low"), ("R2", "high")])
def test_the_verdict_orders_by_the_metrics_sense(metric, best):
    target = describe(np.arange(30) * 0.5)
    random = np.random.default_rng(3)
    noise = random.normal(0, 0.01, 20)
    scores = {"low": 0.2 + noise, "high": 0.8 + noise * 0.9, "failed": np.full(20, np.nan)}
    verdict = judge(find_metric(metric, target), scores, {"constant": np.full(20, 0.5)})
    assert verdict["order"][0] == best
    assert verdict["order"][-1] == "failed"
    assert verdict["sentences"][0].startswith(f"{best} is best in {metric}")
    assert "0.6 better than" in verdict["sentences"][1]
    assert set(differences({k: scores[k] for k in ("low", "high")}, best)) == {"low", "high"} - {
        best
    }


def test_equals_get_no_difference_found_and_losers_a_warning():
    target = describe(np.array(["a", "b"] * 20))
    random = np.random.default_rng(4)
    scores = {name: random.normal(0.5, 0.05, 5) for name in "ab"}
    verdict = judge(find_metric("accuracy", target), scores, {"constant": np.full(5, 0.9)})
    text = " ".join(verdict["sentences"])
    assert "No difference found" in text
    assert "no loss learnt anything" in text
    assert "5 seeds show large differences only" in text


def test_words_hold_digits_that_mean_something():
    assert number(-0.0) == "0"
    assert number(-8.67e-18, scale=0.97) == "0"
    assert number(-8.67e-18) == "-8.67e-18"
    assert number(-2e-07, scale=0.97) == "0"
    assert number(-2e-04, scale=54.6) == "0"
    assert number(-0.00833, scale=0.97) == "-0.00833"
    assert number(2e-07, scale=0.002) == "2e-07"
    assert number(0.020833) == "0.0208"
    assert number(float("nan")) == "-"
    assert mean_and_spread([0.0051, 0.0049]) == "0.00500 ±0.00014"
    assert mean_and_spread([1e-17, -1e-17]) == "0.000 ±0.000"
    assert mean_and_spread([0.97, None]) == "- (1 failed)"
    assert mean_and_spread([54.62]) == "54.62"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_equal_scores_are_said_to_be_equal_never_minus_zero():
    target = describe(np.array(["a", "b"] * 20))
    same = np.linspace(0.9, 0.99, 10)
    shifted = same + np.where(np.arange(10) % 2, 1e-17, -1e-17)
    for other in (same, shifted):
        verdict = judge(find_metric("accuracy", target), {"a": same, "b": other}, {})
        text = " ".join(verdict["sentences"])
        assert "No difference found in accuracy between a and b" in text
        assert "reached the same accuracy with every seed" in text
        assert "-0" not in text


def test_a_cost_may_be_decided_by_probability():
    """At costs 1 and 5 the probability that tips the decision is 1/6, not 1/2."""
    target = describe(np.array([0, 1] * 20))
    view = View(
        np.array([0, 1, 1]), decision=np.array([0, 0, 1]), probability=np.array([0.1, 0.2, 0.9])
    )
    plain = find_metric("mean cost [[0, 1], [5, 0]]", target)
    assert plain(view) == pytest.approx(5 / 3)
    assert find_metric("mean cost [[0, 1], [5, 0]] by probability", target)(view) == 0


def sweep(scores, metric="accuracy"):
    """What a sweep of delta over values with these scores per seed says."""
    target = describe(np.arange(30) * 0.5 if metric == "RMSE" else np.array(["a", "b"] * 20))
    made = [Cell("huber", {}, (0, 1), purpose=f"sweep delta={value:g}") for value in scores]
    results = {
        cell.key: {"best": {metric: list(values)}}
        for cell, values in zip(made, scores.values(), strict=True)
    }
    (item,) = sensitivity(made, results, find_metric(metric, target), lambda cell: cell.key)
    return item, in_words(metric, item)


def test_a_sweep_is_judged_by_pairs_of_seeds_not_by_their_spread():
    """Seeds differ by far more than the values do: only pairing can tell flat from sharp."""
    random = np.random.default_rng(5)
    seeds = random.normal(0.8, 0.1, 10)
    noise = random.normal(0, 0.002, (3, 10))
    item, words = sweep(
        {0.5: seeds + noise[0], 1.0: seeds + 0.02 + noise[1], 2.0: seeds + noise[2]}
    )
    assert (item["verdict"], item["best"]) == ("sharp", 1.0)
    gap = item["against the best"]["0.5"]
    assert gap["low"] < gap["mean"] < gap["high"] < -0.015
    assert "a difference was found to 0.5 and 2" in words
    assert "95 % interval 0.01" in words
    item, words = sweep({0.5: seeds + noise[0], 1.0: seeds + noise[1], 2.0: seeds + noise[2]})
    assert item["verdict"] == "flat"
    assert "no difference found between the values" in words


def test_a_sweep_of_errors_prefers_the_lowest_and_tells_what_failed():
    item, words = sweep(
        {0.5: np.linspace(2, 3, 10), 1.0: np.linspace(1, 2, 10), 2.0: [None] * 10}, "RMSE"
    )
    assert (item["verdict"], item["best"], item["scores"][2]) == ("sharp", 1.0, None)
    assert "not judged at 2; delta=0.5 is 1 behind" in words
    item, words = sweep({1.0: [None] * 3, 2.0: [None] * 3})
    assert item["verdict"] == "not judged"
    assert words == "No value of delta gave outputs that accuracy can judge."


def test_differences_are_kept_without_the_noise_of_rounding():
    target = describe(np.array(["a", "b"] * 20))
    scores = np.array([0.972222, 0.980556, 0.972222, 0.980556])
    other = scores + np.array([3e-7, -5e-7, 0, 2e-7])
    item = judge(find_metric("accuracy", target), {"a": scores, "b": other}, {})["differences"]
    (gap,) = item.values()
    assert (gap["mean"], gap["low"], gap["high"]) == (0, 0, 0)


def test_at_eighty_columns_names_fold_and_two_metrics_fit(capsys):
    names = ["accuracy", "balanced accuracy", "log loss", "Brier"]
    loss = "partially_huberised_cross_entropy:tau=2.0"
    scores = {name: [0.958, 0.96] for name in names}
    row = {"best": scores, "rate": 0.003, "terms": {}}
    table = {"order": [loss], "losses": {loss: row}, "sentences": []}
    account = {
        "metric": {"name": "accuracy"},
        "metrics": dict.fromkeys(names, True),
        "data": {"name": "d", "rows": 9, "columns": ["a"], "task": "classes", "target": "y"},
        "seeds": 2,
        "plan": {"epochs": 3},
        "tables": {"as is": table},
        "baselines": {"constant: share of each class": scores},
    }
    show(account, 80)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "balanced accuracy" in said
    assert "In the report also: log loss, Brier." in said
