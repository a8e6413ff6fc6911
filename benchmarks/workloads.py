"""What is measured: each workload with its contenders, every one a function that does one step.

A step is value and gradient. Contenders that cannot run are left out by raising ``MissingError``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from lossary import Loss

Step = Callable[[], Any]
LARGE = 2**24


class MissingError(Exception):
    """A peer that is not installed here."""


@dataclass(frozen=True)
class Workload:
    """``contenders(name)`` makes the step of one contender on fresh inputs of its library."""

    title: str
    contenders: dict[str, Callable[[], Step]]
    repeats: int = 7
    bytes_moved: int = 0  # what any algorithm must read and write
    memory: bool = False  # measure peak memory too, each contender in a fresh process


def _torch_step(function: Callable[..., torch.Tensor], *leaves: torch.Tensor) -> Step:
    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        function().backward()

    return step


def _jax_step(function: Callable[..., Any], *arrays: np.ndarray) -> Step:
    try:
        import jax
        import jax.numpy as jnp
    except ImportError as error:
        raise MissingError("jax") from error
    prediction, *rest = (jnp.asarray(array) for array in arrays)
    compiled = jax.jit(jax.value_and_grad(lambda p: jnp.mean(function(p, *rest))))
    return lambda: jax.block_until_ready(compiled(prediction))


def _optax(name: str) -> Any:
    try:
        import optax
    except ImportError as error:
        raise MissingError("optax") from error
    return getattr(optax.losses, name)


# -- pointwise ------------------------------------------------------------------------------------


def _numbers(size: int, binary: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    prediction = generator.standard_normal(size, np.float32) * 2
    target = generator.standard_normal(size, np.float32)
    return prediction, (target > 0).astype(np.float32) if binary else target


def _log_cosh(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    r = p - t
    return (r + functional.softplus(-2 * r) - 0.6931471805599453).mean()


def _focal(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    surprise = functional.binary_cross_entropy_with_logits(p, t, reduction="none")
    sure = torch.sigmoid(p)
    wrong = sure * (1 - t) + (1 - sure) * t
    return (surprise * wrong**2).mean()


_PEERS: dict[str, tuple[Callable[..., torch.Tensor], str, dict[str, Any]]] = {
    "squared_error": (functional.mse_loss, "squared_error", {}),
    "huber": (functional.huber_loss, "huber_loss", {}),
    "log_cosh": (_log_cosh, "log_cosh", {}),
    "binary_cross_entropy": (
        functional.binary_cross_entropy_with_logits,
        "sigmoid_binary_cross_entropy",
        {},
    ),
    "binary_focal": (_focal, "sigmoid_focal_loss", {"gamma": 2.0}),
}


def _pointwise(loss: str, size: int) -> dict[str, Callable[[], Step]]:
    eager, optax_name, options = _PEERS[loss]

    def arrays() -> tuple[torch.Tensor, torch.Tensor]:
        p, t = map(torch.from_numpy, _numbers(size, loss.startswith("binary")))
        return p.requires_grad_(), t

    def ours() -> Step:
        p, t = arrays()
        chosen = Loss(loss)
        return _torch_step(lambda: chosen(p, t), p)

    def ours_compiled() -> Step:
        p, t = arrays()
        chosen = torch.compile(Loss(loss), fullgraph=True)
        return _torch_step(lambda: chosen(p, t), p)

    def torch_eager() -> Step:
        p, t = arrays()
        return _torch_step(lambda: eager(p, t), p)

    def torch_compiled() -> Step:
        p, t = arrays()
        compiled = torch.compile(eager)
        return _torch_step(lambda: compiled(p, t), p)

    def ours_numpy() -> Step:
        p, t = _numbers(size, loss.startswith("binary"))
        chosen = Loss(loss)
        return lambda: chosen.value_and_grad(p, t)

    def optax_jit() -> Step:
        p, t = _numbers(size, loss.startswith("binary"))
        function = _optax(optax_name)
        return _jax_step(lambda a, b: function(a, b, **options), p, t)

    found = {"lossary": ours, "torch eager": torch_eager}
    if size >= LARGE:
        found |= {"torch.compile": torch_compiled, "optax jit": optax_jit}
    if size >= LARGE and loss == "binary_cross_entropy":
        found |= {"lossary under torch.compile": ours_compiled, "lossary on NumPy": ours_numpy}
    return found


# -- classes --------------------------------------------------------------------------------------


def _cross_entropy(rows: int, classes: int, extra: bool) -> dict[str, Callable[[], Step]]:
    given: dict[str, Any] = {"label_smoothing": 0.1} if extra else {}

    def arrays() -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(rows, classes, generator=generator)
        t = torch.randint(0, classes, (rows,), generator=generator)
        if extra:
            t[::10] = -100
        return z.requires_grad_(), t

    def eager_of(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(z, t, **given)

    def ours() -> Step:
        z, t = arrays()
        chosen = Loss("cross_entropy", ignore=-100 if extra else None, **given)
        return _torch_step(lambda: chosen(z, t), z)

    def torch_eager() -> Step:
        z, t = arrays()
        return _torch_step(lambda: eager_of(z, t), z)

    def torch_compiled() -> Step:
        z, t = arrays()
        compiled = torch.compile(eager_of)
        return _torch_step(lambda: compiled(z, t), z)

    def optax_jit() -> Step:
        import jax
        import jax.numpy as jnp

        z, t = arrays()
        plain = _optax("softmax_cross_entropy_with_integer_labels")

        def function(a: Any, b: Any) -> Any:
            if not extra:
                return plain(a, b)
            soft = 0.9 * jax.nn.one_hot(b, classes) + 0.1 / classes
            values = _optax("softmax_cross_entropy")(a, soft)
            return jnp.where(b == -100, 0.0, values) / 0.9

        return _jax_step(function, z.detach().numpy(), t.numpy())

    found = {"lossary": ours, "torch eager": torch_eager}
    if rows * classes > 10_000:
        found |= {"torch.compile": torch_compiled, "optax jit": optax_jit}
    return found


def _divergence(loss: str, rows: int, classes: int) -> dict[str, Callable[[], Step]]:
    def arrays() -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        z, t = torch.randn(2, rows, classes, generator=generator)
        return z.clone().requires_grad_(), t.softmax(1)

    def composed(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        log_p = functional.log_softmax(z, 1)
        if loss == "kl_divergence":
            return functional.kl_div(log_p, t, reduction="batchmean")
        p = log_p.exp()
        log_m = (0.5 * (p + t)).log()
        from_target = functional.kl_div(log_m, t, reduction="sum")
        return (from_target + (p * (log_p - log_m)).sum()) / (2 * rows)

    def ours() -> Step:
        z, t = arrays()
        chosen = Loss(loss)
        return _torch_step(lambda: chosen(z, t), z)

    def torch_eager() -> Step:
        z, t = arrays()
        return _torch_step(lambda: composed(z, t), z)

    return {"lossary": ours, "torch eager": torch_eager}


# -- matrices -------------------------------------------------------------------------------------


def _linear(rows: int, features: int, classes: int) -> dict[str, Callable[[], Step]]:
    def arrays() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(rows, features, generator=generator)
        weight = torch.randn(classes, features, generator=generator) / features**0.5
        target = torch.randint(0, classes, (rows,), generator=generator)
        return hidden.requires_grad_(), weight.requires_grad_(), target

    def ours() -> Step:
        from lossary.kernels.chunked.on_torch import linear_cross_entropy

        h, w, t = arrays()
        return _torch_step(lambda: linear_cross_entropy(h, w, t), h, w)

    def eager() -> Step:
        h, w, t = arrays()
        return _torch_step(lambda: functional.cross_entropy(functional.linear(h, w), t), h, w)

    def chunked() -> Step:
        options = getattr(torch.nn, "LinearCrossEntropyOptions", None) or getattr(
            functional, "LinearCrossEntropyOptions", None
        )
        if options is None:
            raise MissingError("torch.nn.functional.linear_cross_entropy")
        h, w, t = arrays()
        return _torch_step(
            lambda: functional.linear_cross_entropy(h, w, t, options=options()), h, w
        )

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


def _contrast(pairs: int, features: int, symmetric: bool) -> dict[str, Callable[[], Step]]:
    def arrays() -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        q, k = torch.randn(2, pairs, features, generator=generator)
        return q.clone().requires_grad_(), k.clone().requires_grad_()

    def ours(budget: int) -> Callable[[], Step]:
        def make() -> Step:
            from lossary.kernels.chunked.contrast_torch import info_nce

            q, k = arrays()
            return _torch_step(
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

        return _torch_step(loss, q, k)

    found = {"lossary": ours(2**26), "torch eager": eager}
    if symmetric:
        found["lossary, one matrix"] = ours(2**30)
    return found


def _limits() -> dict[str, Callable[[], Step]]:
    def arrays() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.ones(LARGE), torch.ones(LARGE), torch.zeros(LARGE)

    def copy() -> Step:
        a, _, c = arrays()
        return lambda: c.copy_(a)

    def read() -> Step:
        a, _, _ = arrays()
        return lambda: a.sum()

    def add() -> Step:
        a, b, c = arrays()
        return lambda: torch.add(a, b, out=c)

    def fresh() -> Step:
        a, _, _ = arrays()
        return lambda: a.clone()

    def product() -> Step:
        a, b = torch.randn(2, 2048, 2048)
        return lambda: a @ b

    return {
        "copy": copy, "read": read, "two reads, one write": add, "copy into fresh memory": fresh,
        "2048 x 2048 product": product,
    }  # fmt: skip


WORKLOADS: dict[str, Workload] = {
    "limits": Workload("the machine, 2^24 numbers", _limits(), 15),
    **{
        loss: Workload(f"{loss}, 2^24", _pointwise(loss, LARGE), 7, 12 * LARGE)
        for loss in _PEERS
    },
    "ce_small_classes": Workload("cross_entropy, 65536 x 10", _cross_entropy(65536, 10, False), 15),
    "ce_thousand": Workload("cross_entropy, 4096 x 1000", _cross_entropy(4096, 1000, False), 15),
    "ce_vocabulary": Workload(
        "cross_entropy, 4096 x 32000", _cross_entropy(4096, 32000, False), 5, 8 * 4096 * 32000, True
    ),
    "ce_vocabulary_extra": Workload(
        "cross_entropy, 4096 x 32000, smoothing and ignore",
        _cross_entropy(4096, 32000, True), 5, 8 * 4096 * 32000, True,
    ),
    **{
        loss: Workload(
            f"{loss}, 4096 x 32000", _divergence(loss, 4096, 32000), 3, 12 * 4096 * 32000
        )
        for loss in ("kl_divergence", "jensen_shannon")
    },
    "linear_ce": Workload(
        "linear cross-entropy, 4096 x 1024 x 32000", _linear(4096, 1024, 32000), 2, memory=True
    ),
    "info_nce": Workload("InfoNCE, 8192 x 256", _contrast(8192, 256, False), 3, memory=True),
    "clip": Workload("InfoNCE symmetric, 8192 x 256", _contrast(8192, 256, True), 3, memory=True),
    **{
        f"small_{loss}": Workload(f"{loss}, 1280", _pointwise(loss, 1280), 400) for loss in _PEERS
    },
    "small_ce": Workload("cross_entropy, 32 x 10", _cross_entropy(32, 10, False), 400),
}  # fmt: skip
