"""Wrong labels: losses that stop short of believing every one of them."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from lossary.contract import (
    MONOTONE,
    NONNEGATIVE,
    SHIFT_INVARIANT,
    SMOOTH,
    Array,
    Classes,
    ClassLogits,
    Fraction,
    Interval,
    Nonnegative,
    PerSample,
    Simplex,
    bounded,
    loss,
    named,
)
from lossary.numerics import (
    is_index,
    log_normalized,
    log_of_weight,
    log_softmax,
    one_hot,
    one_minus_exp,
    pick,
    stop_gradient,
)
from lossary.xp import namespace

Order = Annotated[float, Interval(0, 1, "right")]
AboveOne = Annotated[float, Interval(1, math.inf, "neither")]
LogZero = Annotated[float, Interval(-745, 0, "left")]  # -745: the smallest float64


def _generalized(log_probability: Array, target: Array, q: float, axis: int) -> Array:
    return pick(one_minus_exp(q * log_probability) / q, target, axis=axis)


def _generalized_of_probabilities(
    prediction: Simplex, target: Classes, *, q: Order = 0.7, axis: int = -1
) -> PerSample:
    return _generalized(log_normalized(prediction, axis=axis), target, q, axis)


@loss(
    properties={SMOOTH, NONNEGATIVE, SHIFT_INVARIANT, MONOTONE, bounded("1 / q")},
    aliases=(
        "gce",
        "lq",
        named("categorical_generalized_cross_entropy", q=0.5, predictions="probabilities"),
    ),
    paper="arXiv:1805.07836",
    forms={"probabilities": _generalized_of_probabilities},
)
def generalized_cross_entropy(
    prediction: ClassLogits, target: Classes, *, q: Order = 0.7, axis: int = -1
) -> PerSample:
    r"""Between cross-entropy and the probability of being wrong, by one number.

    .. math:: \ell(z, y) = \frac{1 - p_y^q}{q}, \quad p = \operatorname{softmax}(z)

    Use it when some labels are wrong: an example that stays improbable loses its pull. ``q`` leads
    from cross-entropy (towards 0) to the probability of being wrong (1); 0.7 is the paper's. The
    best prediction sharpens the probabilities to their power 1 / (1 - q). Keras' name
    (categorical_generalized_cross_entropy) takes probabilities and has its default of 0.5.
    """
    return _generalized(log_softmax(prediction, axis=axis), target, q, axis)


@loss(
    properties={SMOOTH, NONNEGATIVE, SHIFT_INVARIANT, MONOTONE},
    aliases=("symmetric_crossentropy", "sce", "symmetric_learning"),
    paper="arXiv:1908.06112",
)
def symmetric_cross_entropy(
    prediction: ClassLogits,
    target: Classes,
    *,
    alpha: Nonnegative = 0.1,
    beta: Nonnegative = 1.0,
    log_zero: LogZero = -4.0,
    axis: int = -1,
) -> PerSample:
    r"""Cross-entropy plus the cross-entropy with target and prediction exchanged.

    .. math:: \ell(z, t) = -\alpha \sum_k t_k \log p_k - \beta \sum_k p_k \max(\log t_k, A),
              \quad p = \operatorname{softmax}(z)

    Use it when some labels are wrong: the reverse part, for one true class -A (1 - p), is fair to
    all of them, the forward part makes it learn. ``log_zero`` is A, what log 0 counts as: -4 in the
    paper; its released code has -9.21. The best prediction is surer than the probabilities.
    """
    xp = namespace(prediction, target)
    log_probability = log_softmax(prediction, axis=axis)
    forward = pick(-log_probability, target, axis=axis)
    wrong = one_minus_exp(log_probability)
    if is_index(target, prediction):
        return alpha * forward - beta * log_zero * pick(wrong, target, axis=axis)
    # By how much each class's log t is better than A, as a share of -A: 1 for a certain class.
    log_target = xp.where(target == 0, log_zero, log_of_weight(target))
    relief = 1.0 - xp.where(log_target < log_zero, log_zero, log_target) / log_zero
    reverse = pick(wrong, relief, axis=axis) + (1.0 - xp.sum(relief, axis=axis))
    return alpha * forward - beta * log_zero * reverse


@loss(
    properties={SMOOTH, NONNEGATIVE, SHIFT_INVARIANT, MONOTONE, bounded("1 + log(tau)")},
    aliases=(
        "partially_huberised_crossentropy",
        "partially_huberized_cross_entropy",
        "phuber_cross_entropy",
        "phuber_ce",
    ),
    paper="Menon et al., ICLR 2020 (rklB76EKPr)",
)
def partially_huberised_cross_entropy(
    prediction: ClassLogits, target: Classes, *, tau: AboveOne = 10.0, axis: int = -1
) -> PerSample:
    r"""Cross-entropy that grows only linearly once the true class is improbable.

    .. math:: \ell(z, y) = \begin{cases} -\log p_y & p_y > 1/\tau \\
              1 + \log \tau - \tau p_y & p_y \le 1/\tau \end{cases},
              \quad p = \operatorname{softmax}(z)

    Use it when some labels are wrong: no example costs more than 1 + log ``tau``. The best
    prediction is the probability of each class where those that occur have more than 1 / ``tau``;
    a rarer one is given up.
    """
    xp = namespace(prediction, target)
    log_probability = log_softmax(prediction, axis=axis)
    # exp(log p) of the improbable only, so that a certain class is not rounded to 1.
    line = 1.0 + math.log(tau) - tau * xp.exp(log_probability)
    value = xp.where(log_probability > -math.log(tau), -log_probability, line)
    return pick(value, target, axis=axis)


def _tempered_rate(logits: Array, normalizer: Array, slope: float, axis: int) -> Array:
    """One Newton step towards the normalizer of the tempered softmax.

    On (sum of probabilities) ** -slope, which is concave in the normalizer and nearly straight:
    from the largest logit the steps only rise, and few are needed.
    """
    xp = namespace(logits)
    base = 1.0 + slope * (normalizer - logits)
    share = base ** (-1.0 / slope)
    total = xp.sum(share, axis=axis, keepdims=True)
    escort = xp.sum(share / base, axis=axis, keepdims=True)
    return normalizer + (1.0 - total ** (-slope)) * total ** (slope + 1.0) / (slope * escort)


def tempered_softmax(logits: Array, *, temperature: float, axis: int = -1) -> tuple[Array, Array]:
    """(probabilities, one minus them) of the heavy-tailed softmax of a ``temperature`` above 1.

    Probability k is (1 + (temperature - 1)(n - z_k)) ** (-1 / (temperature - 1)), where n makes
    their sum 1 (Amid et al. 2019).
    """
    xp = namespace(logits)
    slope = temperature - 1.0
    logits = logits - stop_gradient(xp.max(logits, axis=axis, keepdims=True))
    fixed = stop_gradient(logits)
    normalizer = xp.max(fixed, axis=axis, keepdims=True)
    for _ in range(_STEPS):
        normalizer = _tempered_rate(fixed, normalizer, slope, axis)
    for _ in range(2):  # from the solution, two steps carry its first and second derivative
        normalizer = _tempered_rate(logits, normalizer, slope, axis)
    share = (1.0 + slope * (normalizer - logits)) ** (-1.0 / slope)
    sure = share > 0.5
    others = xp.sum(xp.where(sure, 0.0, share), axis=axis, keepdims=True)
    return share, xp.where(sure, others, 1.0 - share)


_STEPS = 8
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(12)


def _certain_divergence(doubt: Array, order: float) -> Array:
    """The integral of v (1 - v) ** (order - 1) from 0 to ``doubt``, for ``doubt`` < 1.

    It is -log_t(p) - (1 - p ** (1 + order)) / (1 + order) at p = 1 - doubt, whose terms cancel near
    p = 1; there the integral is taken by Gauss-Legendre's rule.
    """
    xp = namespace(doubt)
    near = doubt < 0.5
    inside = xp.where(near, doubt, 0.0)
    mean = xp.zeros_like(doubt)
    for node, weight in zip(_NODES, _NODE_WEIGHTS, strict=True):
        place = 0.5 * (1.0 + float(node))
        mean = mean + 0.5 * float(weight) * place * (1.0 - place * inside) ** (order - 1.0)
    right = xp.where(near, 0.5, 1.0 - doubt)
    far = (1.0 - right**order) / order - (1.0 - right ** (1.0 + order)) / (1.0 + order)
    return xp.where(near, inside * inside * mean, far)


@loss(
    properties={SMOOTH, NONNEGATIVE, SHIFT_INVARIANT, MONOTONE, bounded("1 / (1 - t1)")},
    aliases=("bitempered", "bi_tempered", "bitempered_logistic", "tempered_softmax"),
    paper="arXiv:1906.03361",
)
def bi_tempered_logistic(
    prediction: ClassLogits,
    target: Classes,
    *,
    t1: Fraction = 0.8,
    t2: AboveOne = 1.2,
    axis: int = -1,
) -> PerSample:
    r"""Logistic loss whose logarithm is bounded and whose softmax has heavy tails.

    .. math:: \ell(z, t) = \sum_k t_k (\log_{t_1} t_k - \log_{t_1} p_k)
              - \frac{t_k^{2 - t_1} - p_k^{2 - t_1}}{2 - t_1},
              \quad p_k = \exp_{t_2}(z_k - \lambda(z))

    Use it when some labels are wrong: ``t1`` below 1 bounds the cost of outliers far from the
    boundary (by 1 / (1 - t1)), ``t2`` above 1 lets labels near the boundary be wrong. Here
    log_t(x) = (x^(1 - t) - 1) / (1 - t), exp_t is its inverse and lambda makes the probabilities
    sum to 1. As both tend to 1 it becomes cross-entropy. The best prediction is the probability of
    each class, read through exp_t2 rather than the exponential.
    """
    xp = namespace(prediction, target)
    order = 1.0 - t1
    share, doubt = tempered_softmax(prediction, temperature=t2, axis=axis)
    weight = one_hot(target, prediction, axis=axis)
    hot, none = weight == 1, weight == 0
    between = xp.where(xp.logical_or(hot, none), 0.5, weight)
    tail = share ** (1.0 + order) / (1.0 + order)
    soft = between * (between**order - share**order) / order
    soft = soft - between ** (1.0 + order) / (1.0 + order) + tail
    others = xp.sum(xp.where(hot, 0.0, xp.where(none, tail, soft)), axis=axis)
    # A certain class's own part would cancel near p = 1.
    own = xp.sum(xp.where(hot, doubt, 0.0), axis=axis)
    return others + _certain_divergence(own, order)
