"""Arrays with gaps: kernels read them where they lie, and what they compute is the definition's."""

import numpy as np
import pytest
import torch

from lossary import Loss, LossError

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
    "regions": ("dice_cross_entropy", PICTURES[::2], MASKS[::2], {}),
}  # fmt: skip


@pytest.fixture
def no_copies(monkeypatch):
    """Fails where a tensor of real numbers is copied to close its gaps."""
    plain = torch.Tensor.contiguous

    def contiguous(self, *given, **named):
        assert not self.is_floating_point() or self.is_contiguous()
        return plain(self, *given, **named)

    monkeypatch.setattr(torch.Tensor, "contiguous", contiguous)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("case", CASES)
def test_torch(case, reduction, weighted, no_copies):
    name, prediction, target, parameters = CASES[case]
    found = []
    for implementation in ("numba", "definition"):
        loss = Loss(name, reduction=reduction, implementation=implementation, **parameters)
        # Detached, a view keeps its strides.
        leaf = prediction.detach().requires_grad_()
        units = loss.values(leaf.detach(), target)
        weights = torch.arange(units.numel(), dtype=units.dtype).view(units.shape) % 3
        value = loss(leaf, target, weights=weights if weighted else None)
        pull = torch.linspace(0.5, 1.5, value.numel()).view(value.shape)
        (gradient,) = torch.autograd.grad((value * pull).sum(), leaf)
        direct = Loss(name, implementation=implementation, **parameters)
        found.append((value, units, gradient, *direct.value_and_grad(leaf.detach(), target)))
    for ours, truth in zip(*found, strict=True):
        torch.testing.assert_close(ours, truth, rtol=2e-5, atol=1e-7)
    loss = Loss(name, **parameters)
    assert loss.explain(prediction, target).splitlines()[0].endswith(": numba")


@pytest.mark.parametrize("case", CASES)
def test_numpy(case):
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


def test_a_class_outside_is_found_where_it_is():
    labels = LABELS.clone()
    labels[3, 4] = CLASSES
    position = 3 * (STEPS - 1) + 3
    with pytest.raises(LossError, match=rf"position {position} is not in 0\.\.699"):
        Loss("cross_entropy", implementation="numba")(LOGITS[:, :-1], labels[:, 1:])


def test_many_or_irregular_gaps_are_left_to_the_definition():
    loss = Loss("cross_entropy")
    assert "gap" in loss.explain(LOGITS[:, :1, :600], LABELS[:, :1])
    assert "gap" in loss.explain(LOGITS[:, 1:, :600], LABELS[:, 1:])


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
