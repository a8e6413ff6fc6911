"""Triton's kernels in its interpreter; ``test_triton.py`` runs this in a process of its own."""

import numpy as np
import pytest
import torch
from tests.kernels import test_several as several
from tests.kernels.test_pointwise import CASES, DIGITS, TARGETS, check_accuracy, mp
from tests.kernels.test_softmax import assert_close, textbook

from lossary import Loss, kernels
from lossary.contract import LossError, contract_of

KERNEL = kernels.find("cross_entropy", "torch", "triton")[0]
PLAIN = {"label_smoothing": 0.0, "axis": -1}


def _several(name, arrays, given):
    (kernel,) = kernels.find(name, "torch", "triton")
    arrays = [torch.from_numpy(array) for array in arrays]
    assert kernel.supports(*arrays, **given) is None
    values = kernel.values(*arrays, **given)
    total, slopes = kernel.value_and_grad(*arrays, factor=1.0, **given)
    return values.numpy(), float(total), slopes


def _triton(name, p, t, given):
    values, total, slopes = _several(name, (p, t), given)
    return values, total, slopes.numpy()


FORMULAS = [case for case in CASES if kernels.find(case[0], "torch", "triton")]
DOUBLE = ("huber", "log_cosh", "binary_cross_entropy", "cauchy", "squared_logarithmic_error")
DOUBLE += ("binary_cross_entropy_of_probabilities", "poisson_nll", "poisson_nll_of_rates")


@pytest.mark.parametrize(
    ("name", "given", "dtype"),
    [(*case, np.float32) for case in FORMULAS]
    + [(*case, np.float64) for case in FORMULAS if case[0] in DOUBLE],
)
def test_value_and_slope_are_right_to_4_ulp(name, given, dtype):
    with mp.workdps(DIGITS.get(name, 50)):
        check_accuracy(name, given, dtype, TARGETS.get(name, [0.0, 0.3]), _triton)


@pytest.mark.parametrize(("name", "given"), several.CASES)
def test_slopes_by_several_predictions_are_right(name, given):
    with several.mp.workdps(several.DIGITS.get(name, 50)):
        several.check_every_slope(name, given, np.float32, _several)


@pytest.mark.parametrize("name", ["huber", "binary_cross_entropy", "binary_focal"])
def test_pointwise_gradients_and_weights_are_the_definitions(name):
    torch.manual_seed(0)
    p, t = torch.randn(3000), torch.rand(3000).round()
    weights = torch.rand(3000)
    weights[::7] = 0
    dirty = torch.where(weights == 0, torch.nan, p)
    found = []
    for prediction, implementation in ((dirty, "triton"), (p, "definition")):
        leaf = prediction.clone().requires_grad_()
        value = Loss(name, implementation=implementation)(leaf, t, weights=weights)
        (3 * value).backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tails_of_the_cross_entropy_are_right(dtype):
    kind = np.float32 if dtype == torch.float32 else np.float64
    for gap in (0.0, 1e-4, 1.0, 16.7, 20.0, 40.0, 80.0):
        for target in (0, 1):
            z = torch.tensor([[gap, 0.0, *[-torch.inf] * 60]], dtype=dtype)
            value, gradient = KERNEL.value_and_grad(z, torch.tensor([target]), factor=1.0, **PLAIN)
            exact, slopes = textbook(z[0, :2], [float(target == k) for k in range(2)])
            assert_close(value, exact, 4, kind)
            for got, slope in zip(gradient[0, :2], slopes, strict=True):
                assert_close(got, slope, 4, kind)
            assert not gradient[0, 2:].any()


@pytest.mark.parametrize("smoothing", [0.0, 0.125])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_of_the_cross_entropy_are_right(smoothing, weighted):
    """One block of classes, several blocks, and logits that rise from block to block."""
    for classes in (1, 2, 100, 9000):
        generator = np.random.default_rng(classes)
        z = generator.normal(0, 3, (2, classes)).astype(np.float32)
        z[1] = np.sort(z[1])
        target = generator.integers(0, classes, 2)
        given = {"label_smoothing": smoothing, "axis": -1}
        if weighted:
            given["class_weights"] = generator.uniform(0.5, 2, classes).astype(np.float32)
        tensors = torch.from_numpy(z), torch.from_numpy(target)
        assert KERNEL.supports(*tensors, **given) is None
        values = KERNEL.values(*tensors, **given)
        _, gradient = KERNEL.value_and_grad(*tensors, factor=1.0, **given)
        for row in range(2):
            hot = np.zeros(classes)
            hot[target[row]] = 1
            exact, slopes = textbook(z[row], hot, smoothing, given.get("class_weights"))
            assert_close(values[row], exact, 4, np.float32)
            scale = max(abs(float(s)) for s in slopes)
            for got, slope in zip(gradient[row], slopes, strict=True):
                bound = 8 * np.finfo(np.float32).eps * max(abs(float(slope)), scale / 8)
                assert abs(float(got) - float(slope)) <= bound


def test_infinities_and_nan_as_in_the_definition():
    z = torch.randn(6, 60, dtype=torch.float64)
    z[0, 1] = z[1, 2] = -torch.inf
    z[2, 3] = torch.inf
    z[3, 0] = torch.nan
    target = torch.tensor([1, 0, 3, 1, 2, 0])
    for smoothing in (0.0, 0.1):
        given = {"label_smoothing": smoothing, "axis": -1}
        expected = contract_of("cross_entropy").compute(z, target, **given)
        values = KERNEL.values(z, target, **given)
        _, gradient = KERNEL.value_and_grad(z, target, factor=1.0, **given)
        assert values[3].isnan() and gradient[3].isnan().any()
        settled = ~expected.isnan()
        torch.testing.assert_close(values[settled], expected[settled], rtol=1e-13, atol=0.0)
        assert gradient[1, 2] == 0


def test_ignored_rows_are_absent_and_wrong_classes_an_error():
    torch.manual_seed(1)
    z, target = torch.randn(70, 11), torch.randint(0, 11, (70,))
    target[5], z[5] = -100, torch.nan
    found = []
    for implementation in ("triton", "definition"):
        leaf = z.clone().requires_grad_()
        loss = Loss(
            "cross_entropy", ignore=-100, label_smoothing=0.1, implementation=implementation
        )
        loss(leaf, target).backward()
        found.append((loss(z, target), leaf.grad))
    torch.testing.assert_close(*found)
    with pytest.raises(LossError, match=r"not in 0\.\.10"):
        KERNEL.values(z, target, **PLAIN)


def test_second_derivatives_go_through_the_definition():
    z, target = torch.randn(3, 2, dtype=torch.float64, requires_grad=True), torch.arange(3) % 2
    loss = Loss("cross_entropy", implementation="triton")
    assert torch.autograd.gradgradcheck(lambda p: loss(p, target), z)


def test_what_triton_declines():
    x, t = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    for prediction, target, given, word in [
        (x, t, {"label_smoothing": 0.0, "axis": 0}, "axis"),
        (x, x.softmax(1), PLAIN, "class index"),
        (x.half(), t, PLAIN, "float16"),
        (x.t(), t[:3], PLAIN, "contiguous"),
    ]:
        assert word in KERNEL.supports(prediction, target, **given)
