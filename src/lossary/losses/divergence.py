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
    is_index,
    log_normalized,
    log_of_weight,
    log_softmax,
    normalized,
    one_hot,
    one_minus_exp,
    pick,
    quotient,
    stop_gradient,
    times,
)
from lossary.special import entropy_gap, log_of_ratio, sloped
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
    """The value, and its derivatives (1 - beta) log(p / m) by p and beta log(t / m) by t."""
    xp = namespace(log_probability, target)
    if is_index(target, log_probability):
        probability = pick(probability, target, axis=axis)
        return _jensen_shannon_of_class(probability, pick(log_probability, target, axis=axis), beta)
    weight = one_hot(target, log_probability, axis=axis)
    gap = xp.where(weight == 1, one_minus_exp(log_probability), weight - probability)
    mixture = _mixture(weight, probability, beta)
    # t log(t / m) - (t - m), and the same of p: never negative. The differences add to nothing.
    value = entropy_gap((1.0 - beta) * gap / mixture, weight / mixture)
    value = beta * xp.sum(mixture * value, axis=axis)
    rest = entropy_gap(-beta * gap / mixture, probability / mixture)
    value = stop_gradient(value + (1.0 - beta) * xp.sum(mixture * rest, axis=axis))
    rise = beta * xp.log(xp.where(weight == 0, 1.0, quotient(weight, mixture)))
    value = value + xp.sum(sloped(rise, weight), axis=axis)
    # A constant may be taken from log(p / m): where most targets are far below the predictions it
    # is nearly constant itself, and log((1 - beta) p / m) = log(1 - beta t / m) is not.
    absent = xp.where(weight < 0.5 * probability, probability, 0.0)
    absent = xp.sum(absent, axis=axis, keepdims=True) > 0.5
    gap = beta * quotient(xp.where(absent, weight, gap), mixture)
    absent = xp.astype(absent, gap.dtype)
    fall = _log_of_share(
        (1.0 - beta * absent) * quotient(probability, mixture),
        gap,
        log_probability - xp.log(mixture) + math.log1p(-beta) * absent,
    )
    # Where the target is 0, p / m is known, though m may be too small for a number.
    known = (absent - 1.0) * math.log1p(-beta)
    fall = xp.where(weight == 0, known, xp.where(probability == 0, 0.0, fall))
    return value + xp.sum(sloped((1.0 - beta) * fall, probability), axis=axis)


def _jensen_shannon_of_class(probability: Array, log_probability: Array, beta: float) -> Array:
    """The same where the target is one class, whose probability tells all."""
    gap, mixture = one_minus_exp(log_probability), _mixture(1.0, probability, beta)
    value = mixture * entropy_gap(-beta * gap / mixture, probability / mixture)
    value = (1.0 - beta) * (value - math.log1p(-beta) * gap)
    value = beta * mixture * entropy_gap((1.0 - beta) * gap / mixture, 1.0 / mixture) + value
    apart = log_probability - namespace(mixture).log(mixture) + math.log1p(-beta)
    ratio = (1.0 - beta) * quotient(probability, mixture)
    fall = (1.0 - beta) * times(probability, _log_of_share(ratio, beta / mixture, apart))
    return stop_gradient(value) + sloped(fall, log_probability)


def _mixture(weight: Array | float, probability: Array, beta: float) -> Array:
    mixture = beta * weight + (1.0 - beta) * probability
    return namespace(mixture).where(mixture == 0, 1.0, mixture)


def _log_of_share(share: Array, missing: Array, apart: Array) -> Array:
    """``log(share)`` of ``share = 1 - missing``; ``apart`` is it as a difference of logarithms."""
    xp = namespace(share, missing)
    far = missing > 0.5
    share = xp.where(far, share, 1.0)
    share = log_of_ratio(share, apart)
    return xp.where(far, share, xp.log1p(-xp.where(far, 0.0, missing)))


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
