"""Cross-entropy of log-probabilities: one number of each sample, its gradient, who is absent."""

import math

import numpy as np
import pytest
import torch

from lossary import Loss, kernels
from lossary.contract import LossError

LOSS = "cross_entropy_of_log_probabilities"
KERNEL = kernels.find(LOSS, "numpy")[0]
GIVEN = {"label_smoothing": 0.0, "axis": -1, "class_weights": None}

SHAPES = [
    ((1, 1), 1), ((32, 10), 1), ((5000, 3), 1), ((70, 3000), 1), ((2, 7, 1500), 1),
    ((1000, 3, 5), 1), ((3, 40, 2, 9), -3), ((300, 9, 11), 0),
]  # fmt: skip


def expected(z, target, weights, class_weights, factor, axis):
    """Values and gradient of present samples, one by one in double precision."""
    classes_last = np.moveaxis(z, axis, -1)
    values, gradient = np.zeros(target.shape), np.zeros(classes_last.shape)
    for place in np.ndindex(target.shape):
        if weights[place] == 0:
            continue
        hit = target[place]
        weight = 1.0 if class_weights is None else float(class_weights[hit])
        values[place] = -weight * float(classes_last[(*place, hit)]) if weight else 0.0
        gradient[(*place, hit)] = -factor * float(weights[place]) * weight
    return values, np.moveaxis(gradient, -1, axis)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize(("dtype", "index"), [(np.float32, np.int64), (np.float64, np.int32)])
@pytest.mark.parametrize("by_class", [False, True])
def test_values_sums_and_gradients_with_absent_samples(shape, axis, dtype, index, by_class):
    """Several blocks, samples side by side or not, class weights of 0, garbage where absent."""
    generator = np.random.default_rng(1)
    units = tuple(np.delete(shape, axis))
    classes = shape[axis]
    z = -generator.exponential(3, shape).astype(dtype)
    target = generator.integers(0, classes, units).astype(index)
    of_class = generator.choice([0.0, 1.0, 0.3], classes).astype(dtype) if by_class else None
    weights = generator.choice([0.0, 1.0, 2.5], units).astype(dtype)
    given = {**GIVEN, "axis": axis, "class_weights": of_class}
    eps = np.finfo(dtype).eps

    whole, slopes = expected(z, target, np.ones(units), of_class, 0.7, axis)
    assert KERNEL.supports(z, target, **given) is None
    np.testing.assert_allclose(KERNEL.values(z, target, **given), whole, rtol=eps)
    total, gradient = KERNEL.value_and_grad(z, target, factor=0.7, **given)
    np.testing.assert_allclose(float(total), 0.7 * math.fsum(whole.flat), rtol=4 * eps)
    np.testing.assert_allclose(gradient, slopes, rtol=eps)

    absent = weights == 0
    some, slopes = expected(z, target, weights, of_class, 0.7, axis)
    dirty = np.where(np.expand_dims(absent, axis), dtype(np.nan), z)
    wrong = np.where(absent, np.iinfo(index).min, target).astype(index)
    np.testing.assert_allclose(KERNEL.values(dirty, wrong, weights=weights, **given), some, eps)
    total, gradient = KERNEL.value_and_grad(dirty, wrong, factor=0.7, weights=weights, **given)
    np.testing.assert_allclose(float(total), 0.7 * math.fsum((weights * some).flat), rtol=4 * eps)
    np.testing.assert_allclose(gradient, slopes, rtol=2 * eps)


def test_impossible_classes_as_in_the_definition():
    """A class weight of 0 wins over an infinite surprise, and over none at all."""
    z = np.array([[-np.inf, -1.0, np.nan, np.inf, -2.0]] * 5)
    target, of_class = np.arange(5), np.array([0.0, 2.0, 0.0, 0.0, 1.0])
    compute = kernels.definition(LOSS)
    for axis, class_weights in ((-1, None), (-1, of_class), (0, None), (0, of_class)):
        given = {**GIVEN, "axis": axis, "class_weights": class_weights}
        each = np.ascontiguousarray(z.T) if axis == 0 else z
        tensor = torch.tensor(each, requires_grad=True)
        on_torch = torch.tensor(of_class) if class_weights is not None else None
        values = compute(tensor, torch.tensor(target), **{**given, "class_weights": on_torch})
        slopes = torch.autograd.grad(values.sum(), tensor)[0].numpy()
        np.testing.assert_array_equal(KERNEL.values(each, target, **given), values.detach().numpy())
        np.testing.assert_array_equal(
            KERNEL.value_and_grad(each, target, factor=1.0, **given)[1], slopes
        )


def test_torch_differentiates_it_as_its_own():
    kernel = kernels.find(LOSS, "torch")[0]
    torch.manual_seed(0)
    for shape in ((40, 12), (3, 5, 4, 6)):
        z = torch.randn(shape, dtype=torch.float64).log_softmax(1).requires_grad_()
        target = torch.randint(shape[1], shape[:1] + shape[2:])
        target[0] = -100
        of_class, weights = torch.rand(shape[1], dtype=torch.float64), (target >= 0).double()
        given = {**GIVEN, "axis": 1, "class_weights": of_class}
        ours = kernel.scaled_sum(z, target, factor=0.5, weights=weights, **given)
        theirs = 0.5 * torch.nn.functional.nll_loss(z, target, of_class, reduction="sum")
        torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)
        pair = [torch.autograd.grad(3 * each, z)[0] for each in (ours, theirs)]
        torch.testing.assert_close(*pair, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("shape", "axis"), [((10, 4), -1), ((9000, 4), -1), ((10, 4, 3), 1), ((9, 2, 4000), 1)]
)
@pytest.mark.parametrize("wrong", [-1, 4, 2**40, -(2**40)])
def test_a_class_that_does_not_exist_is_an_error(shape, axis, wrong):
    z = np.zeros(shape)
    units = tuple(np.delete(shape, axis))
    target = np.zeros(units, np.int64)
    target.flat[7] = wrong
    weights = np.ones(units)
    weights.flat[3], target.flat[3] = 0.0, wrong
    given = {**GIVEN, "axis": axis}
    with pytest.raises(LossError, match="position 7"):
        KERNEL.value_and_grad(z, target, factor=1.0, weights=weights, **given)
    with pytest.raises(LossError, match="position 3"):
        KERNEL.values(z, target, **given)


def test_what_it_leaves_to_others():
    z, target = np.zeros((6, 3)), np.zeros(6, np.int64)
    assert "smoothing" in KERNEL.supports(z, target, **{**GIVEN, "label_smoothing": 0.1})
    assert "class indices" in KERNEL.supports(z, np.zeros((6, 3)), **GIVEN)
    assert "class indices" in KERNEL.supports(z, np.zeros(3, np.int64), **GIVEN)
    assert "no classes" in KERNEL.supports(np.zeros((6, 0)), target, **GIVEN)
    with pytest.raises(LossError, match="class_weights"):
        KERNEL.values(z, target, **{**GIVEN, "class_weights": np.ones(4)})


def test_sums_do_not_depend_on_the_number_of_threads(monkeypatch):
    from lossary.kernels.numba import pool

    generator = np.random.default_rng(3)
    for shape in ((60_000, 10), (900, 1000), (2, 21, 30_000)):
        z = -generator.exponential(3, shape).astype(np.float32)
        target = generator.integers(0, shape[1], shape[:1] + shape[2:])
        results = []
        for threads in (1, 2, 3, 7):
            monkeypatch.setattr(pool, "threads", lambda threads=threads: threads)
            results.append(KERNEL.value_and_grad(z, target, factor=0.1, **{**GIVEN, "axis": 1}))
        for value, gradient in results[1:]:
            assert value == results[0][0]
            np.testing.assert_array_equal(gradient, results[0][1])


def _native(reduction="mean", **given):
    return Loss(
        "cross_entropy", predictions="log_probabilities", reduction=reduction,
        implementation="native", **given,
    )  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "mean_over_batch", "batch_mean", "sum", "none"])
@pytest.mark.parametrize("ignore", [None, 3, -100])
@pytest.mark.parametrize("weighted", [False, True])
def test_torchs_own_means_the_same(reduction, ignore, weighted):
    """The first call and the short way of those after it; also where nothing counts."""
    torch.manual_seed(0)
    for rows, all_ignored in ((40, False), (1, False), (5, True)):
        prediction = torch.randn(rows, 7).log_softmax(-1).requires_grad_()
        target = torch.randint(0, 7, (rows,))
        if ignore is not None:
            target[torch.arange(rows) % 3 == 2] = ignore
            target = torch.full_like(target, ignore) if all_ignored else target
        beside = {"class_weights": torch.rand(7) + 0.5} if weighted else {}
        ours = _native(reduction, ignore=ignore)
        truth = Loss.from_config({**ours.config, "implementation": "definition"})
        exact = prediction.detach().double().requires_grad_()
        expected = truth(exact, target, **{name: x.double() for name, x in beside.items()})
        slopes = torch.autograd.grad(expected.sum(), exact)[0]
        for _ in range(3):
            value = ours(prediction, target, **beside)
            torch.testing.assert_close(value.double(), expected, rtol=4 * 2.0**-23, atol=0)
            found = torch.autograd.grad(value.sum(), prediction)[0]
            torch.testing.assert_close(found.double(), slopes, rtol=4 * 2.0**-23, atol=0)
        assert ours._shortcuts


def test_torchs_own_adds_up_exactly_and_refuses_what_it_cannot():
    torch.manual_seed(0)
    prediction = -(torch.rand(200_000, 2) * 40 - 20).exp2()  # many scales
    prediction[0], target = -math.inf, torch.randint(0, 2, (200_000,))
    found = _native()(prediction[1:], target[1:])
    exact = -prediction[1:].double().gather(1, target[1:, None]).mean()
    torch.testing.assert_close(found.double(), exact, rtol=4 * 2.0**-23, atol=0)
    assert _native()(prediction, target) == math.inf
    weights = torch.tensor([0.0, 1.0])
    with pytest.raises(LossError, match="a class of weight 0"):
        _native()(prediction, target, class_weights=weights)
    target[:1] = 0
    chosen = Loss("cross_entropy", predictions="log_probabilities")
    assert chosen(prediction, target, class_weights=weights) < math.inf
    for _ in range(2):  # the checked and the short way
        target[5] = 0
        assert _native()(prediction[:9], target[:9]) == math.inf
        target[5] = 2
        with pytest.raises(LossError, match="position 5 is not in"):
            chosen(prediction[:9], target[:9])


def test_torchs_own_is_chosen_for_few():
    chosen = Loss("cross_entropy", predictions="log_probabilities")
    for rows, runs in ((100, "native"), (20_000, "numba")):
        text = chosen.explain(torch.zeros(rows, 3), torch.zeros(rows, dtype=torch.int64))
        other = {"native": "not numba: native is quicker", "numba": "not native: 20234 samples"}
        assert f": {runs}\n" in text and other[runs] in text
