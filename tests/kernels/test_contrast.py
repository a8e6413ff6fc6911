"""Contrastive losses by slices against the definitions, for small budgets and large."""

import pytest
import torch
from torch.nn import functional

from lossary.contract import LossError, contract_of
from lossary.kernels.chunked import contrast_torch as sliced


def _pairs(n=200, features=16):
    torch.manual_seed(3)
    return torch.randn(2, n, features, dtype=torch.float64)


def _gradients(function, *tensors):
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    value = function(*leaves)
    value.backward()
    return (value.detach(), *(leaf.grad for leaf in leaves))


def _assert_same(mine, theirs):
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("budget", [0, 2**30])
@pytest.mark.parametrize("symmetric", [False, True])
def test_info_nce(budget, symmetric):
    define = contract_of("info_nce").compute
    given = {"temperature": 0.3, "symmetric": symmetric}
    _assert_same(
        _gradients(lambda q, k: 1.3 * sliced.info_nce(q, k, budget=budget, **given), *_pairs()),
        _gradients(lambda q, k: 1.3 * define(q, k, **given).mean(), *_pairs()),
    )


@pytest.mark.parametrize("budget", [0, 2**30])
def test_supervised_contrastive(budget):
    target = torch.arange(200) % 40
    target[5] = 99  # alone in its class
    define = contract_of("supervised_contrastive").compute

    def definition(p):
        return define(p, target, temperature=0.2)[torch.arange(200) != 5].mean()

    _assert_same(
        _gradients(
            lambda p: sliced.supervised_contrastive(p, target, temperature=0.2, budget=budget),
            _pairs()[0],
        ),
        _gradients(definition, _pairs()[0]),
    )


@pytest.mark.parametrize("noise", [0.05, 1.0])
def test_a_single_partner_keeps_its_digits(noise):
    """Two views of each sample: what is missing to certainty is small."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(60, 64, generator=generator)
    views = torch.cat([one, one + noise * torch.randn(60, 64, generator=generator)])
    label = torch.arange(120) % 60
    define = contract_of("supervised_contrastive").compute
    value, slope = _gradients(
        lambda p: sliced.supervised_contrastive(p, label, temperature=0.03, budget=0), views
    )
    truth, slopes = _gradients(lambda p: define(p, label, temperature=0.03).mean(), views.double())
    torch.testing.assert_close(value.double(), truth, rtol=3e-5, atol=0)
    near = slopes.abs().amax(1, keepdim=True)
    torch.testing.assert_close(slope.double() / near, slopes / near, rtol=0, atol=3e-4)


@pytest.mark.parametrize("budget", [0, 2**30])
def test_siglip(budget):
    scale, bias = torch.tensor(5.0, dtype=torch.float64), torch.tensor(-3.0, dtype=torch.float64)

    def composed(q, k, scale, bias):
        scores = scale * functional.normalize(q) @ functional.normalize(k).t() + bias
        signs = 2 * torch.eye(len(q), dtype=q.dtype) - 1
        return -functional.logsigmoid(signs * scores).sum(1).mean()

    _assert_same(
        _gradients(
            lambda q, k, s, b: sliced.siglip(q, k, scale=s, bias=b, budget=budget),
            *_pairs(), scale, bias,
        ),
        _gradients(composed, *_pairs(), scale, bias),
    )  # fmt: skip


def test_bad_input():
    q, k = _pairs()
    with pytest.raises(LossError, match="pairs, features"):
        sliced.info_nce(q, k[:3])
    with pytest.raises(LossError, match="float32"):
        sliced.info_nce(q.half(), k.half())
    with pytest.raises(LossError, match="reduction"):
        sliced.siglip(q, k, reduction="batch")
