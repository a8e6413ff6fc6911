"""What is measured: each workload with its contenders, every one a function that does one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.matrices import contrast, contrast_alone, contrast_jax, linear, linear_jax
from benchmarks.modules import MODULES
from benchmarks.steps import (
    BYTES_PER_NUMBER,
    IN_A_ROW,
    MissingError,
    Step,
    Workload,
    compiled,
    jax_step,
    optax_loss,
    torch_step,
)
from lossary import Loss

LARGE = 2**24


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
        return torch_step(lambda: chosen(p, t), p)

    def ours_compiled() -> Step:
        p, t = arrays()
        chosen = compiled(Loss(loss))
        return torch_step(lambda: chosen(p, t), p)

    def torch_eager() -> Step:
        p, t = arrays()
        return torch_step(lambda: eager(p, t), p)

    def torch_compiled() -> Step:
        p, t = arrays()
        fused = compiled(eager)
        return torch_step(lambda: fused(p, t), p)

    def ours_numpy() -> Step:
        p, t = _numbers(size, loss.startswith("binary"))
        chosen = Loss(loss)
        return lambda: chosen.value_and_grad(p, t)

    def optax_jit() -> Step:
        p, t = _numbers(size, loss.startswith("binary"))
        function = optax_loss(optax_name)
        return jax_step(lambda a, b: function(a, b, **options), p, t)

    def keras_torch() -> Step:
        losses = _keras().losses
        p, t = arrays()
        chosen = losses.BinaryCrossentropy(from_logits=True)
        return torch_step(lambda: chosen(t, p), p)

    def numpy_composed() -> Step:
        p, t = _numbers(size, loss.startswith("binary"))

        def step() -> Any:
            small = np.exp(-np.abs(p))
            value = (np.maximum(p, 0) - p * t + np.log1p(small)).mean()
            return value, (np.where(p > 0, 1, small) / (1 + small) - t) / np.float32(size)

        return step

    found = {"lossary": ours, "torch eager": torch_eager, "torch.compile": torch_compiled}
    found |= {"lossary, compiled": ours_compiled}
    if size >= LARGE:
        found |= {"optax jit": optax_jit}
    if size >= LARGE and loss == "binary_cross_entropy":
        found |= {"lossary on NumPy": ours_numpy, "NumPy composed": numpy_composed}
        found |= {"Keras on torch": keras_torch}
    return found


def _keras() -> Any:
    import os

    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError as error:
        raise MissingError("keras") from error
    return keras


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
        return torch_step(lambda: chosen(z, t), z)

    def torch_eager() -> Step:
        z, t = arrays()
        return torch_step(lambda: eager_of(z, t), z)

    def torch_compiled() -> Step:
        z, t = arrays()
        fused = compiled(eager_of)
        return torch_step(lambda: fused(z, t), z)

    def optax_jit() -> Step:
        import jax
        import jax.numpy as jnp

        z, t = arrays()
        plain = optax_loss("softmax_cross_entropy_with_integer_labels")

        def function(a: Any, b: Any) -> Any:
            if not extra:
                return plain(a, b)
            soft = 0.9 * jax.nn.one_hot(b, classes) + 0.1 / classes
            values = optax_loss("softmax_cross_entropy")(a, soft)
            return jnp.where(b == -100, 0.0, values) / 0.9

        return jax_step(function, z.detach().numpy(), t.numpy())

    def ours_compiled() -> Step:
        z, t = arrays()
        chosen = compiled(Loss("cross_entropy", ignore=-100 if extra else None, **given))
        return torch_step(lambda: chosen(z, t), z)

    def scipy_composed() -> Step:
        try:
            from scipy.special import log_softmax
        except ImportError as error:
            raise MissingError("scipy") from error
        z, t = (x.detach().numpy() for x in arrays())
        row = np.arange(rows)

        def step() -> Any:
            logarithm = log_softmax(z, axis=1)
            slope = np.exp(logarithm)
            slope[row, t] -= 1
            return -logarithm[row, t].mean(), slope / np.float32(rows)

        return step

    def ours_numpy() -> Step:
        z, t = (x.detach().numpy() for x in arrays())
        chosen = Loss("cross_entropy")
        return lambda: chosen.value_and_grad(z, t)

    found = {"lossary": ours, "torch eager": torch_eager, "torch.compile": torch_compiled}
    found |= {"lossary, compiled": ours_compiled}
    if rows * classes > 10_000:
        found |= {"optax jit": optax_jit}
    if classes == 1000:
        found |= {"lossary on NumPy": ours_numpy, "SciPy composed": scipy_composed}
    return found


def _dice(size: int) -> dict[str, Callable[[], Step]]:
    def arrays() -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(8, 4, size, size, generator=generator)
        return z.requires_grad_(), torch.randint(0, 4, (8, size, size), generator=generator)

    def composed(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        p = z.softmax(1)
        hot = functional.one_hot(t, 4).movedim(-1, 1).float()
        both, whole = (p * hot).sum((2, 3)), p.sum((2, 3)) + hot.sum((2, 3))
        return functional.cross_entropy(z, t) + (1 - (2 * both + 1e-5) / (whole + 1e-5)).mean()

    def ours() -> Step:
        z, t = arrays()
        chosen = Loss("dice_cross_entropy")
        return torch_step(lambda: chosen(z, t), z)

    def torch_eager() -> Step:
        z, t = arrays()
        return torch_step(lambda: composed(z, t), z)

    def torch_compiled() -> Step:
        z, t = arrays()
        fused = compiled(composed)
        return torch_step(lambda: fused(z, t), z)

    return {"lossary": ours, "torch eager": torch_eager, "torch.compile": torch_compiled}


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
        return torch_step(lambda: chosen(z, t), z)

    def torch_eager() -> Step:
        z, t = arrays()
        return torch_step(lambda: composed(z, t), z)

    return {"lossary": ours, "torch eager": torch_eager}


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


_LIMITS = _limits()
# What the traffic of a loss is held against; measured in its rounds.
RATES = {name: _LIMITS[name] for name in BYTES_PER_NUMBER}
WORKLOADS: dict[str, Workload] = {
    "limits": Workload("the machine, 2^24 numbers", _LIMITS, 15),
    **{
        loss: Workload(f"{loss}, 2^24", _pointwise(loss, LARGE), 11, 12 * LARGE)
        for loss in _PEERS
    },
    "ce_small_classes": Workload("cross_entropy, 65536 x 10", _cross_entropy(65536, 10, False), 15),
    "ce_hundred": Workload("cross_entropy, 20000 x 100", _cross_entropy(20000, 100, False), 15),
    "ce_thousand": Workload("cross_entropy, 4096 x 1000", _cross_entropy(4096, 1000, False), 15),
    "ce_vocabulary": Workload(
        "cross_entropy, 4096 x 32000", _cross_entropy(4096, 32000, False), 5, 8 * 4096 * 32000,
        _cross_entropy(64, 2000, False),
    ),
    "ce_vocabulary_extra": Workload(
        "cross_entropy, 4096 x 32000, smoothing and ignore",
        _cross_entropy(4096, 32000, True), 5, 8 * 4096 * 32000, _cross_entropy(64, 2000, True),
    ),
    **{
        loss: Workload(
            f"{loss}, 4096 x 32000", _divergence(loss, 4096, 32000), 5, 12 * 4096 * 32000
        )
        for loss in ("kl_divergence", "jensen_shannon")
    },
    "dice": Workload(
        "dice_cross_entropy, 8 x 4 x 512 x 512", _dice(512), 9, 8 * 8 * 4 * 512**2, _dice(32)
    ),
    "linear_ce": Workload(
        "linear cross-entropy, 4096 x 1024 x 32000", linear(4096, 1024, 32000), 7,
        small=linear(256, 64, 500), settings=("default",),
    ),
    "linear_ce_jax": Workload(
        "linear cross-entropy in JAX, 4096 x 1024 x 32000", linear_jax(4096, 1024, 32000), 7,
        small=linear_jax(256, 64, 500), settings=("default",),
    ),
    "info_nce": Workload(
        "InfoNCE, 8192 x 256", contrast(8192, 256, False), 11, small=contrast(256, 64, False)
    ),
    "clip": Workload(
        "InfoNCE symmetric, 8192 x 256", contrast(8192, 256, True), 9,
        small=contrast(256, 64, True),
    ),
    "info_nce_jax": Workload(
        "InfoNCE in JAX, 8192 x 256", contrast_jax(8192, 256), 9, small=contrast_jax(256, 64),
        settings=("default",),
    ),
    "info_nce_large": Workload(
        "InfoNCE, 131072 x 64", contrast_alone(131072, 64), 1, small=contrast_alone(256, 64),
        settings=(),
    ),
    **MODULES,
    **{
        f"middle_{loss}": Workload(f"{loss}, 2^18", _pointwise(loss, 1 << 18), 60)
        for loss in _PEERS
    },
    **{
        f"small_{loss}": Workload(
            f"{loss}, 1280", _pointwise(loss, 1280), 100, block=IN_A_ROW, settings=("default",)
        )
        for loss in _PEERS
    },
    "small_ce": Workload(
        "cross_entropy, 32 x 10", _cross_entropy(32, 10, False), 100, block=IN_A_ROW,
        settings=("default",),
    ),
}  # fmt: skip
