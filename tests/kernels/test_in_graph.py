"""Kernels inside the graphs of torch.compile: they run, and give the definition's numbers."""

import inspect

import pytest
import torch
from tests.kernels.test_pointwise import columns, domain
from torch import nn

import lossary.torch
from lossary import Loss, kernels
from lossary.contract import LossError
from lossary.kernels import formulas, in_graph, in_torch, lowered

CASES = {
    "huber": (torch.randn(40_960), torch.randn(40_960), {"reduction": "sum", "delta": 0.5}),
    "cross_entropy": (
        torch.randn(4096, 10), torch.randint(0, 10, (4096,)), {"label_smoothing": 0.1}
    ),
    "kl_divergence": (
        torch.randn(400, 100), torch.randn(400, 100).softmax(1), {"reduction": "batch_mean"}
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _forget():
    torch._dynamo.reset()  # the compiler counts graphs per function, whatever the object


class _Counting:
    """A backend that runs the graph as it is and keeps the names of its operations."""

    def __init__(self):
        self.targets = []

    def __call__(self, graph, inputs):
        from functorch.compile import make_boxed_func
        from torch._dynamo.backends.common import aot_autograd

        def keep(inner, _):
            self.targets += [str(node.target) for node in inner.graph.nodes]
            return make_boxed_func(inner)

        return aot_autograd(fw_compiler=keep)(graph, inputs)


def _everything_is_large(monkeypatch):
    for limit, least in (("LARGE", (1, 1)), ("LARGE_COMPUTED", (1, 1)), ("LARGE_SOFTMAX", 1)):
        monkeypatch.setattr(lowered, limit, least)
    monkeypatch.setattr(in_graph, "LATER", {})


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_kernel_is_one_operation_of_the_graph(name, large, monkeypatch):
    """Of large arrays; what is smaller becomes a formula, where there is one."""
    if large:
        _everything_is_large(monkeypatch)
    prediction, target, given = CASES[name]
    found = []
    backend = _Counting()
    compiled = torch.compile(Loss(name, **given), fullgraph=True, backend=backend)
    for loss in (compiled, Loss(name, implementation="definition", **given)):
        leaf = prediction.clone().requires_grad_()
        value = 3 * loss(torch.tanh(leaf), target)
        value.backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*found, rtol=2e-5, atol=1e-8)
    expected = (
        [f"lossary.{name}_value_and_slopes.default"] if large or name == "kl_divergence" else []
    )
    assert [name for name in backend.targets if "lossary" in name] == expected
    assert "torch.compile: numba" in Loss(name, **given).explain(prediction, target)


def inputs_of(name, prediction, target):
    """The inputs of a loss, of which these are two."""
    names = kernels.inputs_of(name)
    if names == ("first", "second", "target"):
        return prediction, 0.5 * prediction + 1.0, target
    more = torch.linspace(0.25, 3.0, len(prediction))
    return (prediction, target, *[more] * (len(names) - 2))


FORMULAS = {
    name: {}
    for name, _ in inspect.getmembers(formulas, inspect.isfunction)
} | {
    "binary_cross_entropy": {"label_smoothing": 0.25, "pos_weight": 2.0},
    "binary_focal": {"gamma": 1.5, "alpha": 0.25},
    "tukey_biweight": {"scale": 2.0},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_a_formula_in_torch_is_the_kernels(name):
    """Also where the framework's own losses lose the gradient: at 20, and at infinity."""
    distances = torch.tensor([0.0, 1e-4, 0.3, 1.0, 5.0, 20.0, 60.0, torch.inf])
    prediction = torch.cat([distances, -distances]).repeat(2)
    target = torch.cat([torch.zeros(16), torch.ones(16)])
    prediction = torch.from_numpy(domain(name, prediction.numpy()))
    given = FORMULAS.get(name.partition("_of_")[0], {})
    parameters = Loss(name.partition("_of_")[0], **given).parameters
    arrays = columns(parameters, *inputs_of(name, prediction, target))
    values, *slopes = in_torch.formula(name, parameters)(*arrays)
    kernel = kernels.find(name, "torch", "numba")[0]
    expected = kernel.values(*arrays, **parameters)
    values = values.reshape(expected.shape)
    torch.testing.assert_close(values, expected, rtol=2e-6, atol=1e-37, equal_nan=True)
    for i in range(len(values)):
        _, found = kernel.value_and_grad(*(x[i : i + 1] for x in arrays), factor=1.0, **parameters)
        found = found if isinstance(found, tuple) else (found,)
        for slope, other in zip(slopes, found, strict=True):
            slope = slope.reshape(arrays[0].shape)[i : i + 1]
            torch.testing.assert_close(slope, other, rtol=2e-6, atol=1e-37, equal_nan=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.125])
@pytest.mark.parametrize("gap", [0.0, 1e-4, 1.0, 20.0, 80.0])
def test_the_formula_of_cross_entropy_is_right_at_its_tails(gap, smoothing):
    rows = [[gap, 0.0, -torch.inf], [gap, gap, 0.0], [0.0, -gap, -2 * gap]]
    logits = torch.tensor(rows).repeat_interleave(2, 0)
    target = torch.tensor([0, 1] * 3)
    leaf = logits.clone().requires_grad_()
    compute = in_torch.of_classes("cross_entropy", smoothing, soft=False)
    values = compute(leaf, target, None, -1)
    (slopes,) = torch.autograd.grad(values.sum(), leaf)
    exact = logits.double().requires_grad_()
    expected = Loss("cross_entropy", reduction="sum", label_smoothing=smoothing)(exact, target)
    expected.backward()
    torch.testing.assert_close(values.sum(), expected.detach().float(), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(slopes, exact.grad.float(), rtol=2e-6, atol=2e-8 * smoothing)


def test_small_and_unusual_calls_are_the_definitions():
    for prediction, target in (
        (torch.randn(100), torch.randn(100)),
        (torch.randn(300, 300).t(), torch.randn(300, 300)),
        (torch.randn(40_960).half(), torch.randn(40_960).half()),
        (torch.randn(40_960), torch.randn(40_960, requires_grad=True)),
    ):
        backend = _Counting()
        loss = torch.compile(Loss("huber"), fullgraph=True, backend=backend)
        leaf = prediction.clone().requires_grad_()
        loss(leaf, target).backward()
        assert backend.targets and not any("lossary" in name for name in backend.targets)


class _Marked(torch.Tensor):
    pass


def test_a_kind_of_tensor_of_its_own_is_the_definitions():
    for pair in ((torch.randn(9).as_subclass(_Marked), torch.randn(9)), (torch.randn(9),) * 2):
        seen = []

        def backend(graph, inputs, seen=seen):
            seen.extend(str(node.target) for node in graph.graph.nodes)
            return graph

        value = torch.compile(Loss("huber"), fullgraph=True, backend=backend)(*pair)
        ours = "lossary.reduced.default" in seen
        assert (type(value), ours) == (type(pair[0]), type(pair[0]) is torch.Tensor)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_one_graph_serves_every_batch_size(backend):
    """A formula of the compiler's, whose loops are quicker than an operation's call."""
    loss = torch.compile(Loss("cross_entropy"), fullgraph=True, backend=backend)
    for rows in (5000, 6000, 7000):
        leaf, target = torch.randn(rows, 10, requires_grad=True), torch.randint(0, 10, (rows,))
        twin = leaf.detach().clone().requires_grad_()
        for tensor in (leaf, target):
            torch._dynamo.mark_dynamic(tensor, 0)
        with torch.compiler.set_stance("default" if rows == 5000 else "fail_on_recompile"):
            value = loss(leaf, target)
        value.backward()
        expected = Loss("cross_entropy")(twin, target)
        expected.backward()
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(leaf.grad, twin.grad, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("wrong", [-1, 10])
def test_a_class_that_does_not_exist_is_an_error_in_a_graph_too(wrong, large, monkeypatch):
    if large:
        _everything_is_large(monkeypatch)
    loss = torch.compile(Loss("cross_entropy"), fullgraph=True, backend="aot_eager")
    target = torch.zeros(4096, dtype=torch.int64)
    target[9] = wrong
    kind, text = (LossError, "position 9") if large else (RuntimeError, "cross_entropy.*not in 0")
    with pytest.raises(kind, match=text):
        loss(torch.randn(4096, 10), target)


@pytest.mark.parametrize("rows", [1, 7])
def test_targets_of_another_length_are_not_broadcast(rows):
    loss = torch.compile(Loss("cross_entropy"), backend="aot_eager")
    with pytest.raises(Exception, match="cross_entropy: target has shape"):
        loss(torch.randn(8, 10), torch.zeros(rows, dtype=torch.int64))


def test_what_a_graph_asks_again_at_each_call():
    """Whatever the tracer reads of Lossary is compared at each call, before anything runs."""
    from torch._C._dynamo.eval_frame import _debug_get_cache_entry_list

    counts = []
    logits, target = torch.randn(32, 10), torch.randint(0, 10, (32,))
    for loss in (torch.nn.functional.cross_entropy, Loss("cross_entropy")):

        def call(prediction, target, loss=loss):
            return loss(prediction, target)

        torch.compile(call, fullgraph=True, backend="aot_eager")(logits, target)
        entry = _debug_get_cache_entry_list(call.__code__)[0]
        counts.append(str(entry.guard_manager).count("+-"))
    assert counts[1] < counts[0] + 50


@pytest.mark.parametrize("name", ["huber", "cross_entropy"])
def test_the_mean_of_nothing_is_zero_in_a_graph_too(name):
    loss = torch.compile(Loss(name), fullgraph=True, backend="aot_eager")
    target = torch.zeros(0, 3) if name == "huber" else torch.zeros(0, dtype=torch.int64)
    assert loss(torch.zeros(0, 3, requires_grad=True), target) == 0.0


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
def test_a_value_alone_is_one_operation_from_fewer_numbers_on(name, monkeypatch):
    monkeypatch.setattr(lowered, "LARGE_COMPUTED", (1 << 40, 1000))
    monkeypatch.setattr(lowered, "LARGE_SOFTMAX", 1000)
    prediction = torch.randn(200, 10)
    target = torch.randint(0, 10, (200,)) if name == "cross_entropy" else torch.rand(200, 10)
    for rows, expected in ((200, 1), (50, 0)):
        backend = _Counting()
        loss = torch.compile(Loss(name), fullgraph=True, backend=backend)
        value = loss(prediction[:rows], target[:rows])
        torch.testing.assert_close(value, Loss(name)(prediction[:rows], target[:rows]))
        assert sum("lossary" in name for name in backend.targets) == expected
        torch._dynamo.reset()


@pytest.mark.parametrize("name", ["huber", "cross_entropy"])
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
def test_sizes_that_depend_on_data(name):
    loss = Loss(name)
    target = torch.randn(200, 10) if name == "huber" else torch.randint(0, 10, (200,))
    chosen = torch.arange(200) % 3 == 0
    results = []
    for run in (
        lambda *x: loss(x[0][x[2]], x[1][x[2]]),
        torch.compile(lambda *x: loss(x[0][x[2]], x[1][x[2]]), fullgraph=True, backend="aot_eager"),
    ):
        torch.manual_seed(0)
        leaf = torch.randn(200, 10, requires_grad=True)
        value = run(leaf, target, chosen)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*results, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "mean_over_batch", "batch_mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [None, 0, 7, 240], ids=str)
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("more", ["alike", "class weights", "smoothed", "half", "double"])
def test_everything_that_comes_with_class_indices(
    more, axis, ignored, reduction, large, monkeypatch
):
    if large:
        _everything_is_large(monkeypatch)
        monkeypatch.setattr(in_graph, "SMALLEST", 1)
    kind = {"half": torch.bfloat16, "double": torch.float64}.get(more, torch.float32)
    torch.manual_seed(0)
    prediction = torch.randn(3, 4, 20, 4, dtype=kind).select(axis, 1).unsqueeze(axis)
    prediction = prediction.repeat_interleave(11, axis) + torch.randn(11).to(kind).view(
        [11 if each == axis % 4 else 1 for each in range(4)]
    )
    shape = prediction.movedim(axis, -1).shape[:-1]
    target = torch.randint(0, 11, shape)
    given = {"axis": axis, "reduction": reduction}
    if ignored is not None:
        target.view(-1)[:ignored] = -100
        given["ignore"] = -100
        absent = (target == -100).unsqueeze(axis)
        prediction = torch.where(absent, torch.nan, prediction)
    if more == "smoothed":
        given["label_smoothing"] = 0.1
    weights = torch.linspace(0.0, 2.0, 11, dtype=kind) if more == "class weights" else None
    found = []
    for implementation in ("auto", "definition"):
        loss = Loss("cross_entropy", implementation=implementation, **given)
        call = torch.compile(loss, fullgraph=True, backend="aot_eager")
        leaf = prediction.clone().requires_grad_()
        value = (call if implementation == "auto" else loss)(leaf, target, class_weights=weights)
        value.backward(torch.linspace(0.5, 1.5, value.numel(), dtype=kind).view(value.shape))
        found.append((value.detach(), leaf.grad))
    close = {"rtol": 1e-2, "atol": 1e-4} if more == "half" else {"rtol": 2e-5, "atol": 1e-6}
    torch.testing.assert_close(*found, **close)


@pytest.mark.parametrize("wrong", [-1, 10])
def test_weights_of_classes_hide_no_class_that_does_not_exist(wrong):
    loss = torch.compile(Loss("cross_entropy"), fullgraph=True, backend="aot_eager")
    target = torch.zeros(64, dtype=torch.int64)
    target[9] = wrong
    with pytest.raises(RuntimeError, match=r"cross_entropy.*not in 0"):
        loss(torch.randn(64, 10), target, class_weights=torch.ones(10))


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("binary_cross_entropy", "probabilities"),
        ("poisson_nll", "rates"),
        ("kl_divergence", "log_probabilities"),
    ],
)
def test_forms_in_graphs(name, form, reduction, large, monkeypatch):
    if large:
        _everything_is_large(monkeypatch)
        monkeypatch.setattr(in_graph, "SMALLEST", 1)
    prediction = torch.randn(30, 8).softmax(-1)
    prediction = prediction.log() if form == "log_probabilities" else prediction
    target = torch.randn(30, 8).softmax(-1)
    found = []
    for implementation in ("auto", "definition"):
        loss = Loss(name, predictions=form, reduction=reduction, implementation=implementation)
        call = torch.compile(loss, fullgraph=True, backend="aot_eager")
        leaf = prediction.clone().requires_grad_()
        value = (call if implementation == "auto" else loss)(leaf, target)
        value.sum().backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*found, rtol=2e-5, atol=1e-6)


BY_ROWS = ("multi_margin", "jensen_shannon", "triplet", "cosine_embedding", "ctc")


def _beside(name, what):
    """Inputs of a loss, and weights of rows or a mask beside them; what is masked is no number."""
    torch.manual_seed(3)
    real, positive = torch.randn(2, 40, 7), torch.rand(40, 7) + 0.25
    labels = torch.randint(0, 7, (40,))
    arrays = {
        "binary_cross_entropy": (real[0], torch.rand(40, 7)),
        "huber": (real[0], real[1]),
        "gaussian_nll": (real[0], real[1], positive),
        "margin_ranking": (real[0], real[1], real[0].sign()),
        "cross_entropy": (real[0], labels),
        "multi_margin": (real[0], labels),
        "jensen_shannon": (real[0], real[1].softmax(-1)),
        "triplet": (real[0], real[1], positive),
        "cosine_embedding": (real[0], real[1], labels.float().sub(3.0).sign()),
        "ctc": (
            torch.randn(40, 9, 7),
            torch.randint(1, 7, (40, 3)),
            torch.full((40,), 9),
            torch.full((40,), 3),
        ),
    }[name]
    rows = {"cross_entropy", *BY_ROWS}
    units = (40,) if name in rows else (40, 7)
    beside = {}
    if "weights" in what:
        beside["weights"] = torch.linspace(0.0, 2.0, 40)
    if "mask" in what:
        beside["mask"] = torch.rand(units) > 0.5
        shown = beside["mask"].reshape(*units, *(1,) * (arrays[0].ndim - len(units)))
        arrays = (torch.where(shown, arrays[0], torch.nan), *arrays[1:])
    return arrays, beside


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "mean_over_batch", "none"])
@pytest.mark.parametrize(
    "what", [(), ("weights",), ("mask",), ("weights", "mask")], ids=lambda what: "-".join(what)
)
@pytest.mark.parametrize(
    "name",
    [
        "binary_cross_entropy",
        "huber",
        "gaussian_nll",
        "margin_ranking",
        "cross_entropy",
        *BY_ROWS,
    ],
)
def test_weights_and_masks_come_into_the_graph(name, what, reduction, large, monkeypatch):
    if large:
        _everything_is_large(monkeypatch)
    arrays, beside = _beside(name, what)
    found = []
    for implementation in ("auto", "definition"):
        loss = Loss(name, reduction=reduction, implementation=implementation)
        backend = _Counting()
        call = torch.compile(loss, fullgraph=True, backend=backend)
        leaves = [
            array.clone().requires_grad_(place in kernels.differentiated(name))
            for place, array in enumerate(arrays)
        ]
        value = (call if implementation == "auto" else loss)(*leaves, **beside)
        value.backward(torch.linspace(0.5, 1.5, value.numel()).view(value.shape))
        found.append([value.detach(), *(leaf.grad for leaf in leaves if leaf.requires_grad)])
        if implementation == "auto" and (large or name not in in_graph.LATER):
            # Its slopes come from a formula or a kernel, not from a tape.
            assert not any("backward" in target for target in backend.targets)
            if name in BY_ROWS:
                assert f"lossary.{name}_value_and_slopes.default" in backend.targets
    torch.testing.assert_close(*found, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 7)])
def test_positive_weights_come_into_the_graph(shape, reduction):
    (prediction, target), _ = _beside("binary_cross_entropy", ())
    positive = torch.rand(shape) * 4
    if shape == (3, 7):  # broadcast over rows of three: no such kernel
        prediction, target = torch.randn(5, 3, 7), torch.rand(5, 3, 7)
    found = []
    for library in (lossary.torch, torch.nn):
        module = library.BCEWithLogitsLoss(pos_weight=positive, reduction=reduction)
        leaf = prediction.clone().requires_grad_()
        call = torch.compile(module, fullgraph=True, backend="aot_eager")
        value = call(leaf, target)
        value.sum().backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*found, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_distributions_as_targets_come_into_the_graph(axis, reduction):
    torch.manual_seed(4)
    logits = torch.randn(9, 6, 6) * 5.0
    logits[0, 0], logits[1, 0, 0] = 2.0, -torch.inf  # ties, and an impossible class
    target = torch.randn(9, 6, 6).softmax(axis)
    target[1, 0, 0] = 0.0
    target[2] = torch.eye(6)
    target[3] *= 2.0
    found = []
    for kind, implementation in ((torch.float32, "auto"), (torch.float64, "definition")):
        loss = Loss("cross_entropy", axis=axis, reduction=reduction, implementation=implementation)
        backend = _Counting()
        call = torch.compile(loss, fullgraph=True, backend=backend)
        leaf = logits.to(kind, copy=True).requires_grad_()
        value = (call if implementation == "auto" else loss)(leaf, target.to(kind))
        value.sum().backward()
        found.append((value.detach().float(), leaf.grad.float()))
        assert not any("backward" in target for target in backend.targets)
    torch.testing.assert_close(*found, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("pixels", [(), (4, 5)])
def test_log_probabilities_come_into_the_graph(pixels, reduction, weighed):
    torch.manual_seed(5)
    prediction = torch.randn(60, 7, *pixels).log_softmax(1)
    target = torch.randint(0, 7, (60, *pixels))
    target[::7] = -100
    weight = torch.linspace(0.0, 2.0, 7) if weighed else None
    found = []
    for library in (lossary.torch, torch.nn):
        backend = _Counting()
        call = torch.compile(
            library.NLLLoss(weight=weight, reduction=reduction), fullgraph=True, backend=backend
        )
        leaf = prediction.clone().requires_grad_()
        value = call(leaf, target)
        value.backward(torch.linspace(0.5, 1.5, value.numel()).view(value.shape))
        found.append((value.detach(), leaf.grad))
        if library is lossary.torch:
            assert not any("gather_backward" in name or "index_add" in name
                           for name in backend.targets)  # fmt: skip
            assert "aten.scatter.src" in backend.targets
    torch.testing.assert_close(*found, rtol=2e-6, atol=1e-7)
    wrong = target.clone()
    wrong[1] = 7
    with pytest.raises(RuntimeError, match="class index"):
        torch.compile(lossary.torch.NLLLoss(), backend="aot_eager")(prediction, wrong)


def test_ignored_classes_of_margins_come_into_the_graph():
    torch.manual_seed(6)
    prediction, target = torch.randn(60, 7), torch.randint(0, 7, (60,))
    target[::7] = -100
    prediction[::7] = torch.nan
    found = []
    for implementation in ("auto", "definition"):
        loss = Loss("multi_margin", ignore=-100, implementation=implementation)
        backend = _Counting()
        call = torch.compile(loss, fullgraph=True, backend=backend)
        leaf = prediction.clone().requires_grad_()
        value = (call if implementation == "auto" else loss)(leaf, target)
        value.backward()
        found.append((value.detach(), leaf.grad))
        if implementation == "auto":
            assert "lossary.multi_margin_value_and_slopes.default" in backend.targets
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("rows", [4, 400])
def test_labels_by_index_end_at_minus_one_in_a_graph_too(rows):
    """PyTorch's own graphs, up to 2.13, count what follows as class 0."""
    labels = torch.tensor([[0, 2, -1, -1, -1], [1, -1, 3, 0, 2], [0, 1, 2, 3, 4], [-1] * 5])
    prediction, labels = torch.randn(rows, 5), labels.repeat(rows // 4, 1)
    found = []
    for module in (torch.compile(lossary.torch.MultiLabelMarginLoss()), nn.MultiLabelMarginLoss()):
        leaf = prediction.clone().requires_grad_()
        value = module(leaf, labels)
        value.backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("reduction", ["batchmean", "mean", "sum", "none"])
def test_targets_that_are_logarithms(reduction):
    """Also where a probability is 0, and where it is too small for a number of its own."""
    prediction = torch.randn(6, 5).log_softmax(-1)
    target = torch.randn(6, 5).log_softmax(-1)
    target[0, 2], target[1, 1], prediction[2, 3] = -torch.inf, -120.0, -torch.inf
    exact = torch.where(target == -torch.inf, 0.0, target.exp() * (target - prediction)).double()
    results = []
    module = lossary.torch.KLDivLoss(reduction=reduction, log_target=True)
    for run in (module, torch.compile(module, fullgraph=True, backend="aot_eager")):
        leaf = prediction.clone().requires_grad_()
        value = run(leaf, target)
        (slopes,) = torch.autograd.grad(value.sum(), leaf)
        results.append((value.detach(), slopes))
    torch.testing.assert_close(*results, rtol=1e-6, atol=0.0)
    divisor = {"batchmean": 6, "mean": 30}.get(reduction, 1)
    reduced = exact if reduction == "none" else exact.sum() / divisor
    torch.testing.assert_close(results[1][0].double(), reduced, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(results[1][1], -target.exp() / divisor, rtol=1e-6, atol=0.0)
