"""Divergences of logits against the textbook at 60 digits and against the definition."""

import mpmath
import numpy as np
import pytest

from lossary import kernels
from lossary.contract import contract_of

mp = mpmath.mp.clone()
mp.dps = 60


def _kullback_leibler(z, t):
    total = mp.log(mp.fsum(mp.exp(v) for v in z))
    return mp.fsum(w * (mp.log(w) - (v - total)) for v, w in zip(z, t, strict=True) if w)


def _jensen_shannon(z, t, beta):
    total = mp.log(mp.fsum(mp.exp(v) for v in z))
    p = [mp.exp(v - total) for v in z]
    m = [beta * w + (1 - beta) * q for w, q in zip(t, p, strict=True)]
    first = mp.fsum(w * mp.log(w / a) for w, a in zip(t, m, strict=True) if w)
    return beta * first + (1 - beta) * mp.fsum(q * mp.log(q / a) for q, a in zip(p, m, strict=True))


CASES = {
    "kl_divergence": (_kullback_leibler, {"axis": -1}),
    "jensen_shannon": (
        lambda z, t: _jensen_shannon(z, t, mp.mpf("0.25")),
        {"axis": -1, "beta": 0.25},
    ),
}


@pytest.mark.parametrize("loss", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value_and_slope(loss, dtype):
    textbook, given = CASES[loss]
    kernel = kernels.find(loss, "numpy")[0]
    generator = np.random.default_rng(4)
    for classes in (2, 9, 600):
        z = generator.normal(0, 3, (2, classes)).astype(dtype)
        t = generator.dirichlet(np.ones(classes), 2).astype(dtype)
        t[0, 0] = 0
        values = kernel.values(z, t, **given)
        _, gradient = kernel.value_and_grad(z, t, factor=1.0, **given)
        eps = np.finfo(dtype).eps
        for row in range(2):
            exact_z = [mp.mpf(float(v)) for v in z[row]]
            exact_t = [mp.mpf(float(v)) for v in t[row]]
            exact = textbook(exact_z, exact_t)
            assert abs(mp.mpf(float(values[row])) - exact) <= 4 * eps * abs(exact)
            for k in range(min(classes, 5)):

                def along(x, k=k, z=exact_z, t=exact_t):
                    return textbook([*z[:k], x, *z[k + 1 :]], t)

                slope = mp.diff(along, exact_z[k])
                terms = max(abs(slope), float(t[row, k]), 1 / classes)
                assert abs(mp.mpf(float(gradient[row, k])) - slope) <= 8 * eps * terms


@pytest.mark.parametrize("loss", CASES)
def test_absent_rows_and_impossible_classes(loss):
    given = CASES[loss][1]
    kernel = kernels.find(loss, "numpy")[0]
    generator = np.random.default_rng(5)
    z = generator.normal(size=(6, 40))
    t = generator.dirichlet(np.ones(40), 6)
    t[0] = np.eye(40)[3]
    z[1, 2], t[1, 2] = -np.inf, 0.0
    z[2, 2] = -np.inf
    with np.errstate(all="ignore"):
        expected = contract_of(loss).compute(z, t, **given)
    np.testing.assert_allclose(kernel.values(z, t, **given), expected, rtol=1e-12)
    z[4], t[5] = np.nan, np.nan
    weights = np.array([1.0, 2.0, 0.0, 1.0, 0.0, 0.0])
    value, gradient = kernel.value_and_grad(z, t, factor=0.5, weights=weights, **given)
    np.testing.assert_allclose(value, 0.5 * (weights * expected)[[0, 1, 3]].sum(), rtol=1e-12)
    assert not gradient[[2, 4, 5]].any() and np.isfinite(gradient).all()
