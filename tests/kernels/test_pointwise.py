"""Pointwise kernels against the textbook at 50 digits, and against every way arrays come."""

import inspect
import math

import mpmath
import numpy as np
import pytest

from lossary import kernels
from lossary.kernels import formulas

mp = mpmath.mp.clone()
mp.dps = 50
ONE = mp.mpf(1)


def _huber(p, t, delta):
    r = abs(p - t)
    return r * r / 2 if r <= delta else delta * (r - mp.mpf(delta) / 2)


def _binary_cross_entropy(p, t, label_smoothing=0.0, pos_weight=1.0):
    yes = t * (1 - mp.mpf(label_smoothing)) + mp.mpf(label_smoothing) / 2
    return pos_weight * yes * mp.log1p(mp.exp(-p)) + (1 - yes) * mp.log1p(mp.exp(p))


def _priced_cross_entropy(p, t, missed, raised):
    return missed * t * mp.log1p(mp.exp(-p)) + raised * (1 - t) * mp.log1p(mp.exp(p))


def _focal(p, t, gamma, alpha):
    z = p if t == 1 else -p
    share = 1 if alpha is None else (alpha if t == 1 else 1 - mp.mpf(alpha))
    return share * (1 / (1 + mp.exp(z))) ** gamma * mp.log1p(mp.exp(-z))


def _tukey(p, t, scale):
    z = min(abs(p - t) / scale, ONE)
    return mp.mpf(scale) ** 2 / 6 * (1 - (1 - z * z) ** 3)


def _binary_cross_entropy_of_probabilities(p, t, label_smoothing=0.0, pos_weight=1.0):
    yes = t * (1 - mp.mpf(label_smoothing)) + mp.mpf(label_smoothing) / 2
    return -pos_weight * yes * mp.log(p) - (1 - yes) * mp.log1p(-p)


def _symmetric_percentage_error(p, t, scale):
    return 2 * scale * abs(p - t) / (abs(p) + abs(t)) if p or t else mp.mpf(0)


def _barron(p, t, alpha, scale):
    square = ((p - t) / scale) ** 2
    limits = {2: square / 2, 0: mp.log1p(square / 2)}
    limits |= {sign * math.inf: sign * mp.expm1(sign * square / 2) for sign in (1, -1)}
    if alpha in limits:
        return limits[alpha]
    bend = abs(mp.mpf(alpha) - 2)
    return bend / alpha * mp.expm1(mp.mpf(alpha) / 2 * mp.log1p(square / bend))


def _poisson_nll(p, t, full):
    return mp.exp(p) - t * p + (mp.loggamma(t + 1) if full else 0)


def _poisson_nll_of_rates(p, t, full):
    return p - t * mp.log(p) + (mp.loggamma(t + 1) if full else 0)


def _poisson_deviance(p, t, half):
    value = p - t + (t * mp.log(t / p) if t else 0)
    return value if half else 2 * value


def _gamma_deviance(p, t, half):
    value = t / p - 1 - mp.log(t / p)
    return value if half else 2 * value


def _tweedie_deviance(p, t, power, half):
    if power in (1, 2):
        return {1: _poisson_deviance, 2: _gamma_deviance}[power](p, t, half)
    value = t ** (2 - mp.mpf(power)) / ((1 - mp.mpf(power)) * (2 - mp.mpf(power))) if t else 0
    value -= t * p ** (1 - mp.mpf(power)) / (1 - mp.mpf(power))
    value += p ** (2 - mp.mpf(power)) / (2 - mp.mpf(power))
    return value if half else 2 * value


# Textbook value of one number; the slope is differentiated numerically at 50 digits.
TEXTBOOK = {
    "squared_error": lambda p, t, half: (p - t) ** 2 / (2 if half else 1),
    "absolute_error": lambda p, t: abs(p - t),
    "percentage_error": lambda p, t, scale, floor: scale * abs(p - t) / max(abs(t), mp.mpf(floor)),
    "symmetric_percentage_error": _symmetric_percentage_error,
    "barron": _barron,
    "poisson_deviance": _poisson_deviance,
    "gamma_deviance": _gamma_deviance,
    "tweedie_deviance": _tweedie_deviance,
    "squared_logarithmic_error": lambda p, t: (mp.log1p(p) - mp.log1p(t)) ** 2,
    "huber": _huber,
    "smooth_l1": lambda p, t, beta: _huber(p, t, beta) / beta,
    "log_cosh": lambda p, t: mp.log(mp.cosh(p - t)),
    "pinball": lambda p, t, quantile: (
        quantile * (t - p) if t > p else (1 - mp.mpf(quantile)) * (p - t)
    ),
    "epsilon_insensitive": lambda p, t, epsilon: max(mp.mpf(0), abs(p - t) - epsilon),
    "charbonnier": lambda p, t, epsilon: mp.sqrt((p - t) ** 2 + mp.mpf(epsilon) ** 2),
    "pseudo_huber": lambda p, t, delta: (
        mp.mpf(delta) ** 2 * (mp.sqrt(1 + ((p - t) / delta) ** 2) - 1)
    ),
    "tukey_biweight": _tukey,
    "cauchy": lambda p, t, scale: mp.log1p(((p - t) / scale) ** 2 / 2),
    "welsch": lambda p, t, scale: -mp.expm1(-(((p - t) / scale) ** 2) / 2),
    "poisson_nll": _poisson_nll,
    "poisson_nll_of_rates": _poisson_nll_of_rates,
    "kl_divergence_of_log_probabilities": lambda p, t, axis: t * (mp.log(t or 1) - p),
    "binary_cross_entropy": _binary_cross_entropy,
    "binary_cross_entropy_of_probabilities": _binary_cross_entropy_of_probabilities,
    "real_world_weight_binary_cross_entropy": (
        lambda p, t, false_negative_cost, false_positive_cost: _priced_cross_entropy(
            p, t, false_negative_cost, false_positive_cost
        )
    ),
    "real_world_weight_multilabel_cross_entropy": (
        lambda p, t, false_negative_costs, false_positive_costs: _priced_cross_entropy(
            p, t, false_negative_costs, false_positive_costs
        )
    ),
    "binary_focal": _focal,
    "hinge_embedding": lambda p, t, margin: p if t == 1 else max(mp.mpf(0), margin - p),
    "hinge": lambda p, t, margin: max(mp.mpf(0), margin - (t or -1) * p),
    "squared_hinge": lambda p, t, margin: max(mp.mpf(0), margin - (t or -1) * p) ** 2,
    "soft_margin": lambda p, t: mp.log1p(mp.exp(-(t or -1) * p)),
}
PARAMETERS = {
    "squared_error": [{"half": False}, {"half": True}],
    "percentage_error": [{"scale": 128.0, "floor": 0.5}],
    "symmetric_percentage_error": [{"scale": 128.0}],
    "barron": [
        {"alpha": alpha, "scale": scale}
        for alpha, scale in [
            *[(alpha, 1.0) for alpha in (1.0, 2.0, 0.0, -2.0, math.inf, -math.inf, -(2.0**20))],
            *[(alpha, 0.5) for alpha in (1.0, 0.5, 2.5, -1.5, 2.0 - 2.0**-20, 2.0**-30)],
        ]
    ],
    "poisson_nll": [{"full": False}, {"full": True}],
    "poisson_nll_of_rates": [{"full": False}, {"full": True}],
    "poisson_deviance": [{"half": False}, {"half": True}],
    "gamma_deviance": [{"half": False}, {"half": True}],
    "tweedie_deviance": [
        {"power": power, "half": half}
        for power in (1.5, 1.0, 1.25, 1.75, 2.0, 2.5, 3.0, 6.0)
        for half in (False, True)
        if power == 1.5 or half == (power < 2.0)
    ],
    "huber": [{"delta": 1.0}, {"delta": 0.25}],
    "smooth_l1": [{"beta": 1.0}, {"beta": 0.5}],
    "pinball": [{"quantile": 0.5}, {"quantile": 0.125}],
    "epsilon_insensitive": [{"epsilon": 0.125}],
    "charbonnier": [{"epsilon": 1.0}, {"epsilon": 2.0**-10}],
    "pseudo_huber": [{"delta": 1.0}, {"delta": 0.25}],
    "tukey_biweight": [{"scale": 4.0}],
    "cauchy": [{"scale": 1.0}, {"scale": 0.5}],
    "welsch": [{"scale": 1.0}, {"scale": 4.0}],
    "binary_cross_entropy": [
        {"label_smoothing": 0.0, "pos_weight": 1.0},
        {"label_smoothing": 0.25, "pos_weight": 2.0},
    ],
    "real_world_weight_binary_cross_entropy": [
        {"false_negative_cost": 8.0, "false_positive_cost": 0.25},
        {"false_negative_cost": 0.0, "false_positive_cost": 1.0},
    ],
    "real_world_weight_multilabel_cross_entropy": [
        {"false_negative_costs": 8.0, "false_positive_costs": 0.25}
    ],
    "binary_focal": [
        {"gamma": 2.0, "alpha": None},
        {"gamma": 1.5, "alpha": 0.25},
        {"gamma": 0.5, "alpha": None},
        {"gamma": 0.0, "alpha": None},
    ],
    "kl_divergence_of_log_probabilities": [{"axis": -1}],
    "hinge": [{"margin": 1.0}],
    "hinge_embedding": [{"margin": 1.25}],
    "squared_hinge": [{"margin": 1.0}],
}
TARGETS = {
    **{key: [0.0, 1.0] for key in ("binary_cross_entropy", "binary_focal")},
    **{
        key: [-1.0, 1.0, 0.0]
        for key in ("hinge", "squared_hinge", "soft_margin", "hinge_embedding")
    },
    "poisson_nll": [0.0, 1.0, 3.0, 0.3, 12.5],
    "poisson_nll_of_rates": [0.0, 1.0, 3.0, 0.3, 12.5],
    "binary_cross_entropy_of_probabilities": [0.0, 1.0, 0.3],
    "kl_divergence_of_log_probabilities": [0.0, 0.3, 1.0],
    "squared_logarithmic_error": [0.0, 2.5],
    "symmetric_percentage_error": [0.0, 0.3, -2.5],
    "poisson_deviance": [0.0, 2.5, 1e6],
    "gamma_deviance": [2.5, 1e6],
    "tweedie_deviance": [2.5, 1e6],
}
PARAMETERS["binary_cross_entropy_of_probabilities"] = PARAMETERS["binary_cross_entropy"]


def _share(x):
    info = np.finfo(x.dtype)
    x = 1 / (1 + np.exp(-np.clip(x, -80, 80)))
    return np.clip(x, info.smallest_normal, 1 - info.eps / 2).astype(info.dtype)


# Numbers as predictions, where not all are: these, made from any.
DOMAIN = {
    "poisson_deviance": abs,
    "gamma_deviance": abs,
    "tweedie_deviance": abs,
    "squared_logarithmic_error": abs,
    "poisson_nll_of_rates": abs,
    "binary_cross_entropy_of_probabilities": _share,
    "kl_divergence_of_log_probabilities": lambda x: -abs(x),
}


def domain(name, predictions):
    """The predictions as this loss takes them."""
    return DOMAIN.get(name, lambda x: x)(predictions)


def columns(given, *arrays):
    """Where a loss sums over classes, there is one."""
    return [array[..., None] for array in arrays] if "axis" in given else arrays


DIGITS = {"welsch": 150, "barron": 250}
# Those of several predictions are in test_several.py.
LOSSES = sorted(
    name
    for name, _ in inspect.getmembers(formulas, inspect.isfunction)
    if len(kernels.differentiated(name)) == 1
)
CASES = [(name, given) for name in LOSSES for given in PARAMETERS.get(name, [{}])]


def _points(dtype, targets):
    magnitudes = [
        1e-12,
        1e-4,
        0.01,
        0.2,
        0.4,
        0.7,
        0.99,
        1.01,
        1.7,
        3,
        6,
        9.9,
        16.7,
        25,
        40,
        80,
        1e3,
    ]
    magnitudes += list(np.random.default_rng(0).exponential(1.5, 12))
    p, t = np.meshgrid([s * m for m in magnitudes for s in (1, -1)], targets)
    close = [(b * (1 + s * 2.0**-k), b) for b in targets for k in (6, 14, 20) for s in (1, -1) if b]
    p, t = (np.append(far, near) for far, near in zip((p, t), np.transpose(close), strict=True))
    return p.astype(dtype), t.astype(dtype)


def _ulps(got, exact, dtype):
    """The distance in units of the last place of the exact result, or of the smallest normal."""
    info = np.finfo(dtype)
    unit = max(abs(float(exact)), float(info.smallest_normal))
    return abs(mp.mpf(float(got)) - exact) / mp.mpf(float(np.spacing(dtype(unit))))


def _condition(function, p, t):
    """How many ulps of the result one ulp of the inputs is worth."""
    value = function(p, t)
    if value == 0:
        return mp.inf
    sensitivity = abs(p * mp.diff(lambda x: function(x, t), p)) + abs(
        t * mp.diff(lambda x: function(p, x), t)
    )
    return sensitivity / abs(value)


def _numba(name, p, t, given):
    kernel = kernels.find(name, "numpy")[0]
    p, t = columns(given, p, t)
    assert kernel.supports(p, t, **given) is None
    values = kernel.values(p, t, **given)
    total, slopes = kernel.value_and_grad(p, t, factor=1.0, **given)
    return values, total, slopes.reshape(values.shape)


def check_accuracy(name, given, dtype, targets, run=_numba):
    """Value and slope within 4 ulp, and one more for each ulp by which rounded inputs move them.

    ``run(name, prediction, target, parameters)`` returns values, their sum, and the slopes.
    """
    p, t = _points(dtype, targets)
    p = domain(name, p)
    values, total, slopes = run(name, p, t, given)
    pairs = [(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(p, t, strict=True)]
    exact = [TEXTBOOK[name](a, b, **given) for a, b in pairs]
    for i, (a, b) in enumerate(zip(p, t, strict=True)):
        a, b = mp.mpf(float(a)), mp.mpf(float(b))

        def loss(x, y):
            return TEXTBOOK[name](x, y, **given)

        def slope(x, y):
            return mp.diff(lambda u: loss(u, y), x)

        if abs(exact[i]) > np.finfo(dtype).max:
            assert values[i] == np.inf
            continue
        where = f"{name} {given} at prediction {p[i]!r}, target {t[i]!r}"
        off = _ulps(values[i], exact[i], dtype)
        assert off <= 4 or off <= 4 + _condition(loss, a, b), where
        steep = slope(a, b)
        if abs(steep) > np.finfo(dtype).max:
            assert slopes[i] == math.inf * mp.sign(steep), where
        elif steep == 0:
            assert slopes[i] == 0, where
        else:
            off = _ulps(slopes[i], steep, dtype)
            assert off <= 4 or off <= 4 + _condition(slope, a, b), where
    whole = mp.fsum(e for e in exact if abs(e) < np.finfo(dtype).max)
    if math.isfinite(total):
        assert _ulps(total, whole, dtype) <= 4


@pytest.mark.parametrize(("name", "given"), CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value_and_slope_are_right_to_4_ulp(name, given, dtype):
    # Differences of 1 and a far tail need more digits to be differentiated numerically.
    with mp.workdps(DIGITS.get(name, 50)):
        check_accuracy(name, given, dtype, TARGETS.get(name, [0.0, 0.3]))


COUNTS = [*range(1, 21), 50, 365, 12_345, 1e6, 1e-30, 1e-9, 1e-3, 0.05, 0.25, 0.5, 0.75, 0.9]
COUNTS += [0.999, 1.001, 1.25, 1.5, 2.5, 3.3, 7.75]


@pytest.mark.parametrize("name", ["poisson_nll", "poisson_nll_of_rates"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_part_of_the_surprise_at_a_count_cancels(name, dtype):
    steps = [0.0, 1e-9, -1e-4, 0.01, -0.1, 0.5, 0.69, 0.7, -0.69, -0.7, 2.0, -5.0, 20.0, -30.0]
    y, step = (x.ravel() for x in np.meshgrid(np.array(COUNTS, dtype), steps))
    p = (np.log(np.float64(y)) + step).astype(dtype)
    p = np.exp(p) if name.endswith("rates") else p
    values = kernels.find(name, "numpy")[0].values(p, y, full=True)
    with mp.workdps(100):  # seen from 1, a count of 1e-30 takes 30
        for got, a, b in zip(values, p, y, strict=True):
            a, b = mp.mpf(float(a)), mp.mpf(float(b))
            exact = TEXTBOOK[name](a, b, full=True)
            slope = a - b if name.endswith("rates") else a * (mp.exp(a) - b)
            rise = b * (mp.digamma(b + 1) - (mp.log(a) if name.endswith("rates") else a))
            allowed = 3 + (abs(slope) + abs(rise)) / exact  # what rounded inputs are worth
            assert _ulps(got, exact, dtype) <= allowed, (a, b)


EDGES = [np.inf, -np.inf, np.nan, 0.0, 1.0]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_infinity_and_nan_come_out_as_the_definition_has_them(name, given):
    p, t = np.meshgrid(np.array(EDGES), np.array(TARGETS.get(name, [0.0, 0.3])))
    if DOMAIN.get(name) is not _share:  # its ends are kept from it otherwise
        p = domain(name, p)
    p, t = np.ascontiguousarray(p), np.ascontiguousarray(t)
    with np.errstate(all="ignore"):
        expected = kernels.definition(name)(*columns(given, p, t), **given)
    values = kernels.find(name, "numpy")[0].values(*columns(given, p, t), **given)
    # A definition may lose a NaN to a comparison, or an infinity to a quotient; a kernel does not.
    np.testing.assert_array_equal(np.isnan(values), np.isnan(p))
    settled = ~np.isnan(p) & ~np.isnan(expected)
    np.testing.assert_allclose(values[settled], expected[settled], rtol=1e-14)


@pytest.mark.parametrize(("name", "given"), CASES)
def test_kernel_and_definition_agree(name, given):
    from lossary.contract import contract_of

    generator = np.random.default_rng(1)
    p = generator.normal(0, 2, 5000)
    t = generator.choice(TARGETS.get(name, [0.0, 0.3, -1.5]), 5000)
    p, t = columns(given, domain(name, p), t)
    assert set(given) <= set(contract_of(name.partition("_of_")[0]).parameters)
    expected = kernels.definition(name)(p, t, **given)
    np.testing.assert_allclose(
        kernels.find(name, "numpy")[0].values(p, t, **given), expected, rtol=1e-12, atol=1e-14
    )


def test_no_parameter_of_a_loss_is_mistaken_for_the_calls_own():
    for name, _ in kernels.manifest():
        definition = kernels.definition(name)  # there is one
        assert not {"factor", "weights"} & set(inspect.signature(definition).parameters), name


TINY = {"float32": 1e-40, "float64": 1e-310}  # not normal
ENDS = {
    "probabilities": [0.0, 1.0, -0.0, 0.25, "tiny", "smallest"],
    "rates": [0.0, 2.0, -1.0, "tiny", "smallest"],
    "log_probabilities": [0.0, -1e4, -math.inf, "tiny"],
}


@pytest.mark.parametrize("name", [name for name in LOSSES if "_of_" in name])
@pytest.mark.parametrize("dtype", TINY)
def test_the_ends_of_a_form_are_the_definitions_in_value_and_slope(name, dtype):
    import torch

    from lossary import Loss

    loss, _, way = name.partition("_of_")
    known = {"tiny": TINY[dtype], "smallest": float(np.finfo(dtype).smallest_normal)}
    p, t = np.meshgrid([known.get(end, end) for end in ENDS[way]], TARGETS[name])
    given = PARAMETERS.get(name, [{}])[0]
    p, t = columns(given, *(torch.tensor(x.ravel().astype(dtype)) for x in (p, t)))
    found = []
    for implementation in ("numba", "definition"):
        leaf = p.clone().requires_grad_()
        kinds = {"predictions": way, "implementation": implementation}
        values = Loss(loss, **kinds, reduction="none", **given)(leaf, t)
        values.sum().backward()
        found.append((values.detach(), leaf.grad))
    torch.testing.assert_close(*found, rtol=2e-6, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("classes", [1, 5, 3000])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_rows_of_log_probabilities_are_the_definitions(classes, library):
    from lossary import Loss
    from lossary.testing import library_of

    generator = np.random.default_rng(2)
    x = np.log(generator.dirichlet(np.ones(classes), (7, 60)))
    t = generator.dirichlet(np.ones(classes), (7, 60))
    weights = generator.uniform(0.5, 2, (7, 60))
    weights[2, 3] = 0
    home, found = library_of(library), []
    for implementation, absent in (("numba", np.nan), ("definition", 0.0)):
        x[2, 3] = absent
        arrays = home.arrays({"prediction": x.copy(), "target": t, "weights": weights})
        clean = {name: array[:2] for name, array in arrays.items() if name != "weights"}
        loss = Loss("kl_div", reduction="sum", implementation=implementation)
        value, slope = loss.value_and_grad(**arrays)
        found.append([home.numpy(each) for each in (value, slope, loss.values(**clean))])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-14)
