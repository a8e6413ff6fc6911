"""Contrastive losses in JAX, slice by slice: the definition's numbers, at a fraction of memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lossary.contract import LossError, contract_of
from lossary.kernels.chunked import info_nce, siglip, supervised_contrastive
from lossary.numerics import unit_rows

SMALL = 1  # a budget that leaves slices of 128 rows


def _arrays(n=300, features=7, seed=0):
    generator = np.random.default_rng(seed)
    with jax.enable_x64(True):
        return tuple(jnp.asarray(generator.normal(size=(n, features))) for _ in range(2))


def _eager(function):
    return function


def _agree(ours, whole, *arrays, wrap=jax.jit):
    """``whole`` takes torch's tensors: JAX would compile it for as long as the slices."""
    found = wrap(jax.value_and_grad(ours, tuple(range(len(arrays)))))(*arrays)
    _same(found, _slopes(whole, *arrays))


def _slopes(whole, *arrays):
    leaves = [torch.tensor(np.array(array), requires_grad=True) for array in arrays]
    value = whole(*leaves)
    value.backward()
    return value.item(), tuple(leaf.grad.numpy() for leaf in leaves)


def _same(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13), found, expected
    )


def test_info_nce_is_the_definition():
    with jax.enable_x64(True):
        definition = contract_of("info_nce").compute
        _agree(
            lambda q, k: info_nce(q, k, temperature=0.1, budget=SMALL),
            lambda q, k: definition(q, k, temperature=0.1).mean(),
            *_arrays(),
        )


def test_the_symmetric_loss_is_that_of_both_ways():
    with jax.enable_x64(True):
        definition = contract_of("info_nce").compute

        def both(q, k, temperature):
            ways = [definition(*x, temperature=temperature) for x in ((q, k), (k, q))]
            return 0.5 * (ways[0] + ways[1]).mean()

        def ours(q, k, temperature):
            return info_nce(q, k, temperature=temperature, symmetric=True, budget=SMALL)

        q, k = _arrays()
        k = q + 0.3 * k
        step = jax.jit(jax.value_and_grad(ours, (0, 1)))
        for temperature in (0.5, 0.02):
            found = step(q, k, temperature)
            _same(found, _slopes(functools.partial(both, temperature=temperature), q, k))


def test_siglip_with_a_learned_scale_and_bias(caplog):
    """Without jit, and compiled once: each step once made its slices' program anew."""

    def whole(q, k, scale, bias):
        z = scale * unit_rows(q) @ unit_rows(k).T + bias
        return torch.logaddexp(z * (1 - 2 * torch.eye(len(q))), 0 * z).sum(1).mean()

    def ours(q, k, scale, bias):
        return siglip(q, k, scale=scale, bias=bias, budget=SMALL)

    with jax.enable_x64(True):
        arrays = (*_arrays(), jnp.asarray(10.0), jnp.asarray(-10.0))
        with jax.log_compiles():
            _agree(ours, whole, *arrays, wrap=_eager)
            assert "XLA compilation" in caplog.text
            caplog.clear()
            jax.value_and_grad(ours, (0, 1, 2, 3))(*arrays)
    assert "XLA compilation" not in caplog.text


def test_supervised_contrastive_is_the_definition():
    with jax.enable_x64(True):
        x, _ = _arrays()
        label = np.random.default_rng(1).integers(0, 40, 300)
        label[0] = 99
        definition = contract_of("supervised_contrastive").compute
        alone = np.array([(label == y).sum() == 1 for y in label])
        assert alone.any()
        _agree(
            lambda p: supervised_contrastive(p, jnp.asarray(label), budget=SMALL),
            lambda p: definition(p, torch.from_numpy(label)).sum() / (~alone).sum(),
            x,
        )


def test_a_single_partner_keeps_its_digits():
    """Two views of each sample, and two samples alone in the world: in single precision."""
    generator = np.random.default_rng(0)
    one = generator.normal(size=(60, 64))
    views = np.concatenate([one, one + 0.05 * generator.normal(size=one.shape)])
    label = np.arange(120) % 60
    definition = contract_of("supervised_contrastive").compute
    given = {"temperature": 0.03}

    def mean(p, y):
        return supervised_contrastive(p, y, **given)

    found = jax.jit(jax.value_and_grad(mean))(views.astype(np.float32), label)
    truth, (slopes,) = _slopes(
        lambda p: definition(p, torch.from_numpy(label), **given).mean(), views
    )
    np.testing.assert_allclose(found[0], truth, rtol=3e-5)
    np.testing.assert_allclose(found[1], slopes, atol=3e-4 * np.abs(slopes).max())
    two = jnp.asarray(views[::60], jnp.float32), jnp.asarray(label[::60])
    value, slope = jax.value_and_grad(mean)(*two)
    assert value == 0 and not np.any(slope)  # nobody to be told from


def test_what_does_not_fit_is_an_error():
    q, k = _arrays()
    for wrong in (
        lambda: info_nce(q, k[:5]),
        lambda: siglip(q, k, reduction="batch"),
        lambda: supervised_contrastive(q, jnp.zeros(3)),
        lambda: info_nce(q.astype(jnp.float16), k.astype(jnp.float16)),
        lambda: info_nce(np.ones((3, 2)), np.ones((3, 2))),
    ):
        with pytest.raises(LossError):
            wrong()


def test_no_matrix_of_all_scores_is_made():
    n, features = 2048, 8
    shapes = [jax.ShapeDtypeStruct((n, features), jnp.float32)] * 2
    for symmetric in (False, True):
        compiled = jax.jit(
            jax.grad(
                lambda q, k, symmetric=symmetric: info_nce(q, k, symmetric=symmetric, budget=SMALL)
            )
        )
        used = compiled.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
        assert used < n * n * 4, used
