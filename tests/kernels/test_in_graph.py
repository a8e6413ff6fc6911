"""Kernels inside the graphs of torch.compile: they run, and give the definition's numbers."""

import pytest
import torch

from lossary import Loss
from lossary.contract import LossError

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


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_kernel_is_one_operation_of_the_graph(name):
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
    assert f"lossary.{name}_sum.default" in backend.targets
    assert "torch.compile: numba" in Loss(name, **given).explain(prediction, target)


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


def test_one_graph_serves_every_batch_size():
    loss = torch.compile(Loss("cross_entropy"), fullgraph=True, backend="aot_eager")
    for rows in (5000, 6000, 7):
        prediction, target = torch.randn(rows, 10), torch.randint(0, 10, (rows,))
        for tensor in (prediction, target):
            torch._dynamo.mark_dynamic(tensor, 0)
        with torch.compiler.set_stance("default" if rows == 5000 else "fail_on_recompile"):
            value = loss(prediction.requires_grad_(), target)
        torch.testing.assert_close(value, Loss("cross_entropy")(prediction, target))


def test_a_class_that_does_not_exist_is_an_error_in_a_graph_too():
    loss = torch.compile(Loss("cross_entropy"), fullgraph=True, backend="aot_eager")
    target = torch.zeros(4096, dtype=torch.int64)
    target[9] = 10
    with pytest.raises(LossError, match="position 9"):
        loss(torch.randn(4096, 10), target)
