"""Triplets and pairs of embeddings against the textbook at 60 digits and against the definition."""

import mpmath
import numpy as np
import pytest
import torch
from tests.oracles import metric

from lossary import kernels
from lossary.contract import contract_of

SETTINGS = [
    ("triplet", {"margin": 1.0, "p": 2, "swap": False}),
    ("triplet", {"margin": 0.0, "p": 2, "swap": True}),
    ("triplet", {"margin": 1.0, "p": 1, "swap": True}),
    ("cosine_embedding", {"margin": 0.0}),
    ("cosine_embedding", {"margin": -0.5}),
    ("contrastive", {"margin": 12.0, "half": False}),
    ("contrastive", {"margin": 1.0, "half": True}),
]
each_setting = pytest.mark.parametrize(("loss", "given"), SETTINGS)


def _kernel(loss, library="numpy"):
    return kernels.find(loss, library)[0]


def _targets(loss, rows):
    return np.resize([1.0, -1.0, 0.0] if loss == "cosine_embedding" else [1.0, 0.0, 0.25], rows)


def _batch(loss, rows, features, dtype, seed=0):
    """Some near: a positive to its anchor, a negative to the positive, and one to an axis."""
    generator = np.random.default_rng(seed)
    first, second, third = generator.normal(size=(3, rows, features))
    second[1::3] = first[1::3] + 1e-3 * second[1::3]
    third[2::3] = second[2::3] + 1e-3 * third[2::3]
    first[3::6], second[3::6] = 1e-3 * first[3::6], 1e-3 * second[3::6]
    first[3::6, 0] = second[3::6, 0] = 1.0
    third = third if loss == "triplet" else _targets(loss, rows)
    return [array.astype(dtype) for array in (first, second, third)]


def _definition(loss, arrays, given, weights=None):
    """Values, and gradients of their weighted sum, by torch in double precision."""
    many = 3 if loss == "triplet" else 2
    leaves = [
        torch.tensor(np.asarray(array, np.float64), requires_grad=place < many)
        for place, array in enumerate(arrays)
    ]
    values = contract_of(loss).compute(*leaves, **given)
    total = (values * (1.0 if weights is None else torch.from_numpy(weights))).sum()
    slopes = torch.autograd.grad(total, leaves[:many])
    return values.detach().numpy(), [slope.numpy() for slope in slopes]


@each_setting
@pytest.mark.parametrize("features", [1, 5, 700])
def test_single_precision_is_rounded_once(loss, given, features):
    """Values and slopes to the last digit; of 700 features there are two parts to sum."""
    arrays = _batch(loss, 6, features, np.float32)
    kernel = _kernel(loss)
    values = kernel.values(*arrays, **given)
    _, gradients = kernel.value_and_grad(*arrays, factor=1.0, **given)
    textbook, eps = getattr(metric, loss), float(np.finfo(np.float32).eps)
    with mpmath.workdps(60):
        for row in range(6):
            exact = [[mpmath.mpf(float(x)) for x in np.atleast_1d(array[row])] for array in arrays]
            if loss != "triplet":
                exact[2] = exact[2][0]
            value = textbook(*exact, **given)
            assert abs(float(values[row]) - value) <= 0.51 * eps * abs(value) + 1e-30
            places = range(min(features, 3))
            slopes = np.zeros((len(gradients), len(places)))
            for name in range(len(gradients)):
                for place in places:

                    def along(x, name=name, place=place, exact=exact):
                        moved = [*exact[name]]
                        moved[place] = x
                        return textbook(*exact[:name], moved, *exact[name + 1 :], **given)

                    slopes[name, place] = mpmath.diff(along, exact[name][place], h=1e-20)
            found = np.stack([gradient[row, : len(places)] for gradient in gradients])
            np.testing.assert_allclose(found, slopes, rtol=0.51 * eps, atol=1e-12)


@each_setting
@pytest.mark.parametrize("features", [1, 10, 1500])
def test_double_precision_keeps_what_the_definition_keeps(loss, given, features):
    arrays = _batch(loss, 12, features, np.float64)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, 12)
    expected, slopes = _definition(loss, arrays, given, weights)
    kernel = _kernel(loss)
    values = kernel.values(*arrays, **given)
    # Angles and distances of 1e-3 are known to 13 digits; the slopes of the definition to fewer.
    np.testing.assert_allclose(values, expected, rtol=2e-12, atol=1e-25)
    total, gradients = kernel.value_and_grad(*arrays, factor=0.25, weights=weights, **given)
    np.testing.assert_allclose(total, 0.25 * (weights * expected).sum(), rtol=1e-13)
    scale = np.abs(slopes).max(axis=(0, 2), initial=1e-300)[:, None]
    for found, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(found / scale, 0.25 * slope / scale, rtol=0, atol=1e-10)


def test_differences_do_not_cancel():
    """Distances that differ by less than a rounding, and slopes along the axis of both vectors."""
    anchor = np.zeros((1, 2))
    positive, negative = np.array([[1.0, 1e-9]]), np.array([[1.0, 2e-9]])
    given = {"margin": 0.0, "p": 2, "swap": False}
    value, _ = _kernel("triplet").value_and_grad(anchor, negative, positive, factor=1.0, **given)
    np.testing.assert_allclose(value, 1.5e-18, rtol=1e-15)
    first, second = np.array([[100.0, 0.0, 1e-3]]), np.array([[1.0, 0.0, 0.0]])
    for dtype in (np.float32, np.float64):
        arrays = first.astype(dtype), second.astype(dtype), np.ones(1, dtype)
        side, eps = float(arrays[0][0, 2]), np.finfo(dtype).eps
        length = np.hypot(100.0, side)
        value, gradients = _kernel("cosine_embedding").value_and_grad(
            *arrays, factor=1.0, margin=0.0
        )
        np.testing.assert_allclose(value, (side / length) ** 2 / (1 + 100 / length), rtol=4 * eps)
        slopes = [[-side * side / length**3, 0.0, 100 * side / length**3]]
        np.testing.assert_allclose(gradients[0], slopes, rtol=4 * eps)
        np.testing.assert_allclose(gradients[1], [[0.0, 0.0, -side / length]], rtol=4 * eps)


@each_setting
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kinks_and_zero_vectors(loss, given, dtype):
    """Derivatives at coinciding, zero, and opposite vectors, and at the hinge, are exact."""
    points = np.array([[0, 0, 0], [1, 0, 0], [-2, 0, 0], [0, 2, 0], [0, 0, 12], [1, 0, 12]], dtype)
    grid = np.stack(np.meshgrid(*[range(6)] * 3, indexing="ij"), -1).reshape(-1, 3)
    arrays = [points[grid[:, name]] for name in range(3)]
    if loss != "triplet":
        arrays[2] = _targets(loss, len(grid)).astype(dtype)
    expected, slopes = _definition(loss, arrays, given)
    kernel = _kernel(loss)
    close = {"rtol": 4 * np.finfo(dtype).eps, "atol": 4 * np.finfo(dtype).eps}
    np.testing.assert_allclose(kernel.values(*arrays, **given), expected, **close)
    _, gradients = kernel.value_and_grad(*arrays, factor=1.0, **given)
    for found, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(found, slope, **close)
    same = (arrays[0] == arrays[1]).all(axis=1)
    if loss != "triplet":
        assert not gradients[0][same].any() and not gradients[1][same].any()


@pytest.mark.parametrize("similar", [1.0, -1.0])
def test_a_zero_vector_hides_no_nan(similar):
    """No direction, no cosine: 1 - 0, but what lies beside it is seen."""
    first, second = np.zeros((2, 3)), np.array([[1.0, 2.0, 2.0], [1.0, np.nan, 2.0]])
    for arrays in ((first, second), (second, first)):
        arrays = (*arrays, np.full(2, similar))
        for compute in (
            contract_of("cosine_embedding").compute,
            _kernel("cosine_embedding").values,
        ):
            values = compute(*arrays, margin=0.0)
            np.testing.assert_array_equal(values, [max(similar, 0.0), np.nan])


@pytest.mark.parametrize("power", [-800, -480, 480, 800])
def test_lengths_whose_squares_are_no_numbers(power):
    """Everything scales as it should; powers of 2 round nothing."""
    scale = 2.0**power
    for loss, given in SETTINGS:
        if loss == "contrastive" and abs(power) > 480:
            continue  # its value has no number
        arrays = _batch(loss, 12, 7, np.float64, seed=2)
        many = 3 if loss == "triplet" else 2
        large = [array * scale if place < many else array for place, array in enumerate(arrays)]
        margin = given["margin"] * (1.0 if loss == "cosine_embedding" else scale)
        degree = {"triplet": 1, "cosine_embedding": 0, "contrastive": 2}[loss]
        kernel = _kernel(loss)
        values = kernel.values(*arrays, **given)
        found = kernel.values(*large, **{**given, "margin": margin})
        np.testing.assert_allclose(found, values * scale**degree, rtol=1e-12)
        _, slopes = kernel.value_and_grad(*arrays, factor=1.0, **given)
        _, gradients = kernel.value_and_grad(*large, factor=1.0, **{**given, "margin": margin})
        for gradient, slope in zip(gradients, slopes, strict=True):
            np.testing.assert_allclose(
                gradient, slope * scale ** (degree - 1), rtol=1e-12, atol=1e-12 * scale**degree
            )


def test_a_short_and_a_long_distance():
    """Each is measured by its own scale, from the anchor or, with ``swap``, from the positive."""
    ends = [np.zeros((1, 2)), np.array([[0.0, 1e200]])]
    negative = np.array([[3e-200, 4e-200]])
    slopes = [[[0.6, -0.2]], [[0.0, 1.0]]]
    for swap in (False, True):
        total, gradients = _kernel("triplet").value_and_grad(
            *ends, negative, factor=1.0, margin=1.0, p=2, swap=swap
        )
        assert total == 1e200
        np.testing.assert_allclose(gradients, [*slopes, [[-0.6, -0.8]]], rtol=1e-15)
        ends, slopes = ends[::-1], slopes[::-1]


@each_setting
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_absent_rows_infinities_and_nan(loss, given, dtype):
    arrays = _batch(loss, 9, 4, dtype)
    arrays[0][4, 1] = np.inf
    arrays[1][5, 2] = -np.inf
    with np.errstate(all="ignore"):
        expected = contract_of(loss).compute(*[array.astype(float) for array in arrays], **given)
    kernel = _kernel(loss)
    values = kernel.values(*arrays, **given)
    np.testing.assert_allclose(values, expected, rtol=1e-5 if dtype is np.float32 else 1e-11)
    weights = np.array([1.0, 2.0, 0.0, 1.0, 0.0, 0.0, 0.5, 0.0, 1.0])
    for array in arrays:
        array[2], array[7] = np.nan, np.inf
    total, gradients = kernel.value_and_grad(*arrays, factor=0.5, weights=weights, **given)
    there = weights != 0
    np.testing.assert_allclose(total, 0.5 * (weights[there] * expected[there]).sum(), rtol=1e-6)
    present = kernel.values(*arrays, weights=there.astype(dtype), **given)
    np.testing.assert_array_equal(present, np.where(there, values, 0))
    for gradient in gradients:
        assert not gradient[~there].any() and np.isfinite(gradient).all()
    arrays[1][0, 3] = np.nan
    total, gradients = kernel.value_and_grad(*arrays, factor=0.5, weights=weights, **given)
    assert np.isnan(total) and all(np.isnan(gradient[0]).any() for gradient in gradients)
    assert all(np.isfinite(gradient[1:]).all() for gradient in gradients)


@each_setting
def test_many_rows_on_any_number_of_threads(loss, given, monkeypatch):
    from lossary.kernels.numba import pool

    arrays = _batch(loss, 30_000, 11, np.float32)
    weights = np.resize([1.0, 0.0, 2.0], 30_000).astype(np.float32)
    kernel, results = _kernel(loss), []
    for threads in (1, 3):
        monkeypatch.setattr(pool, "threads", lambda threads=threads: threads)
        results.append(kernel.value_and_grad(*arrays, factor=1 / 3, weights=weights, **given))
    assert results[0][0] == results[1][0]
    expected, slopes = _definition(loss, arrays, given, weights.astype(float))
    np.testing.assert_allclose(results[0][0], (weights * expected).sum() / 3, rtol=1e-6)
    for one, other, slope in zip(results[0][1], results[1][1], slopes, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, slope / 3, rtol=1e-5, atol=1e-6 * np.abs(slope).max())
    # Any axes may lead.
    deep = [array.reshape(30, 1000, *array.shape[1:]) for array in arrays]
    values = kernel.values(*deep, **given)
    np.testing.assert_array_equal(values.ravel(), kernel.values(*arrays, **given))


@each_setting
def test_torch_differentiates_by_all_embeddings_or_one(loss, given):
    arrays = _batch(loss, 50, 20, np.float64)
    weights = np.random.default_rng(3).choice([0.0, 1.0, 3.0], 50)
    expected, slopes = _definition(loss, arrays, given, weights)
    kernel = _kernel(loss, "torch")
    for wanted in ((0, 1), (1,)):
        leaves = [
            torch.tensor(array, requires_grad=place in wanted) for place, array in enumerate(arrays)
        ]
        assert kernel.supports(*leaves, **given) is None
        total = kernel.scaled_sum(*leaves, factor=0.5, weights=torch.from_numpy(weights), **given)
        (2 * total).backward()
        np.testing.assert_allclose(total.item(), 0.5 * (weights * expected).sum(), rtol=1e-12)
        for place in wanted:
            scale = np.abs(slopes[place]).max(axis=1, keepdims=True) + 1e-300
            found = leaves[place].grad.numpy() / scale
            np.testing.assert_allclose(found, slopes[place] / scale, rtol=0, atol=1e-10)
