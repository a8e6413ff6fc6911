"""Weights: do they reach, do they fit, and what do they do to probabilities?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.case import Case
from lossary.doctor.registry import check, need, present
from lossary.doctor.report import Finding


def _class_counts(case: Case, classes: int) -> Any:
    summary = case.target_summary
    need(summary.integral and summary.labels is not None, "whole labels")
    if case.class_scores and case.truth.shape == case.predicted.shape:
        axes = tuple(k for k in range(case.truth.ndim) if k != case.class_axis)
        return case.truth.sum(axis=axes).astype(float)
    counts = np.zeros(classes)
    for label, times in zip(summary.labels, summary.label_counts, strict=True):
        if 0 <= label < classes:
            counts[int(label)] = times
    return counts


@check("weight-cancels", severity="warning")
def weight_cancels(case: Case) -> Finding | None:
    """Class weights divide themselves out of a weighted mean.

    Symptom: class weights have no effect with batch size 1, or with batches of one class.
    Cause: the weighted mean divides by the sum of weights; with one class both are the same.
    Fix: divide by the number of samples instead.
    People type: class weights no effect; CrossEntropyLoss weight batch size 1; weighted cross
    entropy weights cancel; class weights do not change anything

    Wrong::

        examine(logits, classes, loss="cross_entropy", class_weights=np.arange(1.0, 11.0),
                batch_size=1)

    Right::

        examine(logits, classes, loss="cross_entropy", class_weights=np.arange(1.0, 11.0),
                batch_size=64)
    """
    subject, weights = case.known, case.class_weights_array
    need(weights is not None and case.batch_size, "class_weights= and batch_size=")
    need(subject.own or subject.library == "torch", "a loss that divides by the weights")
    if subject.reduction not in ("mean", None) or float(np.ptp(weights)) == 0:
        return None
    need(case.target_summary.integral, "whole labels")
    truth = case.truth.reshape(len(case.truth), -1)
    keep = np.ones_like(truth, bool) if case.ignored is None else truth != case.ignored
    rows = present(case.batch_size, "batch_size=")
    starts = range(0, len(truth), rows)
    single = sum(len(np.unique(truth[i : i + rows][keep[i : i + rows]])) <= 1 for i in starts)
    share = single / len(starts)
    if share < 0.25:
        return None
    return Finding(
        f"{share:.0%} of batches of {case.batch_size} hold one class only: there the class weights "
        "divide themselves "
        "out and have no effect.",
        "A weighted mean divides by the sum of the weights; with one class that is the weight "
        "itself.",
        case.line(
            f'Loss("{subject.name}", reduction="mean_over_batch")',
            torch='loss = nn.CrossEntropyLoss(weight=w, reduction="sum")  # then divide by the '
            "batch size",
        ),
    )


@check("weights-suspicious", severity="warning")
def weights_suspicious(case: Case) -> Finding | None:
    """Weights of the wrong length, order, sign or size.

    Symptom: the rare class gets rarer in the predictions; a class disappears; an error about sizes.
    Cause: weights sorted by another order than the labels, frequencies instead of their inverse,
    a weight of 0, or extremes.
    Fix: compute them from the labels.
    People type: class weights wrong order; how to compute class weights; weight tensor should be
    defined for all classes; class weight makes results worse

    Wrong::

        examine(logits[:, :3], rare_classes, loss="cross_entropy", class_weights=np.array([9.0,
                1.0, 0.5]))

    Right::

        examine(logits[:, :3], rare_classes, loss="cross_entropy", class_weights=np.array([0.4,
                2.0, 9.0]))
    """
    weights = case.class_weights_array
    need(weights is not None or case.weights_array is not None, "class_weights= or weights=")
    if weights is None:
        return _sample_weights(case.weights_array)
    weights = weights.astype(float).reshape(-1)
    if not case.class_scores and not case.binary_scores:
        need(case.target_summary.integral, "whole labels")
    highest = 1 if case.binary_scores else case.target_summary.high
    classes = case.classes if case.class_scores else max(2, int(highest) + 1)
    inverse = case.line(
        "class_weights = len(target) / (classes * np.bincount(target))",
        torch="class_weights = len(target) / (classes * torch.bincount(target))",
        jax="class_weights = len(target) / (classes * jnp.bincount(target))",
    )
    if len(weights) != classes:
        return Finding(
            f"{len(weights)} class weights for {classes} classes.",
            "Weights and classes must pair up.",
            inverse,
            severity="error",
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        return Finding(
            f"Class weights hold {int((~np.isfinite(weights)).sum())} non-finite and "
            f"{int((weights < 0).sum())} negative values.",
            "A negative weight rewards mistakes; a NaN spoils every batch.",
            inverse,
            severity="error",
        )
    counts = _class_counts(case, classes)
    present = counts > 0
    if (weights[present] == 0).any():
        gone = np.flatnonzero(present & (weights == 0)).tolist()
        return Finding(
            f"Classes {gone[:5]} occur {int(counts[gone].sum()):,} times and have weight 0.",
            "They are never learnt.",
            inverse,
        )
    used, seen = weights[present], counts[present]
    if len(used) > 1 and used.max() / used.min() > 1000:
        return Finding(
            f"Class weights span a factor {used.max() / used.min():,.0f}.",
            "Single rows then dominate the gradient; training becomes noisy or diverges.",
            "class_weights = class_weights.clip(max=20 * class_weights.min())",
        )
    if len(used) > 1 and seen.max() > 2 * seen.min() and used.max() > 1.5 * used.min():
        most, heavy = int(np.argmax(seen)), int(np.argmax(used))
        if most == heavy and _correlation(np.log(seen), np.log(used)) > 0:
            label = np.flatnonzero(present)[most]
            return Finding(
                f"The largest weight ({used.max():.3g}) is on the most frequent class {label} "
                f"({seen.max():,.0f} of {seen.sum():,.0f}).",
                "Weights usually balance rare classes; these make the imbalance worse. Is the "
                "order reversed?",
                inverse,
            )
    return None


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1]) if np.ptp(one) > 0 and np.ptp(other) > 0 else 0.0


def _sample_weights(weights: np.ndarray) -> Finding | None:
    bad, negative = int((~np.isfinite(weights)).sum()), int((weights < 0).sum())
    if bad or negative:
        return Finding(
            f"{bad:,} weights are not finite and {negative:,} are negative, of {weights.size:,}.",
            "A negative weight rewards mistakes; a NaN spoils every batch.",
            "weights = np.nan_to_num(weights).clip(min=0)",
            severity="error",
        )
    total = float(weights.sum())
    if total == 0:
        return Finding(
            f"All {weights.size:,} weights are 0.",
            "Nothing counts.",
            "weights = None",
            severity="error",
        )
    top = np.sort(weights.reshape(-1))[::-1]
    count = max(1, len(top) // 100)
    share = float(top[:count].sum() / total)
    if len(top) >= 200 and share > 0.5:
        return Finding(
            f"1% of the rows carry {share:.0%} of the weight.",
            "The training set is effectively that small.",
            "weights = weights.clip(max=np.quantile(weights, 0.99))",
        )
    return None


@check("calibration-shift", severity="note")
def calibration_shift(case: Case) -> Finding | None:
    """Weights, focal modulation or smoothing move the predicted probabilities.

    Symptom: predicted probabilities do not match frequencies; the threshold 0.5 is wrong.
    Cause: the loss is not minimal at the true probability: pos_weight w adds log w to the logit,
    focal loss with gamma 2 predicts 25 % for a true 5 %.
    Fix: correct the logit at inference, move the threshold, or use the plain loss for
    probabilities.
    People type: pos_weight probabilities wrong; focal loss calibration; class weights calibration;
    predicted probabilities too high; threshold after class weights

    Wrong::

        examine(binary_logits, binary, loss="binary_cross_entropy", class_weights=np.array([1.0,
                10.0]))

    Right::

        examine(binary_logits, binary, loss="binary_cross_entropy")
    """
    need(
        case.known.own and (case.binary_scores or case.class_scores),
        "a Lossary loss of probabilities",
    )
    weights = case.class_weights_array
    two = weights is None or len(weights) == 2
    need(two, "two class weights")
    honest = 0.05
    found = _best_answer(case, honest, weights)
    if found is None or abs(found - honest) < 0.01:
        return None
    shift = math.log(found / (1 - found)) - math.log(honest / (1 - honest))
    threshold = _best_answer(case, 0.5, weights)
    return Finding(
        f"Under this loss a true probability of 5% is best predicted as {found:.1%} (logit "
        f"{shift:+.2f}), and 50% as "
        f"{threshold:.1%}.",
        "Scores still rank well, but they are no probabilities, and 0.5 is no longer the even "
        "threshold.",
        f"probability = sigmoid(logit - {shift:.2f})  # exact for weights; or decide at "
        f"{threshold:.3f}"
        if weights is not None or "pos_weight" in case.known.parameters
        else f"answer = probability > {threshold:.3f}  # or recalibrate on held-out data",
    )


def _best_answer(case: Case, honest: float, weights: np.ndarray | None) -> float | None:
    """The constant probability of least mean loss when the truth is ``honest``, found on a grid."""
    loss = case.known.replaced()
    score = np.linspace(-9.0, 9.0, 3601)
    probability = 1 / (1 + np.exp(-score))
    if case.binary_scores:
        grid = (
            score
            if case.reads == "logit"
            else probability
            if case.reads == "probability"
            else np.log(probability)
        )
        one, zero = np.ones_like(grid), np.zeros_like(grid)
    else:
        pair = np.stack([np.zeros_like(score), score], axis=-1)
        logs = np.stack([np.log(1 - probability), np.log(probability)], axis=-1)
        grid = {"class logits": pair, "simplex": np.exp(logs)}.get(str(case.reads), logs)
        one, zero = np.ones(len(grid), int), np.zeros(len(grid), int)
    if "axis" in case.known.parameters:
        loss = loss.with_parameters(axis=-1)
    try:
        yes, no = loss.values(grid, one), loss.values(grid, zero)
    except LossError:
        return None
    if yes.shape != score.shape or no.shape != score.shape:
        return None
    heavy = (1.0, 1.0) if weights is None else (float(weights[0]), float(weights[1]))
    mean = honest * heavy[1] * yes + (1 - honest) * heavy[0] * no
    if not np.isfinite(mean).all():
        return None
    return float(probability[int(np.argmin(mean))])
