"""Language models and other sequences of classes."""

from __future__ import annotations

import math

import numpy as np

from lossary.doctor.case import Case
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding

SEQUENCES = 32


@check("label-shift", severity="error")
def label_shift(case: Case) -> Finding | None:
    """Labels of a language model are shifted twice, or not at all.

    Symptom: a pretrained model starts with a loss far too high; fine-tuning seems to unlearn.
    Cause: both the data pipeline and the model shift labels by one, or neither does.
    Fix: shift exactly once.
    People type: labels shifted twice; causal lm loss too high; shift labels huggingface; language
    model loss 7; do i need to shift labels

    Wrong::

        examine(language_logits, np.roll(next_tokens, -1, axis=1), loss="cross_entropy")

    Right::

        examine(language_logits, next_tokens, loss="cross_entropy")
    """
    need(
        case.class_scores and case.predicted.ndim == 3 and case.index_target,
        "logits (rows, time, classes)",
    )
    axis = case.class_axis
    logits = case.predicted[:SEQUENCES]
    logits = np.moveaxis(logits, axis, -1).astype(np.float64)
    labels = case.truth[:SEQUENCES]
    time, count = logits.shape[1], logits.shape[2]
    need(time >= 8 and count >= 4, "eight or more positions and four or more classes")
    counted = (labels >= 0) & (labels < count)
    if case.ignored is not None:
        counted &= labels != case.ignored
    if case.mask_array is not None and case.mask_array.shape == case.truth.shape:
        counted &= case.mask_array[:SEQUENCES]
    if case.reads == "simplex":
        logits = np.log(np.maximum(logits, 1e-30))
    top = logits.max(axis=-1, keepdims=True)
    surprise = np.log(np.exp(logits - top).sum(axis=-1, keepdims=True)) + top - logits
    means = {}
    for shift in (-1, 0, 1, 2):
        left = surprise[:, max(0, -shift) : time - max(0, shift)]
        right = labels[:, max(0, shift) : time - max(0, -shift)]
        keep = counted[:, max(0, shift) : time - max(0, -shift)]
        if keep.sum() < 8:
            continue
        each = np.take_along_axis(left, np.where(keep, right, 0).astype(int)[..., None], axis=-1)[
            ..., 0
        ]
        means[shift] = float(each[keep].mean())
    need(0 in means and math.isfinite(means[0]), "positions that count")
    best = min(means, key=lambda shift: means[shift])
    # A model that has learnt something: clearly better than chance at one shift, and only there.
    if best == 0 or means[best] > 0.75 * means[0] or means[best] > 0.8 * math.log(count):
        return None
    where = (
        f"{abs(best)} position{'s' if abs(best) > 1 else ''} {'later' if best > 0 else 'earlier'}"
    )
    guess = "not shifted" if best > 0 else "shifted twice"
    return Finding(
        f"The loss is {means[0]:.3g} at the labels given and {means[best]:.3g} with labels "
        f"{where}: labels look {guess}.",
        "The model is trained to predict another token than the next one.",
        "labels = tokens  # let the model shift, or shift once yourself: logits[:, :-1] against "
        "tokens[:, 1:]",
    )
