"""Boosting objectives trained for real: LightGBM, XGBoost and scikit-learn, on real data."""

import jax
import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss, mean_absolute_error
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.svm import LinearSVC

from lossary import LossError, boosting
from lossary.boosting import objective, scorer

QUIET = {
    "verbosity": -1,
    "num_threads": 1,
    "deterministic": True,
    "seed": 0,
    "boost_from_average": False,
}


@pytest.fixture(scope="module")
def cancer():
    return train_test_split(*load_breast_cancer(return_X_y=True), random_state=0)


@pytest.fixture(scope="module")
def diabetes():
    return train_test_split(*load_diabetes(return_X_y=True), random_state=0)


def trained(chosen, train, target, rounds=60, **options):
    data = lightgbm.Dataset(train, target)
    return lightgbm.train({**QUIET, "objective": chosen, **options}, data, rounds)


def test_equals_lightgbm_binary(cancer):
    train, test, target, _ = cancer
    ours = trained(objective("binary_cross_entropy"), train, target)
    theirs = trained("binary", train, target)
    np.testing.assert_array_equal(
        ours.predict(test, raw_score=True), theirs.predict(test, raw_score=True)
    )


def test_equals_lightgbm_regression_with_weights(diabetes):
    train, test, target, _ = diabetes
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(target))
    models = [
        lightgbm.train(
            {**QUIET, "objective": chosen}, lightgbm.Dataset(train, target, weight=weight), 60
        )
        for chosen in (objective("half_squared_error"), "regression")
    ]
    ours, theirs = (model.predict(test) for model in models)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_equals_lightgbm_multiclass():
    """LightGBM multiplies its diagonal Hessian by K / (K - 1); with that factor we are equal."""
    train, target = load_iris(return_X_y=True)
    ours = objective("cross_entropy")

    def factored(scores, data):
        gradient, hessian = ours(scores, data)
        return gradient, 1.5 * hessian

    a = trained(factored, train, target, 20, num_class=3).predict(train, raw_score=True)
    b = trained("multiclass", train, target, 20, num_class=3).predict(train, raw_score=True)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_focal_learns_breast_cancer(cancer):
    train, test, target, truth = cancer
    focal = objective("binary_focal", gamma=2.0)
    data = lightgbm.Dataset(train, target, init_score=focal.init_score(target))
    held = lightgbm.Dataset(test, truth, init_score=np.full(len(truth), focal.initial(target)))
    history = {}
    model = lightgbm.train(
        {**QUIET, "objective": focal, "metric": "none"},
        data,
        60,
        valid_sets=[held],
        feval=focal.lightgbm_metric,
        callbacks=[lightgbm.record_evaluation(history)],
    )
    raw = model.predict(test, raw_score=True) + focal.initial(target)
    assert np.mean((focal.link(raw) > 0.5) == truth) > 0.92
    curve = history["valid_0"]["binary_focal"]
    assert curve[-1] < 0.5 * curve[0]
    assert curve[-1] == pytest.approx(focal.value(truth, raw), rel=1e-6)


@pytest.mark.parametrize("name", ["absolute_error", "huber", "log_cosh", "pinball"])
def test_robust_losses_learn_diabetes(diabetes, name):
    """Straight and nearly straight losses take steps of the right size, too."""
    train, test, target, truth = diabetes
    ours = objective(name)
    data = lightgbm.Dataset(train, target, init_score=ours.init_score(target))
    model = lightgbm.train({**QUIET, "objective": ours}, data, 100)
    baseline = mean_absolute_error(truth, np.full(len(truth), np.median(target)))
    error = mean_absolute_error(truth, model.predict(test) + ours.initial(target))
    assert error < 0.85 * baseline


def test_poisson_on_xgboost(diabetes):
    train, test, target, truth = diabetes
    ours = objective("poisson_nll")
    data = xgboost.DMatrix(train, target, base_margin=ours.init_score(target))
    held = xgboost.DMatrix(test, truth, base_margin=np.full(len(truth), ours.initial(target)))
    history = {}
    model = xgboost.train(
        {"base_score": 0.0, "disable_default_eval_metric": 1, "nthread": 1, "max_depth": 3},
        data,
        40,
        obj=ours,
        custom_metric=ours.xgboost_metric,
        evals=[(data, "train")],
        evals_result=history,
        verbose_eval=False,
    )
    assert history["train"]["poisson_nll"][-1] < history["train"]["poisson_nll"][0]
    rate = ours.link(model.predict(held, output_margin=True))
    assert mean_absolute_error(truth, rate) < mean_absolute_error(
        truth, np.full(len(truth), target.mean())
    )


def test_scikit_learn_interfaces(cancer):
    train, test, target, truth = cancer
    focal, weight = objective("binary_focal"), np.ones(len(cancer[2]))
    light = lightgbm.LGBMClassifier(objective=focal, n_estimators=30, verbosity=-1, n_jobs=1)
    light.fit(train, target, sample_weight=weight)
    assert np.mean((light.predict(test, raw_score=True) > 0) == truth) > 0.9
    extreme = xgboost.XGBClassifier(objective=focal, n_estimators=30, n_jobs=1)
    extreme.fit(train, target, sample_weight=weight)
    assert np.mean((extreme.predict(test, output_margin=True) > 0) == truth) > 0.9


@pytest.mark.parametrize(
    ("name", "statistic"),
    [
        ("squared_error", np.mean),
        ("absolute_error", np.median),
        ("poisson_nll", lambda y: np.log(np.mean(y))),
    ],
)
def test_initial_score_is_the_elicited_statistic(name, statistic):
    target = np.array([0.0, 1.0, 1.0, 4.0, 9.0])
    assert objective(name).initial(target) == pytest.approx(statistic(target), abs=1e-9)


def test_initial_scores_of_classes_are_log_priors():
    target = np.repeat([0, 1, 2], [10, 30, 60])
    scores = objective("cross_entropy").initial(target)
    np.testing.assert_allclose(objective("cross_entropy").link(scores), [0.1, 0.3, 0.6], atol=1e-6)


@pytest.mark.parametrize("name", ["binary_focal", "cross_entropy", "squared_error", "poisson_nll"])
def test_derivatives_are_right(name):
    """Against central differences, on both engines."""
    wide = jax.config.jax_enable_x64
    generator = np.random.default_rng(1)
    ours = objective(name)
    raw = generator.normal(size=(6, 3) if ours.by_class else 6)
    target = generator.integers(0, 2, 6).astype(float)
    arrays = ours._arrays(target, raw, None)
    step = 1e-4
    for engine in (boosting._by_torch, boosting._by_jax):
        gradient, hessian = engine(ours._summed, arrays[1], arrays[0], ours.by_class)
        for index in np.ndindex(*raw.shape):
            shifted = []
            for sign in (1, 0, -1):
                moved = raw.copy()
                moved[index] += sign * step
                shifted.append(float(ours._summed(moved, arrays[0])))
            high, middle, low = shifted
            assert gradient[index] == pytest.approx((high - low) / (2 * step), rel=1e-5, abs=1e-7)
            second = (high - 2 * middle + low) / step**2
            assert hessian[index] == pytest.approx(second, rel=1e-3, abs=1e-5)
    assert jax.config.jax_enable_x64 is wide  # as found


def test_hessians_are_floored():
    _, hessian = objective("binary_focal")(np.array([1.0, 0.0]), np.array([40.0, 3.0]))
    assert hessian.min() >= 1e-6


def test_scorers():
    inputs, target = load_breast_cancer(return_X_y=True)
    labels = np.array(["benign", "malignant"])[target]  # classes need not be numbers
    model = LogisticRegression(max_iter=10000).fit(inputs, labels)
    expected = -log_loss(target, model.predict_proba(inputs)[:, 1])
    assert scorer("binary_cross_entropy")(model, inputs, labels) == pytest.approx(
        expected, rel=1e-9
    )
    assert scorer("cross_entropy")(model, inputs, labels) == pytest.approx(expected, rel=1e-9)
    svm = LinearSVC().fit(inputs / inputs.max(axis=0), target)
    margins = svm.decision_function(inputs / inputs.max(axis=0)) * (2 * target - 1)
    assert scorer("hinge")(svm, inputs / inputs.max(axis=0), target) == pytest.approx(
        -np.maximum(0, 1 - margins).mean(), rel=1e-9
    )
    inputs, target = load_diabetes(return_X_y=True)
    scores = cross_val_score(LinearRegression(), inputs, target, scoring=scorer("absolute_error"))
    expected = cross_val_score(
        LinearRegression(), inputs, target, scoring="neg_mean_absolute_error"
    )
    np.testing.assert_allclose(scores, expected)


def test_bad_input_says_what_to_do():
    with pytest.raises(LossError, match="one prediction, one target"):
        objective("triplet")
    with pytest.raises(LossError, match="did you mean"):
        objective("binry_focal")
    with pytest.raises(LossError, match="3 sample weights came for 2 targets"):
        objective("squared_error")(np.zeros(2), np.zeros(2), np.ones(3))
