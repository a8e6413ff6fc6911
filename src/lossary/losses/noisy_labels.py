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
    class_range,
    from_highest,
    is_index,
    log_normalized,
    log_of_weight,
    log_softmax,
    one_hot,
    one_minus_exp,
    pick,
    power,
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
    aliases=("symmetric_crossentropy", "sce", "sl", "symmetric_learning"),
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
    # Each class's log t as a share of A: of a certain class 0, of an absent one 1.
    log_target = xp.where(target == 0, log_zero, log_of_weight(target))
    blame = xp.where(log_target < log_zero, log_zero, log_target) / log_zero
    even = xp.sum(blame * xp.exp(log_probability), axis=axis)
    # With one class nearly certain, the others' equal shares would cancel in the derivative.
    relief = 1.0 - blame
    steep = pick(wrong, relief, axis=axis) + (1.0 - xp.sum(relief, axis=axis))
    reverse = xp.where(xp.max(target, axis=axis) > 0.9, steep, even)
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


_STEPS = 8
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(12)


def _newton_step(logits: Array, normalizer: Array, slope: float, axis: int) -> Array:
    """One step of Newton's method towards the normalizer of the tempered softmax.

    On (sum of probabilities) ** -slope, which is concave in the normalizer and nearly straight:
    from the largest logit the steps only rise, and few are needed.
    """
    xp = namespace(logits)
    base = 1.0 + slope * (normalizer - logits)
    share = base ** (-1.0 / slope)
    total = xp.sum(share, axis=axis, keepdims=True)
    escort = xp.sum(share / base, axis=axis, keepdims=True)
    return normalizer + (1.0 - total ** (-slope)) * total ** (slope + 1.0) / (slope * escort)


def _tempered_base(logits: Array, slope: float, axis: int) -> Array:
    """1 + slope (n - z_k), whose power -1 / slope is the tempered probability of class k.

    n makes the probabilities sum to 1.
    """
    logits = from_highest(logits, axis=axis)
    fixed = stop_gradient(logits)
    normalizer = namespace(logits).max(fixed, axis=axis, keepdims=True)
    for _ in range(_STEPS):
        normalizer = _newton_step(fixed, normalizer, slope, axis)
    for _ in range(2):  # from the solution, two steps carry its first and second derivative
        normalizer = _newton_step(logits, normalizer, slope, axis)
    return 1.0 + slope * (normalizer - logits)


def _doubt(share: Array, axis: int) -> tuple[Array, Array]:
    """(one minus each probability, where that is the sum of the others because one is sure)."""
    xp = namespace(share)
    likeliest = class_range(share, axis) == xp.expand_dims(xp.argmax(share, axis=axis), axis=axis)
    others = xp.sum(xp.where(likeliest, 0.0, share), axis=axis, keepdims=True)
    sure = xp.logical_and(likeliest, others < 0.5)
    return xp.where(sure, others, 1.0 - share), sure


def _bregman(target: Array, share: Array, gap: Array, power_of_share: Array, order: float) -> Array:
    """t (t^s - p^s) / s - (t^(1 + s) - p^(1 + s)) / (1 + s) of order s and gap t - p.

    Its terms cancel where t and p are close; there it is taken as gap^2 times the integral of
    u (t - gap u)^(s - 1) for u from 0 to 1, by Gauss-Legendre's rule.
    """
    xp = namespace(target)
    near = xp.abs(gap) < 0.5 * target
    inside = xp.where(near, gap, 0.0)
    start = xp.where(near, target, 1.0)
    integral = xp.zeros_like(start)
    for node, weight in zip(_NODES, _NODE_WEIGHTS, strict=True):
        place = 0.5 + 0.5 * float(node)
        integral = integral + 0.5 * float(weight) * place * (start - place * inside) ** (order - 1)
    power_of_target = power(target, order)
    far = target * (power_of_target - power_of_share) / order
    far = far - (target * power_of_target - share * power_of_share) / (1.0 + order)
    return xp.where(near, inside * inside * integral, far)


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
    order, slope = 1.0 - t1, t2 - 1.0
    base = _tempered_base(prediction, slope, axis)
    doubt, sure = _doubt(base ** (-1.0 / slope), axis)
    # A sure class by the others, or its large derivative drowns theirs.
    base = xp.where(sure, (1.0 - xp.where(sure, doubt, 0.0)) ** (-slope), base)
    # Powers of the base, not of the probability: that may be too small for a number.
    share, power_of_share = base ** (-1.0 / slope), base ** (-order / slope)
    weight = one_hot(target, prediction, axis=axis)
    absent = xp.where(weight == 0, share * power_of_share / (1.0 + order), 0.0)
    if is_index(target, prediction):
        parts = (pick(x, target, axis=axis) for x in (weight, share, doubt, power_of_share))
        return xp.sum(absent, axis=axis) + _bregman(*parts, order)
    gap = xp.where(weight == 1, doubt, weight - share)
    given = _bregman(weight, share, gap, power_of_share, order)
    return xp.sum(xp.where(weight == 0, absent, given), axis=axis)
