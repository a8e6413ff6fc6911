"""Shapes and axes: do prediction and target describe the same things?"""

from __future__ import annotations

import numpy as np

from lossary.doctor.arrays import summarize
from lossary.doctor.case import Case
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding


def _elementwise(case: Case) -> bool:
    """Whether prediction and target should have one shape."""
    if case.reads is None:
        return True
    space = case.contract.target if case.known.contract else None
    return space is not None and space.layout == "element" and len(case.inputs) == 1


def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


@check("broadcast", severity="error")
def broadcast(case: Case) -> Finding | None:
    """Shapes (N, 1) and (N,) silently become (N, N).

    Symptom: a regression that only learns the mean; a loss that stops at the variance of the
    targets.
    Cause: the network gives (N, 1), the targets are (N,), and subtraction pairs every row with
    every row.
    Fix: bring both to one shape before the loss.
    People type: using a target size that is different to the input size; my model predicts the
    mean; model does not learn regression; mse loss broadcast; loss equals variance of targets;
    target size must be the same as input size; the size of tensor a must match the size of tensor b
    at non-singleton dimension; logits and labels must have the same shape; logits and labels must
    be broadcastable; operands could not be broadcast together with shapes; incompatible shapes;
    prediction shape (batch, 1) and target shape (batch)

    Wrong::

        examine(estimate[:, None], truth, loss="mse")

    Right::

        examine(estimate, truth, loss="mse")
    """
    predicted, truth = case.predicted, case.truth
    need(_elementwise(case), "a loss that pairs elements")
    shapes = predicted.shape, truth.shape
    if shapes[0] == shapes[1]:
        return _weights_broadcast(case)
    numbers = case.index_target and predicted.shape[case.class_axis] > 1
    if case.reads is None and (truth.ndim == 0 or (numbers and case.target_summary.integral)):
        return _weights_broadcast(case)  # a loss over classes may be meant
    together = _broadcast(*shapes)
    wide, other = (predicted, truth) if predicted.ndim > truth.ndim else (truth, predicted)
    which = "prediction" if wide is predicted else "target"
    if wide.size == other.size and wide.ndim > other.ndim and 1 in wide.shape:
        fix = f"{which} = {which}.reshape({other.shape})  # squeeze axis {wide.shape.index(1)}"
    else:
        fix = (
            "target = target.reshape(prediction.shape)  # only if both hold the same items in "
            "one order"
        )
    if together is None:
        return Finding(
            f"Prediction {shapes[0]} and target {shapes[1]} do not fit together.",
            "Each prediction needs exactly one target.",
            fix,
        )
    best = summarize(truth).variance
    return Finding(
        f"Prediction {shapes[0]} and target {shapes[1]} broadcast to {together}: every prediction "
        "meets every "
        "target. A squared error would then only learn the mean; its best value is the targets' "
        f"variance {best:.4g}.",
        "Nothing fails, the loss falls a little, and the model predicts a constant.",
        fix,
    )


def _weights_broadcast(case: Case) -> Finding | None:
    shape = case.truth.shape
    for name, array in (("weights", case.weights_array), ("mask", case.mask_array)):
        if array is None or array.shape == shape[: array.ndim]:
            continue
        together = _broadcast(array.shape, shape)
        if together == shape and array.ndim == len(shape):
            continue
        return Finding(
            f"{name} {array.shape} and values {shape} "
            + (f"broadcast to {together}." if together else "do not fit together."),
            f"Each value needs its own entry of {name}; otherwise it is applied across the wrong "
            "axis.",
            f"{name} = {name}.reshape({shape})",
        )
    return None


@check("class-axis", severity="error")
def class_axis(case: Case) -> Finding | None:
    """The classes stand on another axis than the loss reads.

    Symptom: an error about sizes, or (worse) a loss that mixes pixels and classes.
    Cause: channels-last arrays in a channels-first loss or the reverse.
    Fix: name the axis, or move it.
    People type: expected target size got torch.size; CrossEntropyLoss channels last; class axis;
    expected input batch_size to match target batch_size; (batch, seq, vocab) cross entropy; cross
    entropy logits reshape batch sequence vocabulary; segmentation masks shape (N, C, H, W);
    dimension out of range in cross entropy

    Wrong::

        examine(score_map, label_map, loss="cross_entropy", axis=1)

    Right::

        examine(score_map, label_map, loss="cross_entropy", axis=-1)
    """
    need(case.class_scores, "a loss over classes")
    shape, truth = case.predicted.shape, case.truth.shape
    axis = case.class_axis
    need(len(truth) == len(shape) - 1, "class numbers as targets")
    fitting = [k for k in range(len(shape)) if shape[:k] + shape[k + 1 :] == truth]
    if axis in fitting:
        return _ambiguous(case, axis, fitting)
    if len(fitting) == 1:
        other = fitting[0]
        return Finding(
            f"Classes seem to be on axis {other} of {shape} (targets {truth}); the loss reads axis "
            f"{axis}.",
            "Read along the wrong axis, positions compete with each other instead of classes.",
            f'Loss("{case.known.name}", axis={other})'
            if case.known.own
            else case.line(
                f"loss(prediction, target, axis={other})",
                torch=f"prediction = prediction.movedim({other}, 1)  # classes belong on axis 1",
                keras=f"prediction = keras.ops.moveaxis(prediction, {other}, -1)",
            ),
        )
    return Finding(
        f"No axis of predictions {shape} can be removed to give the targets' shape {truth}.",
        "Each target needs one row of class scores.",
        f"target = target.reshape({shape[:axis] + shape[axis + 1 :]})  # only if the items are the "
        "same",
    )


def _ambiguous(case: Case, axis: int, fitting: list[int]) -> Finding | None:
    """Two axes of one length: the labels tell, if they exceed the axis that is read."""
    if len(fitting) < 2 or case.target_summary.labels is None:
        return None
    highest = case.target_summary.high
    if highest < case.predicted.shape[axis]:
        return None
    return Finding(
        f"Axes {fitting} of {case.predicted.shape} all fit targets {case.truth.shape}, and labels "
        "reach "
        f"{highest:.0f}, more than axis {axis} holds.",
        "The loss reads the wrong axis as classes.",
        f'Loss("{case.known.name}", axis={max(fitting, key=case.predicted.shape.__getitem__)})',
    )
