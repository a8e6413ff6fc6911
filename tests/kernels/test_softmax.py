"""Softmax cross-entropy against the textbook, at its tails, and in every way targets come."""

import mpmath
import numpy as np
import pytest

from lossary import kernels
from lossary.contract import LossError, contract_of

mp = mpmath.mp.clone()
mp.dps = 100
KERNEL = kernels.find("cross_entropy", "numpy")[0]


def textbook(logits, target, smoothing=0.0, class_weights=None):
    """Value and gradient of one row; ``target`` is a list of weights per class."""
    z = [mp.mpf(float(v)) for v in logits]
    n = len(z)
    weights = [1] * n if class_weights is None else [mp.mpf(float(w)) for w in class_weights]
    q = [
        w * ((1 - mp.mpf(smoothing)) * mp.mpf(float(t)) + mp.mpf(smoothing) / n)
        for w, t in zip(weights, target, strict=True)
    ]
    powers = [mp.exp(v) for v in z]
    whole, mass = mp.fsum(powers), mp.fsum(q)
    total = mp.log(whole)
    value = mp.fsum(qk * (total - zk) for qk, zk in zip(q, z, strict=True) if qk)
    return value, [power / whole * mass - qk for qk, power in zip(q, powers, strict=True)]


def assert_close(got, exact, ulps, dtype):
    unit = float(np.spacing(dtype(max(abs(float(exact)), float(np.finfo(dtype).smallest_normal)))))
    assert abs(mp.mpf(float(got)) - exact) <= ulps * mp.mpf(unit), (got, exact)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pad", [0, 60, 600])
def test_the_tails_are_right(dtype, pad):
    """At [20, 0] the surprise is 2.06e-9, with its gradient; padding leads to lines and rows."""
    for gap in (0.0, 1e-4, 1.0, 16.7, 20.0, 40.0, 80.0):
        for target in (0, 1):
            z = np.array([[gap, 0.0, *[-np.inf] * pad]], dtype)
            value, gradient = KERNEL.value_and_grad(
                z, np.array([target]), factor=1.0, label_smoothing=0.0, axis=-1
            )
            hot = [float(target == k) for k in range(2)]
            exact, slopes = textbook(z[0, :2], hot)
            assert_close(value, exact, 4, dtype)
            for got, slope in zip(gradient[0, :2], slopes, strict=True):
                assert_close(got, slope, 4, dtype)
            assert not gradient[0, 2:].any()


@pytest.mark.parametrize(
    ("dtype", "kind", "smoothing", "weighted"),
    [
        (np.float32, "index", 0.0, False),
        (np.float32, "index", 0.125, False),
        (np.float32, "index", 0.125, True),
        (np.float32, "distribution", 0.125, True),
        (np.float32, "distribution", 0.0, False),
        (np.float64, "index", 0.0, False),
    ],
)
def test_rows_are_right(dtype, kind, smoothing, weighted):
    """Up to 24 classes go through tiles, up to 512 through lines, more through blocks of rows."""
    for classes in (1, 2, 7, 24, 25, 33, 64, 511, 513, 2100):
        generator = np.random.default_rng(classes)
        z = generator.normal(0, 3, (1, classes)).astype(dtype)
        if kind == "index":
            target = generator.integers(0, classes, 1)
            dense = np.eye(classes)[target]
        else:
            dense = target = generator.dirichlet(np.ones(classes), 1).astype(dtype)
        given = {"label_smoothing": smoothing, "axis": -1}
        if weighted:
            given["class_weights"] = generator.uniform(0.5, 2, classes).astype(dtype)
        assert KERNEL.supports(z, target, **given) is None
        value, gradient = KERNEL.value_and_grad(z, target, factor=1.0, **given)
        exact, slopes = textbook(z[0], dense[0], smoothing, given.get("class_weights"))
        assert_close(value, exact, 4, dtype)
        scale = max(abs(float(s)) for s in slopes)
        for got, slope in zip(gradient[0], slopes, strict=True):
            # Against the terms of the difference p Q - q, not the difference.
            bound = 8 * np.finfo(dtype).eps * max(abs(float(slope)), scale / 8)
            assert abs(float(got) - float(slope)) <= bound


@pytest.mark.parametrize(
    ("axis", "kind", "last"),
    [
        (0, "index", 700),
        (1, "index", 700),
        (-1, "index", 700),
        (-2, "distribution", 700),
        (-1, "index", 41),
        (-1, "distribution", 41),
    ],
)
def test_any_axis_and_zero_weights(axis, kind, last):
    generator = np.random.default_rng(5)
    shape = (6, 5 if last > 512 else 50, last)
    z = generator.normal(0, 2, shape)
    classes = shape[axis]
    units = tuple(np.delete(shape, axis))
    if kind == "index":
        target = generator.integers(0, classes, units).astype(np.int32)
    else:
        target = np.moveaxis(generator.dirichlet(np.ones(classes), units), -1, axis).copy()
    weights = generator.choice([0.0, 1.0, 2.5], units)
    whole = np.expand_dims(weights == 0, axis)
    dirty = np.where(whole, np.nan, z)
    if kind == "index":
        dirty_target = np.where(weights == 0, -100, target).astype(np.int32)
    else:
        dirty_target = np.where(whole, np.nan, target)
    given = {"label_smoothing": 0.1, "axis": axis}
    value, gradient = KERNEL.value_and_grad(
        dirty, dirty_target, factor=0.5, weights=weights, **given
    )
    expected = contract_of("cross_entropy").compute(z, target, **given)
    np.testing.assert_allclose(value, 0.5 * (weights * expected).sum(), rtol=1e-13)
    assert not gradient[np.broadcast_to(whole, shape)].any()
    step = 1e-6
    direction = generator.normal(size=shape)
    around = [
        0.5
        * (weights * contract_of("cross_entropy").compute(z + s * direction, target, **given)).sum()
        for s in (step, -step)
    ]
    np.testing.assert_allclose(
        (gradient * direction).sum(), (around[0] - around[1]) / (2 * step), rtol=1e-6
    )


@pytest.mark.parametrize("classes", [4, 100, 600])
@pytest.mark.parametrize("wrong", [-1, 600, 2**40, -(2**40)])
def test_a_class_that_does_not_exist_is_an_error(classes, wrong):
    z = np.zeros((10, classes))
    target = np.zeros(10, np.int64)
    target[7] = wrong
    with pytest.raises(LossError, match="position 7"):
        KERNEL.values(z, target, label_smoothing=0.0, axis=-1)


@pytest.mark.parametrize("classes", [5, 60, 600])
def test_infinities_as_in_the_definition(classes):
    generator = np.random.default_rng(2)
    z = generator.normal(size=(6, classes))
    z[0, 1] = z[1, 2] = -np.inf
    z[2, 3] = np.inf
    z[3, 0] = np.nan
    target = np.array([1, 0, 3, 1, 2, 0])
    for smoothing in (0.0, 0.1):
        given = {"label_smoothing": smoothing, "axis": -1}
        with np.errstate(all="ignore"):
            expected = contract_of("cross_entropy").compute(z, target, **given)
        values = KERNEL.values(z, target, **given)
        _, gradient = KERNEL.value_and_grad(z, target, factor=1.0, **given)
        assert np.isnan(values[3]) and np.isnan(gradient[3]).any()
        settled = ~np.isnan(expected)
        np.testing.assert_allclose(values[settled], expected[settled], rtol=1e-13)
        assert gradient[1, 2] == 0


def test_sums_do_not_depend_on_the_number_of_threads(monkeypatch):
    from lossary.kernels.numba import pool

    generator = np.random.default_rng(3)
    cases = [
        (generator.normal(size=(999, 700)).astype(np.float32), generator.integers(0, 700, 999)),
        (generator.normal(size=(999, 300)).astype(np.float32), generator.integers(0, 300, 999)),
        (generator.normal(size=(40_001, 10)).astype(np.float32), generator.integers(0, 10, 40_001)),
    ]
    for z, target in cases:
        results = []
        for threads in (1, 2, 3, 7):
            monkeypatch.setattr(pool, "threads", lambda threads=threads: threads)
            results.append(
                KERNEL.value_and_grad(z, target, factor=1.0, label_smoothing=0.1, axis=-1)
            )
        for value, gradient in results[1:]:
            assert value == results[0][0]
            np.testing.assert_array_equal(gradient, results[0][1])
