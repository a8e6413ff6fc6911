"""Derivatives of any loss, for the doctor: of the framework at hand, or by differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.arrays import like, precise, to_numpy

if TYPE_CHECKING:
    from lossary.doctor.subject import Subject

DIFFERENCES = 4096  # entries up to which a loss without a framework is differentiated


def gradient(
    subject: Subject,
    prediction: np.ndarray,
    target: Any,
    dtype: str | None,
    options: dict[str, Any],
) -> np.ndarray | None:
    """The derivative of the mean value; None when the framework says that none flows."""
    if subject.own:
        if subject.unit == "element" and subject.loss.reduction in ("mean", "mean_over_batch"):
            return _elementwise(subject, prediction, target, options)
        given = subject.bound(prediction.astype(dtype) if dtype else prediction, target)
        present = {key: value for key, value in options.items() if value is not None}
        return np.asarray(subject.loss.value_and_grad(**given, **present)[1], dtype=np.float64)
    by_library = {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow, "keras": _keras}
    return by_library.get(subject.library, _differences)(
        subject, prediction, target, dtype, options
    )


def _elementwise(
    subject: Subject, prediction: np.ndarray, target: Any, options: dict[str, Any]
) -> np.ndarray:
    """Element i's value depends on prediction i alone: two evaluations give every slope."""
    wide = prediction.astype(np.float64)
    step = 1e-6 * np.maximum(1.0, np.abs(wide))
    high = subject.values(wide + step, target, **options)
    low = subject.values(wide - step, target, **options)
    return np.asarray((high - low) / (2 * step) / max(1, high.size))


def _torch(
    subject: Subject,
    prediction: np.ndarray,
    target: Any,
    dtype: str | None,
    options: dict[str, Any],
) -> np.ndarray | None:
    import torch

    leaf = like(prediction, "torch", dtype, subject.device).requires_grad_(True)
    with torch.enable_grad():
        value = subject.raw((leaf,), target, dtype=dtype, **options)
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        return None
    (slope,) = torch.autograd.grad(value.mean(), leaf, allow_unused=True)
    return None if slope is None else to_numpy(slope, "the gradient").astype(np.float64)


def _jax(
    subject: Subject,
    prediction: np.ndarray,
    target: Any,
    dtype: str | None,
    options: dict[str, Any],
) -> np.ndarray:
    import jax

    def mean(leaf: Any) -> Any:
        return subject.raw((leaf,), target, dtype=dtype, **options).mean()

    with precise("jax", dtype):
        slope = jax.grad(mean)(like(prediction, "jax", dtype))
        return to_numpy(slope, "the gradient").astype(np.float64)


def _keras(
    subject: Subject,
    prediction: np.ndarray,
    target: Any,
    dtype: str | None,
    options: dict[str, Any],
) -> np.ndarray | None:
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        return _torch(subject, prediction, target, dtype, options)
    if backend == "jax":
        return _jax(subject, prediction, target, dtype, options)
    return _tensorflow(subject, prediction, target, dtype, options)


def _tensorflow(
    subject: Subject,
    prediction: np.ndarray,
    target: Any,
    dtype: str | None,
    options: dict[str, Any],
) -> np.ndarray | None:
    import tensorflow as tf

    leaf = tf.convert_to_tensor(prediction if dtype is None else prediction.astype(dtype))
    with tf.GradientTape() as tape:
        tape.watch(leaf)
        value = tf.reduce_mean(subject.raw((leaf,), target, dtype=dtype, **options))
    slope = tape.gradient(value, leaf)
    return None if slope is None else to_numpy(slope, "the gradient").astype(np.float64)


def _differences(
    subject: Subject,
    prediction: np.ndarray,
    target: Any,
    dtype: str | None,
    options: dict[str, Any],
) -> np.ndarray:
    """Central differences, entry by entry, for a plain NumPy callable."""
    if prediction.size > DIFFERENCES:
        raise LossError(f"{subject.name}: too many entries to differentiate without a framework")
    wide = prediction.astype(np.float64)
    slopes = np.empty_like(wide)
    for position in np.ndindex(wide.shape):
        slopes[position] = slope_at(subject, wide, target, position, options)
    return slopes


def slope_at(
    subject: Subject,
    prediction: np.ndarray,
    target: Any,
    position: tuple[int, ...],
    options: dict[str, Any],
    relative: float = 1e-5,
) -> float:
    """One central difference in float64, with a step that follows the entry's own size."""
    step = step_of(float(prediction[position]), relative)
    moved = prediction.copy()
    moved[position] = prediction[position] + step
    high = subject(moved, target, dtype="float64", **options)
    moved[position] = prediction[position] - step
    low = subject(moved, target, dtype="float64", **options)
    return (high - low) / (2 * step)


def step_of(number: float, relative: float) -> float:
    """The step of a difference at ``number``."""
    return relative * max(1e-3, abs(number))
