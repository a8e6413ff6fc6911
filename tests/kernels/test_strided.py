"""Arrays that lie anyhow, and half precision: what kernels compute of them is the definition's."""

import numpy as np
import pytest
import torch

from lossary import Loss, LossError
from lossary.kernels import NATIVE
from lossary.kernels.numba import slices

STEPS, CLASSES = 9, 700
LOGITS = torch.randn(6, STEPS, CLASSES, generator=torch.Generator().manual_seed(0))
SHARES = torch.randn(6, STEPS, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(-1)
LABELS = torch.randint(0, CLASSES, (6, STEPS), generator=torch.Generator().manual_seed(2))
PICTURES = LOGITS.flatten()[: 6 * 3 * 40 * 40].view(6, 3, 40, 40)
MASKS = LABELS.repeat(1, 200)[:, :1600].view(6, 40, 40) % 3
WIDE = LOGITS.flatten().view(2, 9, 2100)

CASES = {
    "all steps but the last": ("cross_entropy", LOGITS[:, :-1], LABELS[:, 1:], {}),
    "labels of another order": ("cross_entropy", LOGITS, LABELS.t().contiguous().t(), {}),
    "one step": ("cross_entropy", WIDE[:, 3], LABELS[:2, 3], {}),
    "every second sample": ("cross_entropy", LOGITS[::2], LABELS[::2], {}),
    "one sample for all": (
        "cross_entropy", LOGITS[:1].expand(6, STEPS, CLASSES), LABELS, {"label_smoothing": 0.1}
    ),
    "padded classes": ("cross_entropy", WIDE[..., :2000], LABELS[:2], {}),
    "classes seem to be second": ("cross_entropy", LOGITS.transpose(1, 2), LABELS, {"axis": 1}),
    "and a step is left out": (
        "cross_entropy", LOGITS[:, :-1].transpose(1, 2), LABELS[:, 1:], {"axis": -2}
    ),
    "pixels with their channels": (
        "cross_entropy", PICTURES.to(memory_format=torch.channels_last), MASKS, {"axis": 1}
    ),
    "soft targets": ("cross_entropy", LOGITS[:, :-1], SHARES[:, 1:], {}),
    "soft targets with classes second": (
        "cross_entropy", LOGITS.transpose(1, 2), SHARES.transpose(1, 2), {"axis": 1}
    ),
    "only the target has gaps": ("kl_divergence", LOGITS[:, 1:].clone(), SHARES[:, 1:], {}),
    "divergence": ("jensen_shannon", LOGITS[:, :-1], SHARES[:, 1:], {}),
    "elements": ("binary_cross_entropy", LOGITS[:, :-1], SHARES[:, 1:], {}),
    "elements in another order": (
        "binary_cross_entropy", LOGITS.permute(2, 1, 0), SHARES.permute(2, 1, 0), {}
    ),
    "only their target is": ("squared_error", LOGITS, SHARES.mT.contiguous().mT, {}),
    "without the last ones": ("squared_error", LOGITS[..., :-3], SHARES[..., 3:], {}),
    "every second one": ("binary_cross_entropy", LOGITS[..., ::2], SHARES[..., 1::2], {}),
    "one of several": ("binary_cross_entropy", LOGITS.view(6, 9, 100, 7)[..., 4], SHARES.view(
        6, 9, 100, 7)[..., 4], {}),
    "one for all": ("huber", LOGITS[:, :1].expand(6, STEPS, CLASSES), SHARES, {}),
    "one target for all": ("huber", LOGITS, SHARES[:1].expand(6, STEPS, CLASSES), {}),
    "both are left out": ("cross_entropy", LOGITS[:, 1:, :600], LABELS[:, 1:] % 600, {}),
    "classes first": ("cross_entropy", LOGITS[0].T, LABELS[0], {"axis": 0}),
    "steps first": (
        "cross_entropy", LOGITS.transpose(0, 1), LABELS.T, {"label_smoothing": 0.1}
    ),
    "cut pixels": ("cross_entropy", PICTURES[..., 3:-3, 5:-5], MASKS[:, 3:-3, 5:-5], {"axis": 1}),
    "one vector": ("cross_entropy", WIDE[0, 0, ::2], LABELS[0, 0], {}),
    "divergence of classes second": ("kl_divergence", LOGITS.transpose(1, 2), SHARES.transpose(
        1, 2), {"axis": 1}),
    "and they lie second": ("jensen_shannon", LOGITS, SHARES.softmax(1), {"axis": 1}),
    "regions": ("dice_cross_entropy", PICTURES[::2], MASKS[::2], {}),
    "regions with their channels": (
        "dice_cross_entropy", PICTURES.to(memory_format=torch.channels_last), MASKS, {}
    ),
}  # fmt: skip
HALVES = {
    "samples": ("cross_entropy", LOGITS, LABELS, {}),
    "all steps but the last": CASES["all steps but the last"],
    "pixels": ("cross_entropy", PICTURES, MASKS, {"axis": 1}),
    "elements": ("binary_cross_entropy", LOGITS, SHARES, {}),
    "elements in another order": CASES["elements in another order"],
    "every second one": CASES["every second one"],
    "divergence": ("jensen_shannon", LOGITS, SHARES, {}),
    "regions": ("dice_cross_entropy", PICTURES, MASKS, {}),
}


@pytest.fixture(params=["whole", "in slices"])
def sizes(request, monkeypatch):
    """With slices so small that these arrays have many, too."""
    if request.param == "in slices":
        for name, numbers in (("SLICE", 900), ("PIECE", 3000), ("SMALL", 20)):
            monkeypatch.setattr(slices, name, numbers)


def results(implementation, case, prediction, target, reduction="mean", weighted=False):
    """Value, unreduced values, gradients and value and gradient of (prediction, target)."""
    name, _, _, parameters = case
    loss = Loss(name, reduction=reduction, implementation=implementation, **parameters)
    # Detached, a view keeps its strides.
    leaf = prediction.detach().requires_grad_()
    units = loss.values(leaf.detach(), target)
    weights = torch.arange(units.numel(), dtype=torch.float32).view(units.shape) % 3
    value = loss(leaf, target, weights=weights if weighted else None)
    pull = torch.linspace(0.5, 1.5, value.numel()).view(value.shape)
    gradients = []
    total = (value * pull).sum()
    for _ in range(2):  # the first is kept from the forward pass, the second computed again
        gradients += torch.autograd.grad(total, leaf, retain_graph=True)
    direct = Loss(name, implementation=implementation, **parameters)
    return value, units, *gradients, *direct.value_and_grad(leaf.detach(), target)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("case", CASES)
def test_torch(case, reduction, weighted, sizes):
    name, prediction, target, parameters = case = CASES[case]
    found = [
        results(implementation, case, prediction, target, reduction, weighted)
        for implementation in ("numba", "definition")
    ]
    for ours, truth in zip(*found, strict=True):
        torch.testing.assert_close(ours, truth, rtol=2e-5, atol=1e-7)
    which = Loss(name, **parameters).explain(prediction, target).splitlines()[0]
    assert which.endswith(": native" if (name, "torch") in NATIVE else ": numba")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", HALVES)
def test_half_precision(case, reduction, weighted, dtype, sizes):
    name, prediction, target, parameters = case = HALVES[case]
    prediction = prediction.to(dtype)
    target = target.to(dtype) if target.is_floating_point() else target
    found = [
        results(implementation, case, prediction, target, reduction, weighted)
        for implementation in ("numba", "definition")
    ]
    # Both are computed in single precision and rounded once: at most to neighbours.
    rounding = torch.finfo(dtype).eps
    for ours, truth in zip(*found, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, truth, rtol=rounding, atol=2e-7)
        assert (ours != truth).float().mean() < 0.01 or ours.numel() < 100
    loss = Loss(name, reduction="mean", **parameters)
    assert loss.explain(prediction, target).splitlines()[0].endswith(": numba")


@pytest.mark.parametrize("scale", [1.0, 0.25, 3.0, 2.0**16])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_half_gradient_is_rounded_after_it_is_scaled(dtype, scale):
    """As of a loss that is scaled so that small slopes survive half precision."""
    found = []
    for implementation in ("numba", "definition"):
        loss = Loss("binary_cross_entropy", implementation=implementation)
        leaf = (8.0 * LOGITS).to(dtype).requires_grad_()
        value = loss(leaf, (SHARES > 0.1).to(dtype))
        found.append(torch.autograd.grad(value, leaf, torch.tensor(scale, dtype=torch.float32).to(
            dtype).clamp(max=60000.0))[0])  # fmt: skip
    torch.testing.assert_close(*found, rtol=torch.finfo(dtype).eps, atol=1e-7)
    assert (found[0] != found[1]).float().mean() < 0.01
    assert bool((found[0] != 0).any())


@pytest.mark.parametrize("case", ["gaps", "order", "half", "half gaps", "broadcast", "classes"])
def test_no_copy_of_the_whole_is_made(case):
    """What is allocated at once while the value is computed, beside the inputs."""
    name, scores = "cross_entropy", torch.randn(64, 100, 1000)
    target = torch.randint(0, 900, (64, 100))
    if case == "gaps":
        scores = scores[:, :, :900]
    elif case == "order":
        name, scores, target = (
            "binary_cross_entropy",
            scores.permute(2, 1, 0),
            scores.sigmoid().permute(2, 1, 0),
        )
    elif case.startswith("half"):
        scores = scores.bfloat16()
        scores = scores[..., ::2] if case == "half gaps" else scores
        target = target % 500
    elif case == "broadcast":
        name, target = "huber", scores[:1].expand(64, 100, 1000)
    else:
        scores, target = scores.movedim(2, 0)[None, :, :, 3:], target[None, :, 3:]
        scores = scores.transpose(2, 3)
        target = target.transpose(1, 2)
    loss = Loss(name, implementation="numba", **({"axis": 1} if case == "classes" else {}))
    for _ in range(2):  # the first way, and the shortcut
        with torch.profiler.profile(profile_memory=True) as profile:
            loss(scores, target)
        largest = max(event.self_cpu_memory_usage for event in profile.events())
        assert largest <= 4 * slices.SLICE


@pytest.mark.parametrize("threads", [1, 2])
def test_sums_do_not_depend_on_threads(threads, monkeypatch):
    monkeypatch.setattr(slices, "SLICE", 1 << 17)
    before = torch.get_num_threads()
    scores = torch.randn(900, 1100, generator=torch.Generator().manual_seed(3))[:, ::2]
    loss = Loss("binary_cross_entropy", implementation="numba", reduction="sum")
    expected = loss(scores, scores.sigmoid())
    torch.set_num_threads(threads)
    try:
        assert torch.equal(loss(scores, scores.sigmoid()), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_absent_units_are_not_read_into_the_result(dtype, sizes):
    scores, labels = LOGITS.to(dtype)[:, 1:].clone(), LABELS[:, 1:].clone()
    weights = torch.ones(6, STEPS - 1)
    weights[2, 3] = weights[5, 7] = 0.0
    scores[2, 3], labels[5, 7] = float("nan"), -100
    leaf = scores.transpose(0, 1).requires_grad_()
    found = []
    for implementation in ("numba", "definition"):
        loss = Loss("cross_entropy", implementation=implementation)
        mask = (weights != 0).T
        value = loss(leaf, labels.T.where(mask, 0), mask=mask)
        found.append((value, *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(*found, rtol=2e-5 if dtype == torch.float32 else 8e-3, atol=1e-7)
    assert found[0][0].isfinite()
    ignoring = Loss("cross_entropy", implementation="numba", ignore=-100)
    assert ignoring(leaf, labels.T).isnan()
    value = ignoring(leaf, labels.T, weights=weights.T)
    torch.testing.assert_close(value, found[0][0])


def test_not_a_number_comes_through(sizes):
    scores, target = LOGITS[..., ::2].clone(), SHARES[..., ::2]
    scores[1, 2, 3], scores[4, 5, 6], scores[0, 0, 0] = float("nan"), float("inf"), -float("inf")
    case = CASES["every second one"]
    found = [
        results(implementation, case, scores.transpose(0, 1), target.transpose(0, 1), "none")
        for implementation in ("numba", "definition")
    ]
    torch.testing.assert_close(*found, rtol=2e-5, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("case", CASES)
def test_numpy(case, sizes):
    name, prediction, target, parameters = CASES[case]
    prediction, target = prediction.numpy(), target.numpy()
    loss, truth = Loss(name, **parameters), Loss(name, implementation="definition", **parameters)
    for ours, right in zip(
        (*loss.value_and_grad(prediction, target), loss.values(prediction, target)),
        (*truth.value_and_grad(prediction, target), truth.values(prediction, target)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, right, rtol=2e-5, atol=1e-7)
    if not parameters.get("axis"):
        assert loss.explain(prediction, target).splitlines()[0].endswith(": numba")


def test_backwards():
    prediction, target = LOGITS.numpy()[::-1], LABELS.numpy()[:, ::-1]
    loss = Loss("cross_entropy", implementation="numba")
    expected = Loss("cross_entropy")(prediction.copy(), target.copy())
    assert loss(prediction, target) == pytest.approx(expected, rel=1e-6)


def test_second_derivatives():
    leaf = LOGITS[:, :40].double().requires_grad_()

    def slope(implementation):
        loss = Loss("cross_entropy", implementation=implementation, axis=1)
        lies = leaf.transpose(1, 2)
        (first,) = torch.autograd.grad(loss(lies, LABELS), leaf, create_graph=True)
        return torch.autograd.grad((first * leaf.detach()).sum(), leaf)[0]

    torch.testing.assert_close(slope("numba"), slope("definition"))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_second_derivatives_of_elements(dtype, reduction):
    leaf = LOGITS[:1].to(dtype).requires_grad_()
    target = SHARES[:1].to(dtype).transpose(1, 2)

    def slope(implementation):
        loss = Loss("binary_cross_entropy", implementation=implementation, reduction=reduction)
        value = loss(leaf.transpose(1, 2), target).float().sum()
        (first,) = torch.autograd.grad(value, leaf, create_graph=True)
        return torch.autograd.grad((first.float() * leaf.detach().float()).sum(), leaf)[0]

    torch.testing.assert_close(slope("numba"), slope("definition"))


def test_a_class_outside_is_found_where_it_is(sizes):
    labels = LABELS.clone()
    labels[3, 4] = CLASSES
    position = 3 * (STEPS - 1) + 3
    for scores in (LOGITS, LOGITS.bfloat16()):
        with pytest.raises(LossError, match=rf"position {position} is not in 0\.\.699"):
            Loss("cross_entropy", implementation="numba")(scores[:, :-1], labels[:, 1:])
    masks = MASKS.clone()
    masks[4, 20, 30] = 3
    for name, parameters in (("cross_entropy", {"axis": 1}), ("dice_cross_entropy", {})):
        loss = Loss(name, implementation="numba", **parameters)
        with pytest.raises(LossError, match=rf"position {(4 * 30 + 10) * 39 + 29} is not in"):
            loss(PICTURES[..., 10:, 1:], masks[:, 10:, 1:])


def test_classes_in_another_place_in_a_compiled_graph():
    scores, target = torch.randn(64, 40, 64).double(), torch.randn(64, 40, 64).double().softmax(1)
    loss = Loss("kl_divergence", axis=1)
    compiled = torch.compile(lambda p, t: loss(p, t), fullgraph=True)
    torch.testing.assert_close(compiled(scores, target), loss(scores, target))


@pytest.mark.parametrize("samples", [2, 140], ids=["small", "large"])
@pytest.mark.parametrize("case", ["shifted", "labels", "elements"])
def test_in_a_compiled_graph(case, samples):
    logits, labels = LOGITS.repeat(samples, 1, 2), LABELS.repeat(samples, 1)
    name, target = "cross_entropy", labels.t().contiguous().t()
    if case == "shifted":
        logits, target = logits[:, :-1], labels[:, 1:]
    elif case == "elements":
        name, logits, target = "binary_cross_entropy", logits[:, :-1], logits[:, 1:].sigmoid()
    leaf = logits.detach().requires_grad_()
    loss = Loss(name)
    compiled = torch.compile(lambda p, t: loss(p, t), fullgraph=True)
    found, expected = [
        (value := function(leaf, target), *torch.autograd.grad(value, leaf))
        for function in (compiled, Loss(name, implementation="definition"))
    ]
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-9)
