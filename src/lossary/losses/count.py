"""Counts and amounts: what to predict when the target is not negative and its spread grows."""

from __future__ import annotations

import math
from typing import Annotated

from lossary.contract import (
    CONVEX,
    NONNEGATIVE,
    SMOOTH,
    ZERO_AT_TARGET,
    Array,
    Counts,
    Interval,
    LogRate,
    NonnegativeReal,
    PerElement,
    PositiveReal,
    elicits,
    loss,
    named,
)
from lossary.numerics import largest, quotient, smallest, stop_gradient, times
from lossary.special import (
    HALF_LOG_TWO_PI,
    exp_gap,
    graft,
    log_gap,
    log_gap_slope,
    log_of_ratio,
    power_gap,
    reciprocal,
    stirling,
)
from lossary.xp import namespace

TweediePower = Annotated[float, Interval(1, math.inf, "left")]


def _relative_entropy(target: Array, rate: Array, log_rate: Array) -> Array:
    """``y log(y/rate) - y + rate``, half the Poisson deviance."""
    xp = namespace(target, rate)
    none = target == 0
    count = xp.where(none, 1.0, target)
    some = xp.where(none, 1.0, rate)
    log_ratio = log_of_ratio(some / count, xp.where(none, 0.0, log_rate) - xp.log(count))
    return xp.where(none, rate, count * log_gap((some - count) / count, log_ratio))


def _surprise_at_best(target: Array) -> Array:
    """The Poisson surprise at a count under its own rate."""
    xp = namespace(target)
    none = target == 0
    count = xp.where(none, 1.0, target)
    return xp.where(none, 0.0, stirling(1.0 / count) + (0.5 * xp.log(count) + HALF_LOG_TWO_PI))


def _poisson_nll_of_rates(
    prediction: NonnegativeReal, target: Counts, *, full: bool = False
) -> PerElement:
    xp = namespace(prediction, target)
    # Where the target is 0 the value needs no logarithm, and there may be none.
    known = xp.logical_and(prediction >= smallest(prediction), xp.isfinite(prediction))
    log_rate = xp.log(xp.where(xp.logical_or(target != 0, known), prediction, 1.0))
    if not full:
        return prediction - target * log_rate
    entropy = _relative_entropy(target, prediction, log_rate)
    return _with_factorial(prediction - target * log_rate, entropy, target)


def _with_factorial(value: Array, entropy: Array, target: Array) -> Array:
    """``value + log(target!)``, of which Loader's saddle point lets no part cancel."""
    value = value + _log_factorial(target)
    return graft(entropy + _surprise_at_best(target), value)


def _log_factorial(count: Array) -> Array:
    x = count + 1.0
    return stirling(1.0 / x) + ((x - 0.5) * namespace(x).log(x) - x)


def _poisson_nll(prediction: Array, target: Array) -> Array:
    xp = namespace(prediction, target)
    # Near 0, where prediction has digits that its exponential has not: 1 + z + (e^z - 1 - z).
    near = xp.logical_and(prediction >= -0.5, prediction <= 1.0)
    small, large = xp.where(near, prediction, 0.0), xp.where(near, 1.0, prediction)
    close = 1.0 + (1.0 - target) * small + exp_gap(small)
    return xp.where(near, close, xp.exp(large) - times(target, xp.clip(large, None, 1e4)))


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE.at(full=True), elicits("log mean")},
    aliases=(
        "half_poisson",
        "log_poisson",
        named("poisson", predictions="rates"),
    ),
    paper="doi:10.2307/2344614",
    forms={"rates": _poisson_nll_of_rates},
)
def poisson_nll(prediction: LogRate, target: Counts, *, full: bool = False) -> PerElement:
    r"""Surprise at a count under a Poisson distribution of the predicted log rate.

    .. math:: \ell(z, y) = e^z - y z

    Use it for counts of rare, independent events, whose variance equals their mean. The best
    prediction is the logarithm of the mean. ``full=True`` adds log(y!), exactly (PyTorch adds
    Stirling's approximation, for counts above 1). Log rates as in PyTorch; Keras' name ``poisson``
    takes rates, as does ``predictions="rates"``, with no epsilon in the logarithm.
    """
    if not full:
        return _poisson_nll(prediction, target)
    entropy = _relative_entropy(target, namespace(prediction).exp(prediction), prediction)
    return _with_factorial(_poisson_nll(prediction, target), entropy, target)


@loss(
    properties={SMOOTH, NONNEGATIVE, elicits("mean")},
    aliases=("nb_nll", "nb2_nll"),
    paper="Hilbe 2011, Negative Binomial Regression",
)
def negative_binomial_nll(
    prediction: PositiveReal, target: Counts, dispersion: PositiveReal
) -> PerElement:
    r"""Surprise at a count under a negative binomial distribution of predicted mean and dispersion.

    .. math:: \ell(\mu, y, \alpha) = \log \frac{\Gamma(r)\, y!}{\Gamma(y + r)}
              + r \log(1 + \alpha \mu) + y \log\left(1 + \frac1{\alpha \mu}\right),
              \quad r = \tfrac1\alpha

    Use it for counts whose variance exceeds their mean: it is mean + ``dispersion`` x mean squared,
    and as the dispersion falls to 0 this becomes ``poisson_nll`` in full. The best prediction is
    the mean. Some libraries take 1/dispersion, and call it the total count or r.
    """
    xp = namespace(prediction, target, dispersion)
    # Of 0, 1 and 2 the gammas are elementary; of more, their differences are not.
    few = xp.logical_and(target <= 2, target == xp.floor(target))
    value = xp.where(
        few,
        _surprise_at_few(prediction, target, dispersion),
        _surprise_at_many(prediction, xp.where(few, 3.0, target), dispersion),
    )
    sure = xp.logical_and(target == 0, dispersion > 0)
    sure = xp.logical_and(sure, xp.isfinite(prediction))
    limit = xp.where(sure, 0.0 * prediction, prediction + dispersion)
    return xp.where(xp.isfinite(prediction + dispersion), value, limit)


def _scale(alpha: Array) -> Array:
    """A dispersion above 1 as a constant to divide by, so that no product with it overflows."""
    return namespace(alpha).clip(stop_gradient(alpha), 1.0, None)


def _over_dispersion(alpha: Array, amount: Array) -> Array:
    """``1 + alpha amount``, over the dispersion's scale."""
    scale = _scale(alpha)
    return 1.0 / scale + (alpha / scale) * amount


def _surprise_at_few(mean: Array, count: Array, alpha: Array) -> Array:
    """log(1 + alpha mean)/alpha + count log(alpha + 1/mean), and log(2/(1 + alpha)) for 2."""
    xp = namespace(mean, alpha)
    product = alpha * mean
    near, huge = product < 1.0, product > 1e30
    small = xp.where(near, product, 0.0)
    log_growth = xp.log1p(xp.where(huge, 1.0, product))
    log_growth = xp.where(huge, xp.log(alpha) + xp.log(mean), log_growth)
    log_growth = graft(log_growth, xp.log(_over_dispersion(alpha, mean)))
    none = quotient(xp.where(near, 1.0, log_growth), alpha)
    none = xp.where(near, mean * (1.0 - log_gap_slope(small, 1.0 + small)), none)
    pair = xp.where(count == 2, math.log(2.0) - xp.log1p(alpha), 0.0)
    return none + (count * xp.log(alpha + reciprocal(mean)) + pair)


def _surprise_at_many(mean: Array, count: Array, alpha: Array) -> Array:
    """Loader's saddle point: entropies, and what Stirling's formula lacks."""
    xp = namespace(mean, count, alpha)
    gammas = _gammas(count, alpha)
    # Either two entropies of one sign, or the Poisson one less what little the dispersion takes.
    little = alpha * (mean + count) < 1.0
    entropy = xp.where(
        little, _nearly_poisson(mean, count, alpha, little), _two_entropies(mean, count, alpha)
    )
    return gammas + entropy


def _gammas(count: Array, alpha: Array) -> Array:
    """The log-gammas of the density by Stirling's formula, less what the entropies hold."""
    xp = namespace(count, alpha)
    gammas = stirling(alpha) + stirling(1.0 / count) - stirling(_beyond(count, alpha))
    log_spread = graft(xp.log1p(alpha * count), xp.log(_over_dispersion(alpha, count)))
    return gammas + (0.5 * (xp.log(count) + log_spread) + HALF_LOG_TWO_PI)


def _beyond(count: Array, alpha: Array) -> Array:
    """``1 / (1/alpha + count)``."""
    return quotient(alpha / _scale(alpha), _over_dispersion(alpha, count))


def _nearly_poisson(mean: Array, count: Array, alpha: Array, little: Array) -> Array:
    near = namespace(mean).where(little, mean, count)
    ratio = quotient(_over_dispersion(alpha, near), _over_dispersion(alpha, count))
    taken = log_gap_slope(_beyond(count, alpha) * (near - count), ratio)
    return _relative_entropy(count, near, namespace(mean).log(near)) - (near - count) * taken


def _two_entropies(mean: Array, count: Array, alpha: Array) -> Array:
    growth = _over_dispersion(alpha, mean)
    spread = _over_dispersion(alpha, count)
    excess = quotient((count - mean) * (1.0 / _scale(alpha)), growth)
    # The mean over its growth, which has a limit: written so that its derivative does not cancel.
    share = reciprocal((alpha + reciprocal(mean)) / _scale(alpha))
    outer = log_gap_slope(-excess / count, share * (spread / count))
    return excess * (log_gap_slope(alpha * excess, quotient(spread, growth)) - outer)


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE, ZERO_AT_TARGET, elicits("mean")},
    aliases=("mean_poisson_deviance",),
    paper="McCullagh and Nelder 1989, Generalized Linear Models",
)
def poisson_deviance(
    prediction: PositiveReal, target: NonnegativeReal, *, half: bool = False
) -> PerElement:
    r"""Twice the extra Poisson surprise over that of a perfect prediction.

    .. math:: \ell(\mu, y) = 2 \left( y \log \frac y\mu - y + \mu \right)

    Use it for counts, or amounts per exposure, when a perfect prediction should cost 0: it has the
    gradient of twice the ``poisson_nll`` of rates. The best prediction is the mean. It is
    ``tweedie_deviance`` at power 1.
    """
    xp = namespace(prediction, target)
    value = _relative_entropy(target, prediction, xp.log(prediction))
    value = xp.where(xp.isfinite(prediction), value, prediction)
    return value if half else 2.0 * value


@loss(
    properties={SMOOTH, NONNEGATIVE, ZERO_AT_TARGET, elicits("mean")},
    aliases=("mean_gamma_deviance", named("half_gamma", half=True)),
    paper="McCullagh and Nelder 1989, Generalized Linear Models",
)
def gamma_deviance(
    prediction: PositiveReal, target: PositiveReal, *, half: bool = False
) -> PerElement:
    r"""Twice the extra surprise under a Gamma distribution over that of a perfect prediction.

    .. math:: \ell(\mu, y) = 2 \left( \frac y\mu - 1 - \log \frac y\mu \right)

    Use it for positive amounts whose spread is a constant share of their mean (claims, durations):
    only the ratio of target to prediction counts. The best prediction is the mean. It is
    ``tweedie_deviance`` at power 2.
    """
    xp = namespace(prediction, target)
    log_ratio = log_of_ratio(target / prediction, xp.log(target) - xp.log(prediction))
    value = log_gap(quotient(target - prediction, prediction), log_ratio)
    value = xp.where(xp.isfinite(prediction), value, prediction)
    return value if half else 2.0 * value


@loss(
    properties={
        SMOOTH,
        NONNEGATIVE,
        ZERO_AT_TARGET,
        CONVEX.at(power=1.0),
        elicits("mean"),
    },
    aliases=(
        "mean_tweedie_deviance",
        "tweedie_nll",
        named("half_tweedie", half=True),
        named("inverse_gaussian_deviance", power=3.0),
    ),
    paper="Tweedie 1984; doi:10.1111/j.2517-6161.1987.tb01685.x",
)
def tweedie_deviance(
    prediction: PositiveReal,
    target: NonnegativeReal,
    *,
    power: TweediePower = 1.5,
    half: bool = False,
) -> PerElement:
    r"""Twice the extra surprise under a Tweedie distribution over that of a perfect prediction.

    .. math:: \ell(\mu, y) = 2 \left( \frac{y^{2-p}}{(1-p)(2-p)} - \frac{y \mu^{1-p}}{1-p}
              + \frac{\mu^{2-p}}{2-p} \right)

    Use it for amounts that are often exactly 0 and else positive (rain, insurance claims), with a
    ``power`` between 1 and 2: the variance grows as the mean to that power. The best prediction is
    the mean. Power 1 is the Poisson and 2 the Gamma deviance, both as limits, 3 the inverse
    Gaussian one; from 2 on the target must be positive. Predictions are means, as in scikit-learn's
    metric.
    """
    xp = namespace(prediction, target)
    size = stop_gradient(prediction)
    value = _tweedie_value(size, target, power) + _tweedie_rise(prediction, target, power)
    # Beyond power 2 an infinite prediction costs a finite amount.
    exponent = 2.0 - power
    limit = prediction
    if power > 2.0:
        amount = xp.where(target == 0, 1.0, target)
        limit = amount**exponent / (exponent * (exponent - 1.0))
    value = xp.where(xp.isfinite(prediction), value, xp.where(prediction > 0, limit, prediction))
    return value if half else 2.0 * value


def _tweedie_value(prediction: Array, target: Array, power: float) -> Array:
    """Half the deviance, in units of the prediction, with a target of 0 put aside."""
    xp = namespace(prediction, target)
    none = target == 0
    unit = _tweedie_unit(xp.where(none, 1.0, target), xp.where(none, 1.0, prediction), power)
    at_zero = 1.0 / (2.0 - power) if power < 2.0 else math.inf
    return prediction ** (2.0 - power) * xp.where(none, at_zero, unit)


def _tweedie_rise(prediction: Array, target: Array, power: float) -> Array:
    """0, differentiated as half the deviance by the prediction.

    What depends on the target alone is left out: it would cancel.
    """
    xp = namespace(prediction, target)
    size, most = stop_gradient(prediction), 0.25 * largest(prediction)
    step = xp.where(size > 0, prediction / size, 1.0)  # 1, and differentiable
    rise_by = xp.clip(size ** (2.0 - power), None, most)
    fall_by = xp.clip(target / size * rise_by, None, most)
    rise = rise_by * _power_from_one(xp.log(step), 2.0 - power)
    rise = rise - fall_by * _power_from_one(xp.log(step), 1.0 - power)
    root = stop_gradient(rise)
    return rise - xp.where(xp.isfinite(root), root, 0.0)


def _power_from_one(log_step: Array, exponent: float) -> Array:
    """``(step^exponent - 1) / exponent`` at a step of 1, up to its second derivative."""
    return log_step + (0.5 * exponent) * (log_step * log_step)


def _tweedie_unit(amount: Array, mean: Array, power: float) -> Array:
    """Half the deviance of the amount's ratio to the mean from 1.

    Near 1 it is made of gaps, which do not cancel.
    """
    xp = namespace(amount, mean)
    excess, ratio = quotient(amount - mean, mean), quotient(amount, mean)
    del amount, mean  # as large as the input
    near = xp.logical_and(ratio > 0.5, ratio < 2.0)
    excess, ratio = xp.where(near, excess, 0.0), xp.where(near, 1.0, ratio)
    return xp.where(near, _tweedie_close(excess, power), _tweedie_far(ratio, power))


# Each form divides by what is not small; the first by the excess over a ratio of 1.


def _tweedie_close(excess: Array, power: float) -> Array:
    log_ratio = namespace(excess).log1p(excess)
    exponent = 1.0 - power if power < 1.5 else 2.0 - power
    gap = exp_gap(exponent * log_ratio) / exponent if exponent else 0.0
    if power < 1.5:
        gap = gap + log_gap(-excess / (1.0 + excess), -log_ratio)
        return (1.0 + excess) * gap / (2.0 - power)
    return (log_gap(excess, log_ratio) - gap) / (power - 1.0)


def _tweedie_far(ratio: Array, power: float) -> Array:
    log_ratio = namespace(ratio).log(ratio)
    if power < 1.5:
        gap = power_gap(ratio, log_ratio, 1.0 - power)
        return (ratio * gap - (ratio - 1.0)) / (2.0 - power)
    return ((ratio - 1.0) - power_gap(ratio, log_ratio, 2.0 - power)) / (power - 1.0)
