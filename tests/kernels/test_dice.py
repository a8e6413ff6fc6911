"""Dice with cross-entropy in one reading of the logits, against the textbook and the definition."""

import mpmath
import numpy as np
import pytest
import torch
from tests.kernels.test_softmax import assert_close

from lossary import Loss, kernels
from lossary.contract import LossError

mp = mpmath.mp.clone()
mp.dps = 60
PLAIN = {"dice_weight": 1.0, "smooth": 1e-5, "background": True, "axis": 1}


def _textbook(z, target, dice_weight, smooth, background, axis):
    """One region: logits (classes, pixels) and a weight of each class at each pixel."""
    classes, pixels = len(z), len(z[0])
    totals = [mp.log(mp.fsum(mp.exp(z[k][i]) for k in range(classes))) for i in range(pixels)]
    p = [[mp.exp(z[k][i] - totals[i]) for i in range(pixels)] for k in range(classes)]
    surprise = mp.fsum(
        target[k][i] * (totals[i] - z[k][i]) for k in range(classes) for i in range(pixels)
    )
    first = 0 if background else 1
    wrong = []
    for k in range(first, classes):
        both = mp.fsum(a * b for a, b in zip(p[k], target[k], strict=True))
        whole = mp.fsum(p[k]) + mp.fsum(target[k])
        wrong.append(1 - (2 * both + mp.mpf(smooth)) / (whole + mp.mpf(smooth)))
    return surprise / pixels + dice_weight * mp.fsum(wrong) / len(wrong)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "given"),
    [("index", PLAIN), ("soft", PLAIN), ("index", {**PLAIN, "background": False, "smooth": 1.0})],
)
def test_value_and_slope_are_right(dtype, kind, given):
    generator = np.random.default_rng(0)
    for spread in (1.0, 12.0):  # torn pixels, and sure ones: right and wrong
        z = generator.normal(0, spread, (1, 3, 5)).astype(dtype)
        index = generator.integers(0, 3, (1, 5))
        index[0, :3] = z[0].argmax(0)[:3]
        hot = (np.arange(3)[:, None] == index[0]).astype(dtype)
        target = index
        if kind == "soft":
            hot = generator.dirichlet(np.ones(3), 5).T.astype(dtype)
            target = np.ascontiguousarray(hot[None])
        (kernel,) = kernels.find("dice_cross_entropy", "numpy")
        assert kernel.supports(z, target, **given) is None
        value, gradient = kernel.value_and_grad(z, target, factor=1.0, **given)
        exact = [[mp.mpf(float(x)) for x in row] for row in z[0]]
        weights = [[mp.mpf(float(x)) for x in row] for row in hot]
        assert_close(value, _textbook(exact, weights, **given), 4, dtype)
        slopes = np.empty((3, 5), object)
        for k in range(3):
            for i in range(5):

                def moved(x, k=k, i=i, exact=exact, weights=weights):
                    rows = [list(row) for row in exact]
                    rows[k][i] = x
                    return _textbook(rows, weights, **given)

                slopes[k, i] = mp.diff(moved, exact[k][i])
        for k in range(3):
            for i in range(5):
                # Against the pixel's largest slope too: the two losses may pull apart.
                scale = max(abs(s) for s in slopes[:, i]) / 4
                bound = 8 * np.finfo(dtype).eps * float(max(abs(slopes[k, i]), scale))
                assert abs(float(gradient[0, k, i]) - float(slopes[k, i])) <= bound, (k, i)


@pytest.mark.parametrize("kind", ["index", "soft"])
def test_it_is_the_definition_on_every_library(kind):
    torch.manual_seed(0)
    z = torch.randn(3, 4, 37, 41, dtype=torch.float64)
    target = torch.randint(0, 4, (3, 37, 41))
    if kind == "soft":
        target = torch.softmax(torch.randn(3, 4, 37, 41, dtype=torch.float64), 1)
    weights = torch.tensor([1.0, 0.0, 2.5], dtype=torch.float64)
    found = []
    for implementation in ("numba", "definition"):
        loss = Loss("dice_cross_entropy", implementation=implementation)
        each = Loss("dice_cross_entropy", implementation=implementation, reduction="none")
        leaf, other = z.clone().requires_grad_(), z.clone().requires_grad_()
        value = loss(leaf, target, weights=weights)
        (2 * value).backward()
        values = each(other, target)
        (values * torch.tensor([0.5, 1.0, 3.0])).sum().backward()
        found.append((value.detach(), leaf.grad, values.detach(), other.grad))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-15)
    loss = Loss("dice_cross_entropy")
    assert "numba" in loss.explain(z, target)
    value, gradient = loss.value_and_grad(z.numpy(), target.numpy())
    leaf = z.clone().requires_grad_()
    loss(leaf, target).backward()
    np.testing.assert_allclose(gradient, leaf.grad, rtol=1e-10, atol=1e-15)


def test_masked_pixels_and_second_derivatives_go_through_the_definition():
    torch.manual_seed(1)
    z = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    target = torch.randint(0, 3, (2, 9, 8))
    holes = target.clone()
    holes[:, 0] = 255
    loss = Loss("dice_cross_entropy", ignore=255)
    cut = Loss("dice_cross_entropy")(z[:, :, 1:].contiguous(), target[:, 1:].contiguous())
    torch.testing.assert_close(loss(z, holes), cut)
    assert "ignored" in loss.explain(z, holes)
    torch.testing.assert_close(Loss("dice_cross_entropy")(z, target, mask=holes != 255), cut)
    small, classes = z[:, :, :2, :2].clone().requires_grad_(), target[:, :2, :2].contiguous()
    named = Loss("dice_cross_entropy", implementation="numba")
    assert torch.autograd.gradgradcheck(lambda p: named(p, classes), small)


def test_a_class_that_does_not_exist_is_an_error():
    z, target = np.zeros((2, 3, 40), np.float32), np.zeros((2, 40), np.int64)
    target[1, 7] = 3
    with pytest.raises(LossError, match="position 47"):
        Loss("dice_cross_entropy", implementation="numba").value_and_grad(z, target)


def test_sums_do_not_depend_on_the_number_of_threads(monkeypatch):
    from lossary.kernels.numba import pool

    generator = np.random.default_rng(3)
    z = generator.normal(size=(2, 4, 70_001)).astype(np.float32)
    target = generator.integers(0, 4, (2, 70_001))
    (kernel,) = kernels.find("dice_cross_entropy", "numpy")
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(pool, "threads", lambda threads=threads: threads)
        results.append(kernel.value_and_grad(z, target, factor=1.0, **PLAIN))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
