"""Advice follows from contracts and the target: each kind of data gets losses of the right kind."""

import numpy as np
import pytest

from lossary import advise
from lossary.advice import describe
from lossary.contract import (
    CONVEX,
    REGISTRY,
    LossError,
    PerElement,
    Real,
    contract_of,
    elicits,
    loss,
)
from lossary.lab.metrics import find_metric
from lossary.xp import namespace

RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(size=400)
BINARY = RANDOM.random(400) < 0.4
LABELS = (RANDOM.random((100, 3)) < 0.5).astype(int)
CLASSES = np.array(list("abc"))[RANDOM.integers(0, 3, 400)]


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (NORMAL, "real"),
        (RANDOM.poisson(3, 400), "count"),
        (RANDOM.integers(0, 10, 400), "classes"),
        (RANDOM.integers(20, 400, 400), "real"),
        (RANDOM.integers(-30, 30, 400), "real"),
        (BINARY, "binary"),
        (BINARY.astype(float), "binary"),
        (np.array(["no", "yes"] * 10), "binary"),
        (CLASSES, "classes"),
        (LABELS, "multi-label"),
    ],
)
def test_the_task_is_inferred(values, task):
    assert describe(values).task == task


def first(values, **use):
    return contract_of(advise(values, **use).candidates[0].name)


def test_each_use_gets_a_loss_that_elicits_it():
    assert first(NORMAL).fact("elicits").value == "mean"
    assert first(NORMAL, use="median").fact("elicits").value == "median"
    quantile = advise(NORMAL, use="quantile=0.9")
    assert contract_of(quantile.candidates[0].name).fact("elicits").value == "quantile"
    assert quantile.candidates[0].parameters == {"quantile": 0.9}
    assert quantile.metric == "pinball loss at 0.9"
    assert first(BINARY).has("strictly proper")
    assert first(CLASSES, use="probability").has("strictly proper")
    assert first(CLASSES).target.name == "classes"


def test_costs_enter_the_loss():
    found = advise(BINARY, use="cost=[[0,1],[5,0]]").candidates[0]
    assert found.parameters == {"false_negative_cost": 5.0, "false_positive_cost": 1.0}
    assert "5.0" in found.calls["PyTorch"]


def test_numbers_seen_are_in_the_reason():
    heavy = advise(RANDOM.standard_t(2, 2000))
    robust = next(c for c in heavy.candidates if contract_of(c.name).has("lipschitz"))
    assert f"{heavy.seen['share far out']:.1%}" in robust.why
    rare = advise(RANDOM.choice(np.array(list("abc")), 1000, p=[0.9, 0.07, 0.03]))
    assert any("class_counts" in c.calls["PyTorch"] for c in rare.candidates)
    spread = advise(RANDOM.negative_binomial(1, 0.1, 2000), task="count")
    assert any(len(contract_of(c.name).predictions) > 1 for c in spread.candidates)
    assert first(RANDOM.lognormal(size=1000)).target.interval.low == 0


def test_zeros_bounds_and_order_are_seen():
    zeros = np.where(RANDOM.random(1000) < 0.6, 0, RANDOM.poisson(4, 1000))
    assert "where Poisson's law expects" in advise(zeros, task="count").candidates[0].why
    skewed = np.where(RANDOM.random(1000) < 0.6, 0, RANDOM.lognormal(size=1000))
    most = advise(skewed).candidates[0]
    assert 0.0 in contract_of(most.name).target.interval
    assert "60" in most.why or "% are 0" in most.why
    share = advise(RANDOM.beta(0.5, 0.5, 400)).candidates[0]
    assert contract_of(share.name).inputs["prediction"].name == "logit"
    assert share.estimates == "the mean"
    assert (
        contract_of(advise(1e3 * RANDOM.beta(2, 2, 400)).candidates[0].name).target.name == "real"
    )
    assert "--task real" in advise(RANDOM.integers(1, 6, 400)).notes[0]
    assert advise(CLASSES).notes == ()


def test_a_use_of_several_labels_has_a_metric_of_several_labels():
    for use in ("probability", "ranking"):
        found = advise(LABELS, use=use)
        assert find_metric(found.metric, describe(LABELS)).name == found.metric


def test_a_new_loss_is_advised_without_new_code():
    before = dict(REGISTRY)

    @loss(properties={CONVEX, elicits("median")}, aliases=tuple(f"brand_new_{k}" for k in range(9)))
    def brand_new(prediction: Real, target: Real) -> PerElement:
        """The absolute error by another name."""
        return namespace(prediction, target).abs(prediction - target)

    try:
        assert advise(NORMAL, use="median").candidates[0].name == "brand_new"
    finally:
        REGISTRY.clear()
        REGISTRY.update(before)


@pytest.mark.parametrize(
    ("values", "use", "pattern"),
    [
        (NORMAL, "probability", "choose mean, median or quantile"),
        (BINARY, "mean", "choose probability, ranking or cost"),
        (NORMAL, "quantile=2", "level between 0 and 1"),
        (NORMAL, "speed", "it can be mean, median"),
        (BINARY, "cost=[[0,1]]", "matrix of 2 x 2 costs"),
        (BINARY, "cost=nonsense", "matrix of 2 x 2 costs"),
        (LABELS, "cost=[[0,1],[5,0]]", "several labels per row"),
        (np.array([1.0, np.nan, 2.0]), None, r"1 of 3 values are missing or not finite \(rows 2\)"),
        (np.ones(9), None, "every value|two classes"),
        (np.array([]), None, "has no rows"),
        (np.array(["2020-01-01"] * 3, dtype="datetime64[D]"), None, "holds dates"),
    ],
)
def test_bad_targets_and_uses_get_one_line(values, use, pattern):
    with pytest.raises(LossError, match=pattern) as caught:
        advise(values, use=use)
    assert "\n" not in str(caught.value)
