"""Workloads made of products of matrices: linear cross-entropy and contrastive losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from benchmarks.steps import MissingError, Step, jax_step, optax_loss, torch_step


def linear(rows: int, features: int, classes: int) -> dict[str, Callable[[], Step]]:
    def arrays() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(rows, features, generator=generator)
        weight = torch.randn(classes, features, generator=generator) / features**0.5
        target = torch.randint(0, classes, (rows,), generator=generator)
        return hidden.requires_grad_(), weight.requires_grad_(), target

    def ours() -> Step:
        from lossary.kernels.chunked import linear_cross_entropy

        h, w, t = arrays()
        return torch_step(lambda: linear_cross_entropy(h, w, t), h, w)

    def eager() -> Step:
        h, w, t = arrays()
        return torch_step(lambda: functional.cross_entropy(functional.linear(h, w), t), h, w)

    def chunked() -> Step:
        options = getattr(torch.nn, "LinearCrossEntropyOptions", None) or getattr(
            functional, "LinearCrossEntropyOptions", None
        )
        if options is None:
            raise MissingError("torch.nn.functional.linear_cross_entropy")
        h, w, t = arrays()
        return torch_step(lambda: functional.linear_cross_entropy(h, w, t, options=options()), h, w)

    def products() -> Step:
        h, w, _ = (array.detach() for array in arrays())
        logits = torch.mm(h, w.t())
        by_hidden, by_weight = torch.empty_like(h), torch.empty_like(w)

        def step() -> None:
            torch.mm(h, w.t(), out=logits)
            torch.mm(logits, w, out=by_hidden)
            torch.mm(logits.t(), h, out=by_weight)

        return step

    return {
        "lossary": ours,
        "torch eager": eager,
        "torch chunked": chunked,
        "three bare products": products,
    }


def contrast(pairs: int, features: int, symmetric: bool) -> dict[str, Callable[[], Step]]:
    def arrays() -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        q, k = torch.randn(2, pairs, features, generator=generator)
        return q.clone().requires_grad_(), k.clone().requires_grad_()

    def ours(budget: int) -> Callable[[], Step]:
        def make() -> Step:
            from lossary.kernels.chunked.contrast_torch import info_nce

            q, k = arrays()
            return torch_step(
                lambda: info_nce(q, k, temperature=0.1, symmetric=symmetric, budget=budget), q, k
            )

        return make

    def eager() -> Step:
        q, k = arrays()
        own = torch.arange(pairs)

        def loss() -> torch.Tensor:
            scores = functional.normalize(q) @ functional.normalize(k).t() / 0.1
            value = functional.cross_entropy(scores, own)
            if symmetric:
                value = 0.5 * (value + functional.cross_entropy(scores.t(), own))
            return value

        return torch_step(loss, q, k)

    found = {"lossary": ours(2**26), "torch eager": eager}
    if symmetric:
        found["lossary, one matrix"] = ours(2**30)
    return found


def linear_jax(rows: int, features: int, classes: int) -> dict[str, Callable[[], Step]]:
    """Under ``jit``, beside optax on all logits."""

    def step_of(loss: Callable[..., Any]) -> Step:
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(rows, features, generator=generator)
        weight = torch.randn(classes, features, generator=generator) / features**0.5
        target = torch.randint(0, classes, (rows,), generator=generator)
        return jax_step(loss, hidden.numpy(), weight.numpy(), target.numpy(), learned=2)

    def ours() -> Step:
        from lossary.kernels.chunked import linear_cross_entropy

        return step_of(linear_cross_entropy)

    def full() -> Step:
        values = optax_loss("softmax_cross_entropy_with_integer_labels")
        return step_of(lambda hidden, weight, target: values(hidden @ weight.T, target))

    return {"lossary": ours, "optax jit": full}


def contrast_jax(pairs: int, features: int) -> dict[str, Callable[[], Step]]:
    """InfoNCE under ``jit``, beside optax on the matrix of all scores."""

    def step_of(loss: Callable[..., Any]) -> Step:
        queries, keys = torch.randn(2, pairs, features, generator=torch.Generator().manual_seed(0))
        return jax_step(loss, queries.numpy(), keys.numpy(), learned=2)

    def ours() -> Step:
        from lossary.kernels.chunked.contrast_jax import info_nce

        return step_of(lambda q, k: info_nce(q, k, temperature=0.1))

    def full() -> Step:
        values = optax_loss("softmax_cross_entropy_with_integer_labels")

        def loss(q: Any, k: Any) -> Any:
            import jax.numpy as jnp

            q, k = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
            return values(q @ k.T / 0.1, jnp.arange(pairs))

        return step_of(loss)

    return {"lossary": ours, "optax jit": full}


def contrast_alone(pairs: int, features: int) -> dict[str, Callable[[], Step]]:
    """More pairs than a matrix of all scores would fit for."""
    return {"lossary": contrast(pairs, features, False)["lossary"]}
