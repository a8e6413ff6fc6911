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
    largest,
    log_normalized,
    log_of_weight,
    log_softmax,
    one_hot,
    one_minus_exp,
    pick,
    stop_gradient,
)
from lossary.special import graft, sloped
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
    log_target = xp.where(target == 0, log_zero, log_of_weight(target))
    blame = -xp.where(log_target < log_zero, log_zero, log_target)
    reverse = xp.sum(blame * xp.exp(log_probability), axis=axis)
    # The derivative knows differences of blame alone, and equal ones must not leave a rounding:
    # each less that of the likeliest class.
    likeliest = stop_gradient(log_probability)
    likeliest = likeliest == xp.max(likeliest, axis=axis, keepdims=True)
    least = xp.max(xp.where(likeliest, stop_gradient(blame), -1.0), axis=axis, keepdims=True)
    apart = xp.sum((blame - least) * xp.exp(log_probability), axis=axis)
    return alpha * forward + beta * graft(reverse, apart)


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


def _newton_step(gaps: Array, base: Array, slope: float, axis: int) -> Array:
    """One step of Newton's method towards the base b at which sum (b + gap_k)^(-1/slope) is 1.

    On the sum's power -slope, which is concave in the base and nearly straight: from 1, the base of
    a single class, the steps only rise, and few are needed.
    """
    xp = namespace(gaps)
    each = base + gaps
    share = each ** (-1.0 / slope)
    total = xp.sum(share, axis=axis, keepdims=True)
    escort = xp.sum(share / each, axis=axis, keepdims=True)
    return base + (1.0 - total ** (-slope)) * total ** (slope + 1.0) / escort


def _tempered_base(logits: Array, slope: float, axis: int) -> tuple[Array, Array]:
    """(b, x): the tempered probability of class k is (b (1 + x_k))^(-1/slope); x >= 0.

    x is 0 for the likeliest class, so that the others' odds against it have all their digits.
    """
    xp = namespace(logits)
    gaps = -slope * xp.clip(from_highest(logits, axis=axis), -0.01 * largest(logits), None)
    fixed = stop_gradient(gaps)
    base = xp.ones_like(xp.sum(fixed, axis=axis, keepdims=True))
    for _ in range(_STEPS):
        base = _newton_step(fixed, base, slope, axis)
    base = _newton_step(gaps, base, slope, axis)  # from the solution: carries its derivative
    return base, gaps / base


def _power_of_one_plus(x: Array, exponent: float) -> Array:
    """``(1 + x)^exponent`` for ``x >= 0``; by its logarithm where rounding 1 + x would show."""
    xp = namespace(x)
    near = x < 1.0
    far = xp.where(near, 2.0, 1.0 + x) ** exponent
    return xp.where(near, xp.exp(exponent * xp.log1p(xp.where(near, x, 0.0))), far)


def _likeliest(x: Array, axis: int) -> Array:
    xp = namespace(x)
    return class_range(x, axis) == xp.expand_dims(xp.argmin(x, axis=axis), axis=axis)


def _sure(weight: Array, likeliest: Array, others: Array) -> Array:
    """Where a class is right and likelier than all others together, of this probability."""
    xp = namespace(weight)
    return xp.logical_and(xp.logical_and(likeliest, others < 0.5), weight == 1)


def _gap(weight: Array, share: Array, likeliest: Array, axis: int) -> Array:
    """Target less probability; for a sure and right class the sum of the other probabilities."""
    xp = namespace(share)
    others = xp.sum(xp.where(likeliest, 0.0, share), axis=axis, keepdims=True)
    return xp.where(_sure(weight, likeliest, others), others, weight - share)


def _cost_of_absent(
    prediction: Array, target: Array, share: Array, base: Array, x: Array, total: Array,
    slope: float, order: float, axis: int,
) -> Array:  # fmt: skip
    """What the classes of weight 0 cost, with the derivative of the whole loss.

    The derivative by each logit is u_j (h_j - sum u h / sum u) for u = p / (b (1 + x)). h is
    p^s - t p^(s - 1), less any constant: less 0 where the target is the likeliest class, else less
    that class's p^s, so that classes of nearly one probability do not cancel. The likeliest class's
    own is the sum of the others', where it has most of u.
    """
    xp = namespace(share)
    exponent, top = -order / slope, total**-order  # of p^s: that of 1 + x, and the likeliest's
    power = _power_of_one_plus(x, exponent) * top
    weight = one_hot(target, prediction, axis=axis)
    value = xp.sum(xp.where(weight == 0, share, 0.0) * power, axis=axis) / (1.0 + order)
    likeliest = _likeliest(x, axis)
    hit = xp.sum(xp.where(likeliest, weight, 0.0), axis=axis, keepdims=True) > 0.5
    others = xp.sum(xp.where(likeliest, 0.0, share), axis=axis, keepdims=True)
    missed = others * xp.sum(xp.where(likeliest, power, 0.0), axis=axis, keepdims=True)
    sure = xp.logical_and(_sure(weight, likeliest, others), hit)
    del weight  # as large as the input
    fall = share * xp.where(hit, power, top * xp.expm1(exponent * xp.log1p(x)))
    fall = one_hot(target, prediction, axis=axis) * power - fall
    fall = xp.where(sure, missed, fall)
    del power
    fall = fall / (base * (1.0 + x))
    u = share / (base * (1.0 + x))
    u = u / xp.sum(u, axis=axis, keepdims=True)
    fall = u * -xp.sum(fall, axis=axis, keepdims=True) + fall
    others = xp.sum(xp.where(likeliest, 0.0, fall), axis=axis, keepdims=True)
    fall = xp.where(xp.logical_and(likeliest, u > 0.5), -others, fall)
    del u
    return stop_gradient(value) - xp.sum(sloped(fall, prediction), axis=axis)


def _bregman(
    target: Array, share: Array, gap: Array, x: Array, total: Array, slope: float, order: float
) -> Array:
    """t (t^s - p^s) / s - (t^(1 + s) - p^(1 + s)) / (1 + s) of order s, p a constant.

    Its terms cancel where t and p are close; there it is an integral.
    """
    xp = namespace(target)
    share, x, total = map(stop_gradient, (share, x, total))
    target = xp.where(target == 0, 1.0, target)
    near = xp.abs(gap) < 0.5 * target
    close = _bregman_of_close(xp.where(near, target, 1.0), xp.where(near, gap, 0.0), order)
    log_ratio = -xp.log1p(x) / slope - xp.log(total) - xp.log(target)
    whole = target ** (1.0 + order)
    far = -whole * xp.expm1(order * log_ratio) / order
    far = far - (whole - share ** (1.0 + order)) / (1.0 + order)
    return xp.where(near, close, far)


def _bregman_of_close(target: Array, gap: Array, order: float) -> Array:
    """``gap^2`` times the integral of u (t - gap u)^(s - 1) for u from 0 to 1 (Gauss-Legendre)."""
    integral = namespace(target).zeros_like(target)
    for node, weight in zip(_NODES, _NODE_WEIGHTS, strict=True):
        place = 0.5 + 0.5 * float(node)
        integral = integral + 0.5 * float(weight) * place * (target - place * gap) ** (order - 1)
    return gap * gap * integral


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
    base, x = _tempered_base(prediction, slope, axis)
    share = _power_of_one_plus(x, -1.0 / slope)
    total = xp.sum(share, axis=axis, keepdims=True)  # b^(1/slope), with more digits
    share = share / total
    value = _cost_of_absent(prediction, target, share, base, x, total, slope, order, axis)
    weight, fixed = one_hot(target, prediction, axis=axis), stop_gradient(share)
    given = (weight, fixed, _gap(weight, fixed, _likeliest(x, axis), axis), x)
    if is_index(target, prediction):
        given = tuple(pick(each, target, axis=axis) for each in given)
        return value + _bregman(*given, xp.squeeze(total, axis=axis), slope, order)
    given = _bregman(*given, total, slope, order)
    # To a class of weight 0 the value is linear: it has no part there, but a derivative.
    from_none = sloped(-(fixed**order) / order, weight)
    return value + xp.sum(xp.where(weight == 0, from_none, given), axis=axis)
