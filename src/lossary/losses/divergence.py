"""Distances between distributions: what to predict when the target is a whole distribution."""

from __future__ import annotations

import math

from lossary.contract import (
    CONVEX,
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
    one_hot,
    one_minus_exp,
    softmax,
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
    properties={CONVEX, SMOOTH, NONNEGATIVE, SHIFT_INVARIANT, STRICTLY_PROPER},
    aliases=(
        "kl_div",
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
    mean over them is not a divergence). Logarithms of probabilities are logits too (as PyTorch and
    optax); Keras' names take probabilities, which are divided by their sum.
    """
    return _kl(log_softmax(prediction, axis=axis), target, axis)


def _jensen_shannon(
    log_probability: Array, probability: Array, target: Array, beta: float, axis: int
) -> Array:
    xp = namespace(log_probability, target)
    weight = one_hot(target, log_probability, axis=axis)
    log_ratio = log_of_weight(weight) - log_probability
    log_ratio = xp.where(weight == 0, -float("inf"), log_ratio)
    # Where t and p are close, the mixture is t - (1 - beta) gap and p + beta gap.
    close = xp.abs(log_ratio) < 0.5
    gap = xp.where(weight == 1, one_minus_exp(log_probability), weight - probability)
    gap = xp.where(close, gap, 0.0)
    near = (
        weight * xp.log1p((beta - 1.0) * gap / xp.where(close, weight, 1.0)),
        probability * (xp.log1p(beta * gap / xp.where(close, probability, 1.0))),
    )
    # Elsewhere log(m / t) and log(m / p) are softplus of the log-ratio: nothing overflows.
    odds = xp.where(close, 0.0, log_ratio) + math.log(beta / (1.0 - beta))
    far = (
        times(weight, math.log(beta) + softplus(-odds)),
        times(probability, math.log1p(-beta) + softplus(odds)),
    )
    from_target, from_prediction = (
        -xp.where(close, one, other) for one, other in zip(near, far, strict=True)
    )
    # Classes outside the target add their joint probability, each times the same number.
    inside = weight > 0
    shared = xp.where(inside, beta * from_target + (1.0 - beta) * from_prediction, 0.0)
    covered = xp.sum(xp.where(inside, probability, 0.0), axis=axis)
    missed = xp.sum(xp.where(inside, 0.0, probability), axis=axis)
    missed = xp.where(covered > 0.5, missed, 1.0 - covered)
    return xp.sum(shared, axis=axis) - (1.0 - beta) * math.log1p(-beta) * missed


def _jensen_shannon_of_probabilities(
    prediction: Simplex, target: Classes, *, beta: OpenFraction = 0.5, axis: int = -1
) -> PerSample:
    log_probability = log_normalized(prediction, axis=axis)
    probability = prediction / namespace(prediction).sum(prediction, axis=axis, keepdims=True)
    return _jensen_shannon(log_probability, probability, target, beta, axis)


@loss(
    properties={SMOOTH, NONNEGATIVE, SHIFT_INVARIANT, bounded(math.log(2.0))},
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
    return _jensen_shannon(log_probability, softmax(prediction, axis=axis), target, beta, axis)
