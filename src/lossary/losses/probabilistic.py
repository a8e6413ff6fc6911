"""Whole distributions: what to predict when the target's spread is wanted too."""

from __future__ import annotations

from lossary.contract import (
    CONVEX,
    EVEN,
    NONNEGATIVE,
    SMOOTH,
    SYMMETRIC,
    Array,
    LogVariance,
    PerElement,
    PositiveReal,
    Real,
    elicits,
    loss,
)
from lossary.numerics import absolute, quotient
from lossary.special import (
    HALF_LOG_TWO_PI,
    exp_gap,
    graft,
    log_gap_slope,
    log_one_plus_square,
    reciprocal,
    stirling,
)
from lossary.xp import namespace


@loss(
    properties={SMOOTH, EVEN, SYMMETRIC, elicits("mean")},
    aliases=("normal_nll", "heteroscedastic_gaussian", "normal_distribution_loss"),
    paper="doi:10.1109/ICNN.1994.374138",
)
def gaussian_nll(
    prediction: Real, target: Real, variance: PositiveReal, *, full: bool = False
) -> PerElement:
    r"""Surprise at the target under a normal distribution of predicted mean and variance.

    .. math:: \ell(\mu, y, v) = \tfrac12 \left( \log v + \frac{(y - \mu)^2}{v} \right)

    Use it when the noise differs from sample to sample and its size should be learnt along with the
    mean: the best predictions are mean and variance. As in PyTorch the third input is the variance
    (not its root or logarithm) and the constant log(2 pi)/2 enters with ``full=True``; PyTorch
    raises variances to at least 1e-6, here the variance must be positive.
    """
    xp = namespace(prediction, target, variance)
    residual = prediction - target
    value = 0.5 * (xp.log(variance) + residual * quotient(residual, variance))
    return value + HALF_LOG_TWO_PI if full else value


@loss(
    properties={EVEN, SYMMETRIC, elicits("median")},
    aliases=("double_exponential_nll",),
    paper="Laplace 1774",
)
def laplace_nll(prediction: Real, target: Real, scale: PositiveReal) -> PerElement:
    r"""Surprise at the target under a Laplace distribution of predicted centre and scale.

    .. math:: \ell(\mu, y, b) = \log(2 b) + \frac{|y - \mu|}{b}

    Use it when the noise differs from sample to sample and has outliers now and then: the best
    predictions are the median and the mean distance from it.
    """
    xp = namespace(prediction, target, scale)
    return xp.log(2.0 * scale) + quotient(absolute(prediction - target), scale)


@loss(
    properties={SMOOTH, EVEN, SYMMETRIC},
    aliases=("studentt_nll",),
    paper="doi:10.1080/01621459.1989.10478852",
)
def student_t_nll(
    prediction: Real, target: Real, scale: PositiveReal, degrees_of_freedom: PositiveReal
) -> PerElement:
    r"""Surprise at the target under Student's t distribution.

    .. math:: \ell(\mu, y, \sigma, \nu) = \log \Gamma(\tfrac\nu2) - \log \Gamma(\tfrac{\nu+1}2)
              + \tfrac12 \log(\pi \nu \sigma^2) + \tfrac{\nu+1}2 \log\left(1 + \frac{(y - \mu)^2}
              {\nu \sigma^2}\right)

    Use it when the noise has heavy tails and how heavy should be learnt: few degrees of freedom
    forgive outliers, many make it the Gaussian one. The best prediction is a robust centre.
    """
    xp = namespace(prediction, target, scale, degrees_of_freedom)
    nu, root = degrees_of_freedom, xp.sqrt(degrees_of_freedom)
    gammas = _gammas(nu)
    distance = absolute(prediction - target)
    z = quotient(prediction - target, scale)
    y = quotient(z, root)
    near = xp.abs(y) <= 1.0
    # Far out log(1 + y^2) is a sum of logarithms, of which the scale's cancels that of the density.
    outside = xp.where(near, 1.0, distance)
    rest = xp.log1p(xp.square(xp.where(near, 1.0, quotient(scale * root, outside))))
    far = xp.log(outside) - 0.5 * xp.log(nu)
    bend = log_one_plus_square(y)
    bend = xp.where(near, bend, graft(bend, 2.0 * (far - xp.log(scale)) + rest))
    body = xp.where(near, xp.log(scale) + 0.5 * bend, far + 0.5 * rest)
    # nu/2 log(1 + y^2): near 0, where nu may be huge, as a share of z^2/2.
    square = xp.square(xp.where(near, y, 0.0))
    share = 0.5 * xp.square(xp.where(near, z, 0.0)) * (1.0 - log_gap_slope(square, 1.0 + square))
    tail = xp.where(near, share, 0.5 * nu * xp.where(near, 0.0, bend))
    return body + HALF_LOG_TWO_PI + (gammas + tail)


def _gammas(nu: Array) -> Array:
    """The log-gammas less log(nu/2)/2, by Stirling's formula, whose large parts cancel."""
    step = reciprocal(nu)
    gammas = stirling(2.0 * step) - stirling(2.0 * reciprocal(nu + 1.0))
    return gammas + 0.5 * log_gap_slope(step, 1.0 + step)


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE},
    aliases=("gaussian_kl_divergence", "vae_kl", "kl_standard_normal"),
    paper="arxiv:1312.6114",
)
def gaussian_kl(mean: Real, log_variance: LogVariance) -> PerElement:
    r"""The divergence of a normal distribution from the standard normal one.

    .. math:: D(\mu, \lambda) = \tfrac12 \left( \mu^2 + e^\lambda - 1 - \lambda \right),
              \quad \lambda = \log \sigma^2

    Use it as the price of information in a variational autoencoder, beside the reconstruction's
    cost: it is 0 where mean and log-variance are 0. One value per latent dimension; add them up
    over the dimensions of a sample.
    """
    return 0.5 * (namespace(mean, log_variance).square(mean) + exp_gap(log_variance))
