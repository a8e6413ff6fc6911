"""PyTorch's own sample inputs for its losses, run through torch.nn and through lossary.torch.

Numbers and gradients must be equal, or differ exactly as DIFFERENCES says.
"""

import warnings
from pathlib import Path

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import lossary.torch
from lossary import contract_of
from lossary.contract import REGISTRY, key_of
from lossary.torch import TorchLossError
from lossary.torch.__main__ import drop_in_table
from lossary.torch.conventions import host_of

# Functions of torch.nn.functional whose names differ from their module's.
RENAMED = {
    "binary_cross_entropy": "bce",
    "binary_cross_entropy_with_logits": "bce_with_logits",
    "multilabel_soft_margin_loss": "multi_label_soft_margin",
    "multilabel_margin_loss": "multi_label_margin",
}


def _key(name):
    contract_of("mse")  # loads the registry
    return RENAMED.get(name, key_of(name))


def _hosted(name):
    key = _key(name)
    return key in REGISTRY and host_of(key) is not None


MODULES = [info for info in module_db if _hosted(info.module_cls.__name__)]
OPERATORS = [
    op
    for op in op_db
    if op.name.startswith("nn.functional.") and _hosted(op.name.rpartition(".")[2])
]


def refused(key, options, tensors):
    """What Lossary will not do silently, with the words of its message."""
    first, target = tensors[0], tensors[1]
    if options.get("margin", 0) < 0:
        return "margin=.* is outside"
    if key == "smooth_l1" and options.get("beta") == 0:
        return "beta=0 is outside"
    if key == "gaussian_nll" and target.shape != first.shape:
        return "nothing is broadcast"
    if key == "multi_label_margin" and first.ndim == 0:
        return "expected .labels,. or"
    if key == "multi_margin" and (first.ndim == 0 or target.ndim == first.ndim):
        return "multi_margin: "
    return None


def poisson_difference(options, tensors):
    """torch adds eps inside the logarithm, and Stirling's approximation instead of log(y!)."""
    rate, target = tensors
    gap = torch.zeros_like(rate)
    if not options.get("log_input", True):
        gap = gap - target * (torch.log(rate) - torch.log(rate + options.get("eps", 1e-8)))
    if options.get("full", False):
        stirling = target * torch.log(target) - target + 0.5 * torch.log(2 * torch.pi * target)
        gap = gap + torch.lgamma(target + 1) - torch.where(target > 1, stirling, 0.0)
    return {"none": gap, "sum": gap.sum(), "mean": gap.mean()}[options.get("reduction", "mean")]


def with_signs(key, tensors):
    """Targets that are neither 1 nor -1 are two things or none to PyTorch; to us they are -1."""
    spaces = list(REGISTRY[key][0].inputs.values())
    if spaces[-1].name != "sign" or key == "soft_margin":
        return tensors
    return (*tensors[:-1], torch.where(tensors[-1] > 0, 1, -1).to(tensors[-1].dtype))


def all_ignored(options, target):
    return not target.is_floating_point() and bool(
        (target == options.get("ignore_index", -100)).all()
    )


def compare(key, theirs, ours, options, tensors):
    tensors = with_signs(key, tensors)
    words = refused(key, options, tensors)
    if words is not None:
        with pytest.raises(TorchLossError, match=words):
            ours()(*tensors)
        return
    expected, value = theirs(*tensors), ours()(*tensors)
    wanted = [x for x in tensors if isinstance(x, torch.Tensor) and x.requires_grad]
    if all_ignored(options, tensors[1]) and options.get("reduction", "mean") == "mean":
        assert torch.isnan(expected)
        assert value == 0  # the mean over nothing
        return
    if key == "poisson_nll":
        wanted = wanted[:1]
    ours_gradient = torch.autograd.grad(value.sum(), wanted, retain_graph=True, allow_unused=True)
    if key == "poisson_nll":
        expected = expected + poisson_difference(options, tensors)
    near = {"rtol": 1e-9, "atol": 1e-12}
    if key == "triplet_margin":  # torch adds eps=1e-6 to every coordinate's difference
        near = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(value, expected, equal_nan=True, **near)
    gradient = torch.autograd.grad(expected.sum(), wanted, allow_unused=True)
    for one, other in zip(ours_gradient, gradient, strict=True):
        if other is not None and not (key == "multi_margin" and at_a_tie(one, other)):
            one = torch.zeros_like(other) if one is None else one
            torch.testing.assert_close(one, other, equal_nan=True, **near)


def at_a_tie(one, other):
    return bool(torch.isnan(one).any() or torch.isnan(other).any())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("info", MODULES, ids=lambda info: info.module_cls.__name__)
def test_module_samples(info):
    name, samples = info.module_cls.__name__, 0
    for sample in info.module_inputs_func(info, "cpu", torch.float64, True, True):
        options, arguments = sample.constructor_input.kwargs, sample.forward_input.args
        assert not sample.constructor_input.args
        assert not sample.forward_input.kwargs
        compare(
            key_of(name),
            info.module_cls(**options),
            lambda: getattr(lossary.torch, name)(**options),  # noqa: B023
            options,
            arguments,
        )
        samples += 1
    assert samples >= 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name.rpartition(".")[2])
def test_operator_samples(op):
    key, samples = _key(op.name.rpartition(".")[2]), 0
    for sample in op.sample_inputs("cpu", torch.float64, requires_grad=True):
        tensors, options = (sample.input, *sample.args), dict(sample.kwargs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compare(
                key,
                lambda *given: op.op(*given, **options),  # noqa: B023
                lambda: lossary.torch.get(key)(**options),  # noqa: B023
                options,
                tensors,
            )
        samples += 1
    assert samples >= 3


def test_every_loss_of_pytorch_is_here():
    """Every loss module of torch.nn but those that hold a layer of their own."""
    own_layer = {"AdaptiveLogSoftmaxWithLoss", "LinearCrossEntropyLoss"}
    found = [name for name in dir(torch.nn) if name.endswith("Loss") and name not in own_layer]
    assert [name for name in found if not _hosted(name)] == []
    assert len(found) >= 21


def test_the_documentation_holds_the_generated_table():
    page = Path(__file__).parents[2] / "docs" / "torch.md"
    assert drop_in_table() in page.read_text(), "run: python -m lossary.torch, and paste"
