"""The sliced linear cross-entropy of JAX against torch's, under jit and not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lossary.contract import LossError
from lossary.kernels.chunked import linear_jax, linear_torch

OPTIONS = [
    {},
    {"bias": True, "label_smoothing": 0.1},
    {"class_weights": True, "label_smoothing": 0.2, "z_loss": 0.05, "softcap": 6.0},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("compiled", [False, True])
def test_same_as_torch(options, compiled):
    generator = np.random.default_rng(0)
    hidden, weight = generator.normal(size=(300, 8)), generator.normal(size=(21, 8))
    target = generator.integers(0, 21, 300)
    target[:9] = -100
    vectors = {
        k: generator.uniform(0.2, 1, 21) for k in ("bias", "class_weights") if options.get(k)
    }

    def step(h, w):
        chosen = options | {k: jnp.asarray(v) for k, v in vectors.items()}

        def loss(h, w, reduction):
            return linear_jax.linear_cross_entropy(
                h, w, jnp.asarray(target), budget=0, reduction=reduction, **chosen
            ).sum()

        slopes = jax.value_and_grad(loss, argnums=(0, 1))
        return {reduction: slopes(h, w, reduction) for reduction in ("none", "sum", "mean")}

    with jax.enable_x64(True):
        step = jax.jit(step) if compiled else step
        found = step(jnp.asarray(hidden), jnp.asarray(weight))
    for reduction, (value, gradients) in found.items():
        leaves = [torch.tensor(x, requires_grad=True) for x in (hidden, weight)]
        chosen = options | {k: torch.tensor(v) for k, v in vectors.items()}
        expected = linear_torch.linear_cross_entropy(
            *leaves, torch.tensor(target), reduction=reduction, **chosen
        ).sum()
        expected.backward()
        np.testing.assert_allclose(value, expected.item(), rtol=1e-12, err_msg=reduction)
        for mine, leaf in zip(gradients, leaves, strict=True):
            np.testing.assert_allclose(
                mine, leaf.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=reduction
            )


def test_an_index_outside_the_classes():
    hidden, weight = jnp.ones((3, 2)), jnp.ones((4, 2))
    target = jnp.array([0, 4, 1])
    with pytest.raises(LossError, match=r"target 4 is not a class of 0\.\.3"):
        linear_jax.linear_cross_entropy(hidden, weight, target)
    assert jnp.isnan(jax.jit(linear_jax.linear_cross_entropy)(hidden, weight, target))


def test_the_library_is_found_from_the_arrays():
    from lossary.kernels.chunked import linear_cross_entropy

    hidden, weight, target = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), [0, 1, 2]
    expected = np.log1p(2 * np.exp(-1.0))
    mine = linear_cross_entropy(jnp.asarray(hidden), jnp.asarray(weight), jnp.asarray(target))
    theirs = linear_cross_entropy(
        torch.tensor(hidden), torch.tensor(weight), torch.tensor(target), label_smoothing=0.0
    )
    np.testing.assert_allclose([float(mine), theirs.item()], expected, rtol=1e-6)
    with pytest.raises(LossError, match="torch or JAX"):
        linear_cross_entropy(hidden, weight, np.array(target))


def test_few_rows_are_filled_up():
    assert linear_jax.options_of(700, 2000, 4, linear_jax.BUDGET, 0.0, 0.0, None).rows == 350
    assert [linear_jax.even(n, 128) for n in (0, 1, 128, 129, 300)] == [1, 1, 128, 65, 100]


def test_beside_the_gradients_one_slice_of_logits_exists():
    """Neither the logits nor the gradients are there a second time."""
    rows, features, classes = 2048, 256, 16000
    shapes = [(rows, features), (classes, features), (rows,)]
    kinds = [jnp.float32, jnp.float32, jnp.int32]
    step = jax.value_and_grad(lambda *a: linear_jax.linear_cross_entropy(*a, budget=0), (0, 1))
    arrays = [jax.ShapeDtypeStruct(*each) for each in zip(shapes, kinds, strict=True)]
    used = jax.jit(step).lower(*arrays).compile().memory_analysis().temp_size_in_bytes
    assert used < 2 * 128 * classes * 4, used
