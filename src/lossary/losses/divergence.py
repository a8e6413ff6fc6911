"""Distances between distributions: what to predict when the target is a whole distribution."""

from __future__ import annotations

import math

from lossary.contract import (
    CONVEX,
    MONOTONE,
    NONNEGATIVE,
    SHIFT_INVARIANT,
    SMOOTH,
    STRICTLY_PROPER,
    Array,
    Classes,
    ClassLogits,
    OpenFraction,
    PerSample,
    Simplex,
    bounded,
    loss,
    named,
)
from lossary.numerics import (
    log_normalized,
    log_of_weight,
    log_softmax,
    normalized,
    one_hot,
    one_minus_exp,
    softplus,
    times,
)
from lossary.xp import namespace


def _kl(log_probability: Array, target: Array, axis: int) -> Array:
    weight = one_hot(target, log_probability, axis=axis)
    excess = log_of_weight(weight) - log_probability
    return namespace(target).sum(times(weight, excess), axis=axis)


def _kl_divergence_of_probabilities(
    prediction: Simplex, target: Classes, *, axis: int = -1
) -> PerSample:
    return _kl(log_normalized(prediction, axis=axis), target, axis)


def _kl_divergence_of_log_probabilities(
    prediction: ClassLogits, target: Classes, *, axis: int = -1
) -> PerSample:
    return _kl(prediction, target, axis)


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE, MONOTONE, SHIFT_INVARIANT, STRICTLY_PROPER},
    aliases=(
        named("kl_div", predictions="log_probabilities"),
        "kullback_leibler",
        "relative_entropy",
        named("kullback_leibler_divergence", predictions="probabilities"),
        named("kld", predictions="probabilities"),
    ),
    paper="doi:10.1214/aoms/1177729694",
    forms={
        "probabilities": _kl_divergence_of_probabilities,
        "log_probabilities": _kl_divergence_of_log_probabilities,
    },
)
def kl_divergence(prediction: ClassLogits, target: Classes, *, axis: int = -1) -> PerSample:
    r"""Surprise beyond the unavoidable when the target distribution is predicted by the softmax.

    .. math:: \ell(z, t) = \sum_k t_k \log \frac{t_k}{p_k}, \quad p = \operatorname{softmax}(z)

    Use it when the target is a distribution and 0 shall mean a perfect prediction: its gradient
    is that of cross-entropy, its value is less by the entropy of the target. The best prediction is
    the target. A class of weight 0 adds nothing. Classes are summed (as Keras and optax; PyTorch's
    mean over them is not a divergence). Keras' names take probabilities, which are divided by their
    sum; ``kl_div`` takes log-probabilities, as in PyTorch, and uses them as they are.
    """
    return _kl(log_softmax(prediction, axis=axis), target, axis)


def _jensen_shannon(
    probability: Array, log_probability: Array, target: Array, beta: float, axis: int
) -> Array:
    xp = namespace(log_probability, target)
    weight = one_hot(target, log_probability, axis=axis)
    log_ratio = log_of_weight(weight) - log_probability
    log_ratio = xp.where(weight == 0, -float("inf"), log_ratio)
    close, low = xp.abs(log_ratio) < 0.5, log_ratio <= -0.5
    to_mixture = _to_far_mixture(weight, probability, xp.where(close, 0.0, log_ratio), low, beta)
    gap = xp.where(weight == 1, one_minus_exp(log_probability), weight - probability)
    near = _to_near_mixture(weight, probability, xp.where(close, gap, 0.0), close, beta)
    to_mixture = xp.sum(xp.where(close, near, to_mixture), axis=axis)
    covered = xp.sum(xp.where(low, 0.0, probability), axis=axis)
    missed = xp.sum(xp.where(low, probability, 0.0), axis=axis)
    missed = xp.where(covered > 0.5, missed, 1.0 - covered)
    return -to_mixture - (1.0 - beta) * math.log1p(-beta) * missed


def _to_near_mixture(
    weight: Array, probability: Array, gap: Array, close: Array, beta: float
) -> Array:
    """Mean log(m / t) and log(m / p) of close t and p: m is t - (1 - beta) gap and p + beta gap."""
    xp = namespace(weight)
    from_target = weight * xp.log1p((beta - 1.0) * gap / xp.where(close, weight, 1.0))
    from_prediction = probability * xp.log1p(beta * gap / xp.where(close, probability, 1.0))
    return beta * from_target + (1.0 - beta) * from_prediction


def _to_far_mixture(
    weight: Array, probability: Array, log_ratio: Array, low: Array, beta: float
) -> Array:
    """The same as softplus of the log-ratio log(t / p), so that nothing overflows.

    Where t is far below p (``low``), log(m / p) is nearly constant: less that constant.
    """
    odds = log_ratio + math.log(beta / (1.0 - beta))
    from_target = times(weight, math.log(beta) + softplus(-odds))
    from_prediction = times(probability, softplus(odds))
    constant_part = math.log1p(-beta) * namespace(weight).where(low, 0.0, probability)
    return beta * from_target + (1.0 - beta) * (from_prediction + constant_part)


def _jensen_shannon_of_probabilities(
    prediction: Simplex, target: Classes, *, beta: OpenFraction = 0.5, axis: int = -1
) -> PerSample:
    return _jensen_shannon(*normalized(prediction, axis=axis), target, beta, axis)


@loss(
    properties={SMOOTH, NONNEGATIVE, MONOTONE, SHIFT_INVARIANT, bounded(math.log(2.0))},
    aliases=("jsd", "js_divergence", "jensen_shannon_divergence", "generalized_jsd"),
    paper="doi:10.1109/18.61115",
    forms={"probabilities": _jensen_shannon_of_probabilities},
)
def jensen_shannon(
    prediction: ClassLogits, target: Classes, *, beta: OpenFraction = 0.5, axis: int = -1
) -> PerSample:
    r"""How far target and predicted distribution lie from their mixture.

    .. math:: \ell(z, t) = \beta \sum_k t_k \log \frac{t_k}{m_k}
              + (1 - \beta) \sum_k p_k \log \frac{p_k}{m_k}, \quad m = \beta t + (1 - \beta) p

    Use it to compare distributions that may lack each other's classes, or under wrong labels: it
    never exceeds log 2. The best prediction of a target distribution is that distribution; of
    uncertain labels it leans towards the likeliest. ``beta`` is the target's share of the mixture
    (1/2 is the textbook's; divided by ``beta`` or 1 - ``beta`` it tends to a Kullback-Leibler
    divergence at either end).
    """
    log_probability = log_softmax(prediction, axis=axis)
    # Not the softmax, whose derivative by a nearly certain class cancels.
    probability = namespace(prediction).exp(log_probability)
    return _jensen_shannon(probability, log_probability, target, beta, axis)
