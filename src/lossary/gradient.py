"""Value and gradient of a function of arrays, in whichever library the arrays are."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np

from lossary.contract import Array, LossError
from lossary.xp import library

Function = Callable[..., Array]
Gradients = tuple[Array, ...]


def value_and_grad(function: Function, arrays: tuple[Array, ...]) -> tuple[Array, Gradients]:
    """``function(*arrays)``, a scalar, and its gradient by each array, in their library."""
    name = library(*arrays)
    if name not in _ENGINES:
        raise LossError(f"no gradients on {name} arrays; convert them to NumPy, PyTorch or JAX")
    return _ENGINES[name](function, arrays)


def _torch(function: Function, arrays: tuple[Array, ...]) -> tuple[Array, Gradients]:
    import torch

    with torch.enable_grad():
        leaves = tuple(array.detach().requires_grad_() for array in arrays)
        value = function(*leaves)
        gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    found = tuple(
        torch.zeros_like(leaf) if gradient is None else gradient
        for gradient, leaf in zip(gradients, leaves, strict=True)
    )
    return value.detach(), found


def _jax(function: Function, arrays: tuple[Array, ...]) -> tuple[Array, Gradients]:
    import jax

    value, gradients = jax.value_and_grad(function, argnums=tuple(range(len(arrays))))(*arrays)
    return value, gradients


def _tensorflow(function: Function, arrays: tuple[Array, ...]) -> tuple[Array, Gradients]:
    import tensorflow as tf

    arrays = tuple(tf.convert_to_tensor(array) for array in arrays)
    with tf.GradientTape() as tape:
        tape.watch(arrays)
        value = function(*arrays)
    gradients = tape.gradient(value, arrays, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return value, tuple(tf.convert_to_tensor(gradient) for gradient in gradients)


def _numpy(function: Function, arrays: tuple[Array, ...]) -> tuple[Array, Gradients]:
    """NumPy has no derivatives of its own: another library's engine differentiates."""
    engine = next((name for name in _BORROWED if importlib.util.find_spec(name)), None)
    if engine is None:
        raise LossError(
            "gradients on NumPy arrays need an engine: pip install lossary[torch] or lossary[jax]"
        )
    value, gradients = _BORROWED[engine](function, arrays)
    return value, gradients


def _through_torch(function: Function, arrays: tuple[Array, ...]) -> tuple[Array, Gradients]:
    import torch

    tensors = tuple(torch.from_numpy(_writable(array)) for array in arrays)
    value, gradients = _torch(function, tensors)
    return value.numpy()[()], tuple(gradient.numpy() for gradient in gradients)


def _through_jax(function: Function, arrays: tuple[Array, ...]) -> tuple[Array, Gradients]:
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        value, gradients = _jax(function, tuple(jnp.asarray(array) for array in arrays))
        return np.asarray(value)[()], tuple(np.asarray(gradient) for gradient in gradients)


def _through_tensorflow(function: Function, arrays: tuple[Array, ...]) -> tuple[Array, Gradients]:
    value, gradients = _tensorflow(function, arrays)
    return value.numpy()[()], tuple(gradient.numpy() for gradient in gradients)


def _writable(array: np.ndarray) -> np.ndarray:
    """torch takes no negative strides and warns of read-only buffers: those are copied."""
    array = np.asarray(array, order="C")
    return array if array.flags.writeable else array.copy()


_ENGINES = {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow, "numpy": _numpy}
_BORROWED = {"torch": _through_torch, "jax": _through_jax, "tensorflow": _through_tensorflow}
