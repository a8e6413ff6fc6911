"""Calls without detours: what is remembered of the first call must hold for the next ones."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import lossary.torch
from lossary import Loss, LossError, evaluate

LOGITS = torch.randn(96, 10, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 10, (96,), generator=torch.Generator().manual_seed(1))
REDUCTIONS = ["none", "sum", "mean", "mean_over_batch", "batch_mean"]


def with_slope(loss, prediction, target, **more):
    leaf = prediction.clone().requires_grad_()
    value = loss(leaf, target, **more)
    pull = torch.linspace(0.5, 1.5, value.numel()).view(value.shape)
    value.backward(pull)
    with torch.no_grad():
        torch.testing.assert_close(loss(prediction, target, **more), value)
    return value.detach(), leaf.grad


@pytest.fixture
def no_detours(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the call took the long way")

    return lambda: monkeypatch.setattr(evaluate, "prepare", refuse)


@pytest.mark.parametrize("weighed", [False, True], ids=["alike", "class weights"])
@pytest.mark.parametrize("ignored", [0, 5, 96])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ignored_classes(reduction, ignored, weighed, no_detours):
    target = LABELS.clone()
    target[:ignored] = -100
    logits = LOGITS.clone()
    logits[:ignored] = torch.nan  # absent: no NaN comes through
    more = {"class_weights": torch.linspace(0.0, 2.0, 10)} if weighed else {}
    ours, truth = (
        Loss("cross_entropy", ignore=-100, reduction=reduction, implementation=implementation)
        for implementation in ("auto", "definition")
    )
    expected = with_slope(truth, logits, target, **more)
    # Learned from a call of which nothing is ignored.
    with_slope(ours, LOGITS, LABELS, **more)
    no_detours()
    torch.testing.assert_close(with_slope(ours, logits, target, **more), expected)


def test_class_weights_are_read_again_when_they_have_changed():
    weights = torch.ones(10)
    loss = Loss("cross_entropy")
    for _ in range(3):
        loss(LOGITS, LABELS, class_weights=weights)
    weights[3] = 5.0
    truth = Loss("cross_entropy", implementation="definition")
    expected = truth(LOGITS, LABELS, class_weights=weights)
    torch.testing.assert_close(loss(LOGITS, LABELS, class_weights=weights), expected)
    other = torch.linspace(0.1, 1.0, 10)
    expected = truth(LOGITS, LABELS, class_weights=other)
    torch.testing.assert_close(loss(LOGITS, LABELS, class_weights=other), expected)


@pytest.mark.parametrize("wrong", [-1, 10])
@pytest.mark.parametrize("ignore", [None, -100])
def test_a_class_that_does_not_exist_is_an_error_each_time(wrong, ignore):
    target = LABELS.clone()
    target[7] = wrong
    loss = Loss("cross_entropy", ignore=ignore)
    for more in ({}, {"class_weights": torch.ones(10)}):
        loss(LOGITS, LABELS, **more)
        for _ in range(2):
            with pytest.raises(LossError, match="position 7"):
                loss(LOGITS, target, **more)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["huber", "binary_cross_entropy", "focal_loss"])
@pytest.mark.parametrize("size", [40, 5000])
def test_unreduced(name, size, dtype, no_detours):
    prediction = torch.linspace(-4, 4, size).to(dtype)
    target = (torch.arange(size) % 2).to(dtype)
    ours = Loss(name, reduction="none")
    truth = Loss(name, reduction="none", implementation="definition")
    expected = with_slope(truth, prediction, target)
    exact = {} if dtype != torch.bfloat16 else {"rtol": 8e-3, "atol": 1e-6}
    torch.testing.assert_close(with_slope(ours, prediction, target), expected, **exact)
    # Smaller ones are the definition's, or torch's operation's, which takes no half precision.
    if size > 256 and (name != "huber" or dtype != torch.bfloat16):
        no_detours()
        torch.testing.assert_close(with_slope(ours, prediction, target), expected, **exact)


# -- one number for each class --------------------------------------------------------------------


def _one_for_each_class(classes):
    """Losses, with the parameters that have one number for each class."""
    rise = tuple(np.linspace(0.25, 4.0, classes).tolist())
    return {
        "binary_cross_entropy": {"pos_weight": rise, "label_smoothing": 0.1},
        "real_world_weight_multilabel_cross_entropy": {
            "false_negative_costs": rise, "false_positive_costs": rise[::-1],
        },
    }  # fmt: skip


@pytest.mark.parametrize("shape", [(300, 7), (5, 9, 257), (4, 5000), (3, 0)], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", _one_for_each_class(1))
def test_a_number_for_each_class(shape, reduction, name):
    given = _one_for_each_class(shape[-1])[name]
    rng = np.random.default_rng(0)
    logits = rng.normal(size=shape).astype("float32")
    target = (rng.random(shape) > 0.5).astype("float32")
    ours, truth = (
        Loss(name, reduction=reduction, implementation=implementation, **given)
        for implementation in ("auto", "definition")
    )
    np.testing.assert_allclose(ours(logits, target), truth(logits, target), rtol=3e-6)
    one, two = torch.from_numpy(logits), torch.from_numpy(target)
    torch.testing.assert_close(with_slope(ours, one, two), with_slope(truth, one, two))
    if one.numel():
        assert ours.explain(one, two).splitlines()[0].endswith("numba")
        assert ours.explain(logits, target).splitlines()[0].endswith("numba")
        # In another order in memory, classes no longer lie next to each other.
        one, two = (x.mT.contiguous().mT for x in (one, two))
        torch.testing.assert_close(with_slope(ours, one, two), with_slope(truth, one, two))


def test_the_modules_positive_weight_is_read_again_when_it_has_changed():
    ours = lossary.torch.BCEWithLogitsLoss(pos_weight=torch.ones(10))
    theirs = torch.nn.BCEWithLogitsLoss(pos_weight=torch.ones(10))
    target = (LOGITS > 1).float()
    for change in (
        lambda module: None,
        lambda module: module.pos_weight.mul_(3),
        lambda module: module.load_state_dict({"pos_weight": torch.linspace(1, 2, 10)}),
        lambda module: setattr(module, "pos_weight", torch.tensor([7.0])),
        lambda module: setattr(module, "pos_weight", torch.rand(96, 10)),
    ):
        torch.manual_seed(0)
        change(ours)
        torch.manual_seed(0)
        change(theirs)
        for _ in range(2):
            expected = with_slope(theirs, LOGITS, target)
            torch.testing.assert_close(with_slope(ours, LOGITS, target), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CrossEntropyLoss", {}),
        ("CrossEntropyLoss", {"reduction": "none", "label_smoothing": 0.1}),
        ("CrossEntropyLoss", {"weight": torch.rand(10)}),
        ("BCEWithLogitsLoss", {"pos_weight": torch.tensor([3.0])}),
        ("BCEWithLogitsLoss", {"reduction": "none"}),
        ("BCELoss", {}),
        ("MSELoss", {}),
        ("PoissonNLLLoss", {"log_input": False}),
        ("KLDivLoss", {"reduction": "batchmean"}),
    ],
)
def test_modules_take_the_short_way(name, options, no_detours):
    positive = name in ("BCELoss", "PoissonNLLLoss")
    prediction = torch.sigmoid(LOGITS) if positive else LOGITS
    target = LABELS if name == "CrossEntropyLoss" else (LOGITS > 0).float()
    ours = getattr(lossary.torch, name)(**options)
    expected = with_slope(getattr(torch.nn, name)(**options), prediction, target)
    torch.testing.assert_close(with_slope(ours, prediction, target), expected)
    no_detours()
    torch.testing.assert_close(with_slope(ours, prediction, target), expected)


def test_the_modules_positive_weight_where_no_number_can_be_read():
    weight = torch.linspace(0.5, 2.0, 10)
    module = lossary.torch.BCEWithLogitsLoss(pos_weight=weight)
    target = (LOGITS > 0).float()
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert module(LOGITS.new_zeros(4, 10), LOGITS.new_zeros(4, 10)).shape == ()
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=weight)(LOGITS, target)
    for seen in (
        module,
        torch.export.export(module, (LOGITS, target)).module(),
        make_fx(module)(LOGITS, target),
        torch.compile(module, fullgraph=True, backend="aot_eager"),
    ):
        torch.testing.assert_close(seen(LOGITS, target), expected)
    rows = torch.func.vmap(module)(LOGITS, target)
    torch.testing.assert_close(rows.mean(), expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("what", [("weights",), ("mask",), ("weights", "mask")], ids="-".join)
@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "gaussian_nll"])
def test_weights_and_masks(name, what, reduction, no_detours):
    generator = torch.Generator().manual_seed(5)
    more = {"cross_entropy": (LABELS,), "binary_cross_entropy": (LOGITS.sigmoid(),)}.get(
        name, (LOGITS.flip(0), LOGITS.exp())
    )
    units = more[0].shape
    first, again = {}, {}
    for into in (first, again):  # weights of rows, a mask of units
        if "weights" in what:
            into["weights"] = torch.rand(96, generator=generator)
        if "mask" in what:
            into["mask"] = torch.rand(units, generator=generator) > 0.5
    ours, truth = (
        Loss(name, reduction=reduction, implementation=implementation)
        for implementation in ("auto", "definition")
    )
    logits = LOGITS
    if "mask" in what:
        shown = again["mask"].unsqueeze(-1) if name == "cross_entropy" else again["mask"]
        logits = torch.where(shown, LOGITS, torch.nan)

    def call(loss):
        return lambda prediction, _, **beside: loss(prediction, *more, **beside)

    expected = with_slope(call(truth), logits, None, **again)
    with_slope(call(ours), LOGITS, None, **first)
    no_detours()
    torch.testing.assert_close(with_slope(call(ours), logits, None, **again), expected)


def test_nothing_counts_where_all_is_masked():
    loss, mask = Loss("binary_cross_entropy"), torch.ones(96, dtype=torch.bool)
    for shown in (mask, ~mask, ~mask):
        leaf = LOGITS.clone().requires_grad_()
        value = loss(leaf, LOGITS.sigmoid(), mask=shown)
        value.backward()
        assert bool(value == 0) == bool(leaf.grad.abs().sum() == 0) == (not shown.any())


def test_weights_that_are_learned_get_their_gradient():
    weights = torch.rand(96, generator=torch.Generator().manual_seed(6))
    loss = Loss("binary_cross_entropy", reduction="sum")
    for _ in range(2):
        loss(LOGITS, LOGITS.sigmoid(), weights=weights)
    learned = weights.clone().requires_grad_()
    loss(LOGITS, LOGITS.sigmoid(), weights=learned).backward()
    each = Loss("binary_cross_entropy", reduction="none")(LOGITS, LOGITS.sigmoid())
    torch.testing.assert_close(learned.grad, each.sum(1))


def test_definitions_that_ran_before_leave_the_short_way_open():
    script = (
        "import torch; from lossary import Loss, contract_of; from lossary import evaluate\n"
        "x, t, w = torch.randn(96, 10), torch.zeros(96, dtype=torch.int64), torch.ones(10)\n"
        "contract_of('cross_entropy').compute(x, t)\n"
        "loss = Loss('cross_entropy'); loss(x, t, class_weights=w); del evaluate.prepare\n"
        "print(float(loss(x, t, class_weights=w)) > 0)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.strip() == "True", found.stderr
