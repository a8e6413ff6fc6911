"""Products of slices of scores: MKL's and oneDNN's, on any processor."""

import pytest
import torch

from lossary import Loss
from lossary.kernels.chunked import products_torch as products
from lossary.kernels.chunked.contrast_torch import info_nce
from lossary.kernels.chunked.linear_torch import linear_cross_entropy


@pytest.fixture(params=["MKL", "oneDNN"])
def way(request, monkeypatch):
    assert hasattr(torch.ops.mkldnn, "_linear_pointwise")  # PyTorch's own; not every release's
    monkeypatch.setattr(products, "_vectors_left_over", lambda: request.param == "oneDNN")
    assert products.by_onednn(torch.ones(3)) == (request.param == "oneDNN")
    return request.param


@pytest.mark.parametrize("sizes", [(1300, 77, 33), (5, 3, 1), (1, 1, 4), (0, 3, 4), (9, 4, 0)])
@pytest.mark.parametrize("turning", [False, True])
def test_products_are_right_block_by_block(way, monkeypatch, sizes, turning):
    monkeypatch.setattr(products, "_BLOCK", 5000)  # the last block is shorter
    n, rows_, features = sizes
    generator = torch.Generator().manual_seed(0)
    columns, rows, scores, into = (
        torch.randn(shape, generator=generator)
        for shape in ((n, features), (rows_, features), (n, rows_), (n, features))
    )
    columns = columns.t().contiguous().t() if turning else columns  # classes may lie as they will
    exact = {"rtol": 1e-5, "atol": 1e-4, "check_dtype": False}
    out = torch.empty(n, rows_)
    products.score(columns, rows, out)
    torch.testing.assert_close(out, columns.double() @ rows.double().t(), **exact)
    found = torch.empty(rows_, features)
    for given in (None, products.turned(columns)):
        products.gather(scores, columns, found.fill_(torch.nan), given)
        torch.testing.assert_close(found, scores.double().t() @ columns.double(), **exact)
    expected = scores.double() @ rows.double()
    total = into.clone()
    products.add(total, scores, rows)
    torch.testing.assert_close(total, into + expected, **exact)
    products.add(total.fill_(torch.nan), scores, rows, first=True)
    torch.testing.assert_close(total, expected, **exact)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # from PyTorch's own switch
def test_others_stay_with_mkl(way):
    assert not products.by_onednn(torch.ones(3), torch.ones(3, dtype=torch.float64))
    assert not products.by_onednn(torch.ones(3, dtype=torch.bfloat16))
    with torch.backends.mkldnn.flags(enabled=False):  # as a user may
        assert not products.by_onednn(torch.ones(3))


def _gradients(compute, *arrays):
    leaves = [x.clone().requires_grad_() for x in arrays]
    value = compute(*leaves)
    value.backward()
    return value.detach(), *(leaf.grad for leaf in leaves)


@pytest.mark.parametrize("symmetric", [False, True])
def test_contrast_is_the_definitions(way, symmetric):
    queries, keys = torch.randn(2, 700, 40, generator=torch.Generator().manual_seed(1))
    loss = Loss("info_nce", symmetric=symmetric, temperature=0.1, implementation="definition")
    expected = _gradients(loss, queries.double(), keys.double())

    def ours(one, other):
        return info_nce(one, other, symmetric=symmetric, temperature=0.1, budget=1 << 20)

    found = _gradients(ours, queries, keys)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7, check_dtype=False)


def test_a_layer_is_the_definitions_with_any_threads(way):
    generator = torch.Generator().manual_seed(2)
    hidden, weight = (torch.randn(n, 50, generator=generator) for n in (900, 700))
    target = torch.randint(0, 700, (900,), generator=generator)
    loss = Loss("cross_entropy", implementation="definition")

    def ours(one, other):
        return linear_cross_entropy(one, other, target, budget=1 << 20)

    def whole(one, other):
        return loss(one @ other.t(), target)

    found = _gradients(ours, hidden, weight)
    expected = _gradients(whole, hidden.double(), weight.double())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7, check_dtype=False)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        again = _gradients(ours, hidden, weight)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(found, again, rtol=1e-5, atol=1e-8)
