"""Labels in order, whose places in time nobody wrote down."""

from __future__ import annotations

from typing import Annotated

from lossary.contract import (
    NONNEGATIVE,
    SMOOTH,
    Array,
    ClassSequence,
    Interval,
    Lengths,
    LossError,
    PerSample,
    StepLogits,
    loss,
)
from lossary.numerics import log_softmax
from lossary.xp import device, namespace


def _add_logs(one: Array, other: Array) -> Array:
    """``log(exp(one) + exp(other))``, where either may be the logarithm of 0."""
    xp = namespace(one, other)
    above = one > other
    high, low = xp.where(above, one, other), xp.where(above, other, one)
    both = low != -float("inf")
    gap = xp.where(both, low - xp.where(both, high, 0.0), 0.0)
    return xp.where(both, high + xp.log1p(xp.exp(gap)), high)


def _states(target: Array, target_lengths: Array, blank: int) -> tuple[Array, Array, Array]:
    """States of a reading: (numbers, the classes they emit, which may skip the one before).

    They are the start, which emits nothing, then a blank before, between and after the labels:
    start, blank, first label, blank, second label, ..., blank.
    """
    xp = namespace(target, target_lengths)
    place = xp.arange(target.shape[1], device=device(target))
    written = xp.expand_dims(place, axis=0) < xp.expand_dims(
        xp.astype(target_lengths, place.dtype), axis=1
    )
    blanks = xp.expand_dims(xp.zeros_like(xp.astype(target_lengths, place.dtype)), axis=1) + blank
    labels = xp.concat([blanks, xp.where(written, xp.astype(target, place.dtype), blanks)], axis=1)
    # Between equal labels a blank must be seen.
    differs = xp.concat([blanks != blanks, labels[:, 1:] != labels[:, :-1]], axis=1)
    state = xp.arange(2 * target.shape[1] + 2, device=device(target))
    label = (1 - state % 2) * (state // 2)  # 0 for start and blanks
    return state, xp.take(labels, label, axis=1), xp.take(differs, label, axis=1)


def _delayed(score: Array, count: int) -> Array:
    """Each state's score ``count`` states later; nothing comes before the first."""
    xp = namespace(score)
    nothing = xp.full_like(score[:, :count], -float("inf"))
    return xp.concat([nothing, score[:, :-count]], axis=1)


@loss(
    properties={NONNEGATIVE, SMOOTH},
    aliases=("connectionist_temporal_classification",),
    paper="doi:10.1145/1143844.1143891",
)
def ctc(
    prediction: StepLogits,
    target: ClassSequence,
    input_lengths: Lengths,
    target_lengths: Lengths,
    *,
    blank: Annotated[int, Interval(0)] = 0,
    zero_infinity: bool = False,
) -> PerSample:
    r"""Surprise at a sequence of labels, over all ways to spread it over the steps in time.

    .. math:: \ell(z, y) = -\log \sum_{\pi \in \mathcal{B}^{-1}(y)} \prod_t p_t(\pi_t)

    Use it when speech or handwriting comes with its text but not with the place of each letter.
    A reading names one class per step; it becomes a target by merging repeats, then dropping the
    ``blank``. ``prediction``: (batch, steps, classes) logits; log-probabilities give the same.
    ``target``: (batch, length) classes without the blank, anything beyond ``target_lengths``;
    both lengths: (batch,). Steps beyond ``input_lengths`` have no part. A target too long for its
    steps costs infinity, or 0 with ``zero_infinity``, with derivative 0. A value is not divided by
    its target's length (PyTorch's module does so before its mean). Graves et al. 2006.
    """
    xp = namespace(prediction, target)
    if prediction.shape[1] is None:
        raise LossError("ctc: the number of steps must be known when the graph is built; pad to it")
    state, emits, skips = _states(target, target_lengths, blank)
    score = xp.astype(xp.zeros_like(emits), prediction.dtype)
    score = xp.where(state == 0, score, -float("inf"))
    step = xp.expand_dims(xp.arange(prediction.shape[1], device=device(target)), axis=0)
    counts = step < xp.expand_dims(xp.astype(input_lengths, step.dtype), axis=1)
    shares = log_softmax(xp.where(xp.expand_dims(counts, axis=2), prediction, 0.0))
    # Not sliced step by step: the derivative of each slice would be as large as the whole.
    for share, now in zip(xp.unstack(shares, axis=1), xp.unstack(counts, axis=1), strict=True):
        running = xp.expand_dims(now, axis=1)
        reached = _add_logs(score, _delayed(score, 1))
        reached = _add_logs(reached, xp.where(skips, _delayed(score, 2), -float("inf")))
        emitted = xp.take_along_axis(share, emits, axis=1)
        score = xp.where(running, xp.where(state == 0, -float("inf"), reached + emitted), score)
    last = xp.expand_dims(2 * xp.astype(target_lengths, emits.dtype), axis=1)
    ends = xp.take_along_axis(score, xp.concat([last, last + 1], axis=1), axis=1)
    total = _add_logs(ends[:, 0], ends[:, 1])
    return xp.where(total == -float("inf"), 0.0 if zero_infinity else float("inf"), -total)
