"""Sliced losses against the plain composition, for every option and budget."""

import math

import pytest
import torch
from torch.nn import functional

from lossary.contract import LossError
from lossary.kernels.chunked.linear_torch import linear_cross_entropy

OPTIONS = {
    "plain": {},
    "bias": {"bias": True},
    "smoothing": {"label_smoothing": 0.1},
    "classes": {"class_weights": True, "label_smoothing": 0.1},
    "z": {"z_loss": 1e-2},
    "cap": {"softcap": 5.0, "bias": True},
    "all": {
        "bias": True,
        "label_smoothing": 0.2,
        "class_weights": True,
        "z_loss": 0.1,
        "softcap": 8.0,
    },
}


def _case(options, rows=300, features=12, classes=37):
    torch.manual_seed(1)
    hidden = torch.randn(3, rows // 3, features, dtype=torch.float64)
    weight = torch.randn(classes, features, dtype=torch.float64)
    target = torch.randint(0, classes, (3, rows // 3))
    target[0, :7] = -100
    options = dict(options)
    for name in ("bias", "class_weights"):
        if options.get(name):
            options[name] = torch.rand(classes, dtype=torch.float64) + 0.2
    return hidden, weight, target, options


def _composed(hidden, weight, target, *, bias=None, label_smoothing=0.0, class_weights=None,
              z_loss=0.0, softcap=None, reduction="mean"):  # fmt: skip
    logits = functional.linear(hidden, weight, bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits.flatten(0, -2)
    flat = target.flatten()
    values = functional.cross_entropy(
        logits, flat, weight=class_weights, label_smoothing=label_smoothing, reduction="none"
    )
    counts = flat != -100
    values = torch.where(counts, values + z_loss * torch.logsumexp(logits, 1) ** 2, 0.0)
    if reduction == "none":
        return values.reshape(target.shape)
    if reduction == "sum":
        return values.sum()
    measure = counts.double()
    if class_weights is not None:
        measure = measure * class_weights[torch.where(counts, flat, 0)]
    return values.sum() / measure.sum()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_every_option_agrees_with_the_composition(options, reduction):
    hidden, weight, target, given = _case(options)
    upstream = torch.randn(target.shape, dtype=torch.float64) if reduction == "none" else 1.7
    results = []
    for function, extra in ((linear_cross_entropy, {"budget": 0}), (_composed, {})):
        leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        chosen = dict(given)
        if "bias" in chosen:
            chosen["bias"] = chosen["bias"].clone().requires_grad_()
            leaves.append(chosen["bias"])
        value = function(leaves[0], leaves[1], target, reduction=reduction, **chosen, **extra)
        (value * upstream).sum().backward()
        results.append((value.detach(), *(leaf.grad for leaf in leaves)))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


def test_the_digits_of_a_sure_prediction():
    hidden = torch.eye(2, dtype=torch.float32)[:1].requires_grad_()
    weight = torch.tensor([[20.0, 0.0], [0.0, 0.0]])
    value = linear_cross_entropy(hidden, weight, torch.tensor([0]))
    value.backward()
    assert math.isclose(value.item(), math.log1p(math.exp(-20)), rel_tol=3e-7)
    assert math.isclose(hidden.grad[0, 0].item(), -20 * 2.0611536e-9, rel_tol=1e-6)


def test_budgets_agree_and_half_precision_is_summed_in_single():
    torch.manual_seed(0)
    hidden, weight = torch.randn(2000, 32), torch.randn(500, 32) * 0.1
    target = torch.randint(0, 500, (2000,))

    def gradient(dtype, budget):
        leaf = weight.to(dtype).clone().requires_grad_()
        linear_cross_entropy(hidden.to(dtype), leaf, target, budget=budget).backward()
        return leaf.grad

    exact = gradient(torch.float64, 0)
    for budget in (0, 2**20, 2**30):
        torch.testing.assert_close(
            gradient(torch.float32, budget), exact.float(), rtol=1e-4, atol=1e-7
        )
    errors = [
        ((gradient(torch.bfloat16, budget).double() - exact).norm() / exact.norm()).item()
        for budget in (0, 2**30)
    ]
    assert errors[0] < 1.3 * errors[1]


def test_ignored_rows_and_bad_input():
    hidden, weight, target, _ = _case({})
    hidden[0, :7] = float("nan")
    value = linear_cross_entropy(hidden.requires_grad_(), weight, target, budget=0)
    value.backward()
    assert torch.isfinite(value)
    assert not hidden.grad[0, :7].any() and torch.isfinite(hidden.grad).all()
    nothing = linear_cross_entropy(hidden, weight, torch.full_like(target, -100))
    assert nothing.item() == 0
    target[1, 1] = 37
    with pytest.raises(LossError, match=r"target 37 is not a class of 0\.\.36"):
        linear_cross_entropy(hidden, weight, target)
    with pytest.raises(LossError, match="do not fit"):
        linear_cross_entropy(hidden, weight.t(), target)
    with pytest.raises(LossError, match="reduction"):
        linear_cross_entropy(hidden, weight, target, reduction="batch")
