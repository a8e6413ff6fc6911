"""Margins of scores against exact fractions, at their kinks, and as the definition has it."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from lossary import kernels
from lossary.contract import LossError

MULTI = {"p": 1, "margin": 1.0, "divide_by_classes": True, "axis": -1}
LABELS = {"margin": 1.0, "axis": -1}
NAN, INF = float("nan"), float("inf")


def find(loss, library="numpy"):
    return kernels.find(loss, library)[0]


def multi_margin(z, hit, margin, p):
    """Value and gradient of one row of fractions."""
    short = [max(margin - z[hit] + score, 0) for score in z]
    short[hit] = 0
    slope = [(s > 0) * p * s ** (p - 1) / Fraction(len(z)) for s in short]
    slope[hit] = -sum(slope)
    return Fraction(sum(s**p for s in short), len(z)), slope


def multilabel_margin(z, t, margin):
    value, slope = Fraction(0), [Fraction(0)] * len(z)
    for j, share in enumerate(t):
        for k in range(len(z)) if share else ():
            short, weight = margin - z[j] + z[k], share * (1 - t[k])
            if j != k and short > 0 and weight:
                value += weight * short
                slope[j] -= weight / len(z)
                slope[k] += weight / len(z)
    return value / len(z), slope


def assert_row(kernel, z, target, given, exact, slopes, dtype):
    """The value to 4 units in the last place, slopes too, against the largest of their terms."""
    eps = np.finfo(dtype).eps
    values = kernel.values(z, target, **given)
    total, gradient = kernel.value_and_grad(z, target, factor=0.5, **given)
    assert abs(Fraction(float(values[0])) - exact) <= 4 * eps * exact
    assert abs(Fraction(float(total)) - exact / 2) <= 4 * eps * exact
    for got, slope in zip(gradient[0], slopes, strict=True):
        assert abs(Fraction(float(got)) - slope / 2) <= 4 * eps * max(
            abs(slope), Fraction(1, 10**4)
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [1, 2, 10, 33, 600, 3000])
def test_values_and_slopes_are_exact(dtype, classes):
    """With ties, scores that end at the margin, and a common shift that would drown it."""
    generator = np.random.default_rng(classes)
    for shift in (0.0, 3e5):
        z = generator.normal(0, 2, (1, classes)).astype(dtype) + dtype(shift)
        hit = classes // 3
        z[0, classes // 2] = z[0, hit]
        z[0, -1:] = z[0, hit] - dtype(0.75) if classes > 2 else z[0, -1:]
        exact = [Fraction(float(score)) for score in z[0]]
        for p in (1, 2):
            given = {**MULTI, "p": p, "margin": 0.75}
            truth = multi_margin(exact, hit, Fraction(3, 4), p)
            assert_row(find("multi_margin"), z, np.array([hit]), given, *truth, dtype)
        few = (generator.random((1, classes)) < 3 / classes).astype(dtype)
        few[0, hit] = 1
        shares = few * generator.choice([1.0, 0.3, 0.5], few.shape).astype(dtype)
        shares[0, -1] = 0.25
        for target in (few, shares):
            t = [Fraction(float(share)) for share in target[0]]
            truth = multilabel_margin(exact, t, Fraction(3, 4))
            given = {**LABELS, "margin": 0.75}
            assert_row(find("multilabel_margin"), z, target, given, *truth, dtype)


def of_definition(loss, z, target, weights=None, factor=1.0, **given):
    """Values and gradient of the definition under torch, in double precision."""
    z = torch.tensor(np.asarray(z, np.float64), requires_grad=True)
    values = kernels.definition(loss)(z, torch.tensor(target), **given)
    scale = 1.0 if weights is None else torch.tensor(weights, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((scale * values).sum() * factor, z)
    return values.detach().numpy(), gradient.numpy()


ROWS = [
    [1, -INF, 2], [INF, 0, 1], [-INF, 0, 1], [NAN, 0, 1], [INF, INF, 1], [-INF, -INF, 0],
    [0, 0, 1], [2, 2, 2], [1, 2, 3], [1e308, -1e308, 0],
]  # fmt: skip


@pytest.mark.parametrize("p", [1, 2])
def test_infinities_and_kinks_as_in_the_definition(p):
    for row in [*ROWS, [3.0], [INF], [-INF], [NAN]]:
        z, given = np.array([row] * len(row), float), {**MULTI, "p": p, "divide_by_classes": False}
        target = np.arange(len(row))
        values, slopes = of_definition("multi_margin", z, target, **given)
        kernel = find("multi_margin")
        np.testing.assert_array_equal(kernel.values(z, target, **given), values)
        gradient = kernel.value_and_grad(z, target, factor=1.0, **given)[1]
        np.testing.assert_array_equal(gradient, slopes)


@pytest.mark.parametrize("p", [1, 2])
def test_a_true_score_of_minus_infinity_costs_infinity(p):
    z, target, given = np.array([[0.0, -INF, -2.0]]), np.array([1]), {**MULTI, "p": p}
    values, slopes = of_definition("multi_margin", z, target, **given)
    kernel = find("multi_margin")
    assert values == kernel.values(z, target, **given) == INF
    _, gradient = kernel.value_and_grad(z, target, factor=3.0, **given)
    assert not np.isnan(slopes).any() and not np.isnan(gradient).any()


def test_infinite_scores_of_labels_as_in_the_definition():
    targets = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1], [0.5, 0, 0.25], [NAN, 0, 1]])
    for row in ROWS[:-1]:
        z = np.array([row] * len(targets), float)
        values, slopes = of_definition("multilabel_margin", z, targets, **LABELS)
        kernel = find("multilabel_margin")
        np.testing.assert_allclose(kernel.values(z, targets, **LABELS), values, rtol=1e-15)
        gradient = kernel.value_and_grad(z, targets, factor=1.0, **LABELS)[1]
        np.testing.assert_allclose(gradient[:-1], slopes[:-1], rtol=1e-15)


@pytest.mark.parametrize("loss", ["multi_margin", "multilabel_margin"])
@pytest.mark.parametrize("shape", [(6, 1), (4000, 10), (3, 50, 40), (40, 700)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_of_0_are_absent_in_any_number_of_threads(loss, shape, dtype, monkeypatch):
    from lossary.kernels.numba import pool

    generator = np.random.default_rng(7)
    z = generator.normal(0, 2, shape).astype(dtype)
    weights = generator.choice([0.0, 1.0, 2.5], shape[:-1]).astype(dtype)
    absent = (weights == 0)[..., None]
    if loss == "multi_margin":
        target = generator.integers(0, shape[-1], shape[:-1]).astype(np.int32)
        wrong, given = np.where(absent[..., 0], -100, target).astype(np.int32), {**MULTI, "p": 2}
    else:
        target = (generator.random(shape) < min(0.5, 3 / shape[-1])).astype(dtype)
        wrong, given = np.where(absent, dtype(NAN), target), LABELS
    values, slopes = of_definition(loss, z, target, weights, 0.3, **given)
    values = np.where(weights == 0, 0.0, values)
    dirty, results = np.where(absent, dtype(NAN), z), []
    kernel, rtol = find(loss), 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(kernel.values(dirty, wrong, weights=weights, **given), values, rtol)
    for threads in (1, 2, 7):
        monkeypatch.setattr(pool, "threads", lambda threads=threads: threads)
        results.append(kernel.value_and_grad(dirty, wrong, factor=0.3, weights=weights, **given))
    for total, gradient in results:
        assert total == results[0][0]
        np.testing.assert_allclose(float(total), 0.3 * (weights * values).sum(), rtol)
        np.testing.assert_allclose(gradient, slopes, rtol, rtol / shape[-1])
        np.testing.assert_array_equal(gradient, results[0][1])


def test_torch_differentiates_them_as_its_own():
    torch.manual_seed(0)
    z = torch.randn(50, 20, dtype=torch.float64, requires_grad=True)
    target = torch.randint(20, (50,))
    hot = torch.nn.functional.one_hot(target, 20)
    hot[:, :2] = 1
    listed = torch.tensor([[*row.nonzero()[:, 0], *[-1] * 20][:20] for row in hot])
    for p in (1, 2):
        ours = find("multi_margin", "torch").scaled_sum(z, target, factor=0.02, **{**MULTI, "p": p})
        theirs = torch.nn.functional.multi_margin_loss(z, target, p=p)
        torch.testing.assert_close(ours, theirs)
        pair = [torch.autograd.grad(3 * each, z)[0] for each in (ours, theirs)]
        torch.testing.assert_close(*pair)
    ours = find("multilabel_margin", "torch").scaled_sum(z, hot.double(), factor=0.02, **LABELS)
    theirs = torch.nn.functional.multilabel_margin_loss(z, listed)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*[torch.autograd.grad(each, z)[0] for each in (ours, theirs)])


@pytest.mark.parametrize("rows", [9, 5000])
@pytest.mark.parametrize("wrong", [-1, 10, 2**40])
def test_a_class_that_does_not_exist_is_an_error(rows, wrong):
    target = np.zeros(rows, np.int64)
    target[8] = wrong
    with pytest.raises(LossError, match=r"multi_margin.*position 8"):
        find("multi_margin").values(np.zeros((rows, 10)), target, **MULTI)


def test_what_they_leave_to_others():
    z, target = np.zeros((6, 3)), np.zeros(6, np.int64)
    kernel = find("multi_margin")
    assert kernel.supports(z, target, **{**MULTI, "axis": 1}) is None
    assert "not the last" in kernel.supports(z, np.zeros(3, np.int64), **{**MULTI, "axis": 0})
    assert "class indices" in kernel.supports(z, np.zeros((6, 3)), **MULTI)
    assert "no classes" in kernel.supports(np.zeros((6, 0)), target, **MULTI)
    kernel = find("multilabel_margin")
    assert "multi-hot" in kernel.supports(z, np.zeros((6, 3), np.int64), **LABELS)
    assert "multi-hot" in kernel.supports(z, target, **LABELS)
