"""Losses of several predictions, number by number: a slope for each of them."""

import inspect

import mpmath
import numpy as np
import pytest
import torch

from lossary import Loss, kernels
from lossary.contract import contract_of
from lossary.kernels import formulas

mp = mpmath.mp.clone()
mp.dps = 50


def _gaussian(mean, target, variance, full):
    value = (mp.log(variance) + (mean - target) ** 2 / variance) / 2
    return value + mp.log(2 * mp.pi) / 2 if full else value


def _ranking(first, second, target, margin):
    return max(mp.mpf(0), mp.mpf(margin) - (target or -1) * (first - second))


TEXTBOOK = {
    "gaussian_nll": _gaussian,
    "laplace_nll": lambda mean, target, scale: mp.log(2 * scale) + abs(mean - target) / scale,
    "margin_ranking": _ranking,
    "gaussian_kl": lambda mean, log: (mean**2 + mp.expm1(log) - log) / 2,
}
PARAMETERS = {
    "gaussian_nll": [{"full": False}, {"full": True}],
    "margin_ranking": [{"margin": 0.0}, {"margin": 0.25}],
}
DIGITS = {"gaussian_kl": 400}  # beside e^700, a slope of 1
CASES = [(name, given) for name in TEXTBOOK for given in PARAMETERS.get(name, [{}])]
NUMBERS = [-1e4, -40.0, -1.0, -0.3, 0.0, 1e-4, 0.25, 0.9, 3.0, 700.0]


def test_every_formula_of_several_predictions_is_tested():
    found = {
        name
        for name, _ in inspect.getmembers(formulas, inspect.isfunction)
        if len(kernels.differentiated(name)) > 1
    }
    assert found == set(TEXTBOOK)


THIRD = {"margin_ranking": [[-1.0, 0.0, 1.0]], "gaussian_kl": []}
NOISE = [1e-30, 1e-4, 0.7, 1.0, 2.5, 1e4]


def _points(name, dtype):
    grid = np.meshgrid(NUMBERS, NUMBERS, *THIRD.get(name, [NOISE]))
    return tuple(np.ascontiguousarray(axis.ravel(), dtype) for axis in grid)


def _sizes(name, point):
    """The largest term of the value, and of the slopes: terms of these cancel by nature."""
    if name == "gaussian_kl":  # of one sign, all of them
        mean, log = point
        return TEXTBOOK[name](mean, log), None
    noise = point[2] if name != "margin_ranking" else mp.mpf(1)
    far = abs(point[0] - point[1]) / noise
    far = far * abs(point[0] - point[1]) if name == "gaussian_nll" else far
    terms = abs(mp.log(2 * noise)) + far + 1
    return terms, terms / noise


def _numba(name, arrays, given):
    kernel = kernels.find(name, "numpy")[0]
    return kernel.values(*arrays, **given), *kernel.value_and_grad(*arrays, factor=1.0, **given)


def check_every_slope(name, given, dtype, run=_numba):
    """Within 4 ulp of the largest term; ``run(name, arrays, parameters)`` as ``_numba``."""
    arrays = _points(name, dtype)
    values, total, slopes = run(name, arrays, given)
    places, eps = kernels.differentiated(name), mp.mpf(float(np.finfo(dtype).eps))
    largest, textbook = float(np.finfo(dtype).max), TEXTBOOK[name]
    exact = []
    for i, point in enumerate(zip(*arrays, strict=True)):
        point = [mp.mpf(float(x)) for x in point]
        exact.append(textbook(*point, **given))
        size, steepest = _sizes(name, point)
        if abs(exact[-1]) < largest:
            assert abs(mp.mpf(float(values[i])) - exact[-1]) <= 4 * eps * size, (name, point)
        else:
            assert values[i] == np.inf
        for slope, place in zip(slopes, places, strict=True):

            def along(x, place=place, point=point):
                return textbook(*point[:place], x, *point[place + 1 :], **given)

            if KINKS.get(name, lambda *_: False)(point, given):
                assert np.isfinite(slope[i])
                continue
            steep = mp.diff(along, point[place], h=point[place] * mp.mpf(10) ** -20 or None)
            bound = abs(steep) if steepest is None else steepest
            if abs(steep) < largest and bound < largest:
                bound = 8 * eps * bound + mp.mpf(10) ** -40  # what its digits leave of a 0
                assert abs(mp.mpf(float(slope[i])) - steep) <= bound, point
    finite = [value for value in exact if abs(value) < largest]
    if len(finite) == len(exact) and np.isfinite(total):
        whole = mp.fsum(map(abs, exact))
        assert abs(mp.mpf(float(total)) - mp.fsum(exact)) <= 4 * eps * whole


KINKS = {
    "laplace_nll": lambda point, given: point[0] == point[1],
    "margin_ranking": lambda point, given: (
        mp.mpf(given["margin"]) == (point[2] or -1) * (point[0] - point[1])
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "given"), CASES)
def test_value_and_every_slope(name, given, dtype):
    with mp.workdps(DIGITS.get(name, 50)):
        check_every_slope(name, given, dtype)


@pytest.mark.parametrize("name", sorted(TEXTBOOK))
def test_edges_are_the_definitions(name):
    edges = np.array([np.inf, -np.inf, np.nan, 0.0, 1.0, 2.0])
    noise = np.array([0.0, 5e-324, 1e-310, 1.0, np.inf, np.nan, -1.0])
    third = {"margin_ranking": [edges[2:]], "gaussian_kl": []}.get(name, [noise])
    grid = np.meshgrid(edges, edges, *third)
    arrays = tuple(np.ascontiguousarray(axis.ravel()) for axis in grid)
    given = dict(Loss(name).parameters)
    with np.errstate(all="ignore"):
        expected = contract_of(name).compute(*arrays, **given)
    got = kernels.find(name, "numpy")[0].values(*arrays, **given)
    np.testing.assert_allclose(got, expected, rtol=1e-14)


def _tensors(name, kind):
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 300, 7, generator=generator).to(kind)
    if name == "gaussian_kl":
        return first, second
    return first, second, first.sign() if name == "margin_ranking" else second.abs() + 0.25


@pytest.mark.parametrize("lying", ["straight", "transposed", "half"])
@pytest.mark.parametrize("only", [None, 0, 1], ids=["all", "first", "second"])
@pytest.mark.parametrize("name", sorted(TEXTBOOK))
def test_each_prediction_may_ask_for_its_gradient_alone(name, only, lying):
    kind = torch.bfloat16 if lying == "half" else torch.float32
    places, found = kernels.differentiated(name), []
    wanted = places if only is None else places[only : only + 1]
    for implementation in ("numba", "definition"):
        loss, leaves = Loss(name, implementation=implementation), []
        for place, tensor in enumerate(_tensors(name, kind)):
            leaf = tensor.clone().requires_grad_(place in wanted)
            leaves.append(leaf)
        given = [leaf.t() for leaf in leaves] if lying == "transposed" else leaves
        for _ in range(2):  # the second call takes the shortcut
            value = loss(*given)
        (3.0 * value).backward()
        assert [leaf.grad is not None for leaf in leaves] == [
            place in wanted for place in range(len(leaves))
        ]
        found.append([value.detach(), *(leaves[place].grad for place in wanted)])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", sorted(TEXTBOOK))
def test_second_derivatives_and_a_target_that_learns_are_the_definitions(name):
    arrays = [tensor.double()[:64] for tensor in _tensors(name, torch.float32)]
    for place, array in enumerate(arrays):
        array.requires_grad_(place in kernels.differentiated(name))
    assert torch.autograd.gradgradcheck(Loss(name, implementation="numba"), arrays, atol=1e-4)
    if name == "gaussian_kl":  # it has no target
        return
    for array in arrays:
        array.requires_grad_()
    assert "asks for a gradient too" in Loss(name).explain(*arrays)
    Loss(name)(*arrays).backward()
    if name == "gaussian_nll":
        torch.testing.assert_close(arrays[1].grad, -arrays[0].grad)
