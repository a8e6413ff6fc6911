"""Distances between numbers: what to predict when the target is a quantity."""

from __future__ import annotations

from lossary.contract import (
    CONVEX,
    EVEN,
    NONNEGATIVE,
    SCALE_FREE,
    SMOOTH,
    SYMMETRIC,
    ZERO_AT_TARGET,
    Array,
    Embeddings,
    Nonnegative,
    NonnegativeReal,
    OpenFraction,
    PerElement,
    PerSample,
    Positive,
    Real,
    bounded,
    elicits,
    lipschitz,
    loss,
    named,
)
from lossary.numerics import absolute, largest, quotient, unit_rows
from lossary.special import exp_minus_one
from lossary.xp import namespace


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE, ZERO_AT_TARGET, EVEN, SYMMETRIC, elicits("mean")},
    aliases=(
        "mean_squared_error",
        "mse",
        "quadratic_loss",
        named("half_squared_error", half=True),
        named("l2_loss", half=True),
    ),
    paper="Legendre 1805; Gauss 1809",
)
def squared_error(prediction: Real, target: Real, *, half: bool = False) -> PerElement:
    r"""The squared distance to the target.

    .. math:: \ell(r) = r^2

    Use it when errors are symmetric and none is far out: the best prediction is the mean, and one
    error of 10 weighs as much as a hundred errors of 1. ``half`` halves it, so that the derivative
    is the error itself (Optax's ``l2_loss``; Keras, PyTorch and Optax's ``squared_error`` do not).
    """
    square = namespace(prediction, target).square(prediction - target)
    return 0.5 * square if half else square


@loss(
    properties={
        CONVEX,
        NONNEGATIVE,
        ZERO_AT_TARGET,
        EVEN,
        SYMMETRIC,
        lipschitz(1.0),
        elicits("median"),
    },
    aliases=("mean_absolute_error", "mae", "l1_loss", "least_absolute_deviation"),
    paper="Laplace 1774",
)
def absolute_error(prediction: Real, target: Real) -> PerElement:
    r"""The distance to the target.

    .. math:: \ell(r) = |r|

    Use it when every unit of error costs the same: the best prediction is the median, and a target
    that is far out pulls no harder than one nearby. At the target the derivative is 0.
    """
    return absolute(prediction - target)


@loss(
    properties={
        CONVEX,
        NONNEGATIVE,
        ZERO_AT_TARGET,
        EVEN,
        elicits("median weighted by 1/|target|"),
    },
    aliases=("mean_absolute_percentage_error", "mape", "absolute_percentage_error"),
    paper="doi:10.1016/j.neucom.2015.12.114",
)
def percentage_error(
    prediction: Real, target: Real, *, scale: Positive = 100.0, floor: Positive = 1e-7
) -> PerElement:
    r"""The distance to the target as a percentage of the target.

    .. math:: \ell(p, y) = 100 \, \frac{|p - y|}{\max(|y|, \text{floor})}

    Use it when an error of 1 matters on a target of 10 and not on one of 1000, and no target is
    near 0. The best prediction is a median in which a target counts by 1/abs(target), so it lies
    low. A percentage as in Keras; ``scale=1`` gives the fraction, as in scikit-learn. Targets
    closer to 0 than ``floor`` count as that far from 0.
    """
    xp = namespace(prediction, target)
    return scale * (absolute(prediction - target) / xp.clip(xp.abs(target), floor, None))


@loss(
    properties={NONNEGATIVE, ZERO_AT_TARGET, SYMMETRIC, bounded("2 * scale")},
    aliases=("symmetric_mean_absolute_percentage_error", "symmetric_mape", "smape"),
    paper="doi:10.1016/0169-2070(93)90079-3",
)
def symmetric_percentage_error(
    prediction: Real, target: Real, *, scale: Positive = 100.0
) -> PerElement:
    r"""The distance to the target as a percentage of the mean of their sizes.

    .. math:: \ell(p, y) = 100 \, \frac{2 |p - y|}{|p| + |y|}

    Use it to judge forecasts over many scales with targets that may be 0; it runs from 0 to 200
    (``scale=1``: to 2; ``scale=0.5``: to 1). To train with it is hard: where the signs differ it is
    flat, and it forgives too high a prediction more than too low a one. 0 against 0 costs 0.
    """
    xp = namespace(prediction, target)
    most = largest(prediction)
    # Halves, so that their sum cannot overflow; infinity counts as the largest number.
    one, other = 0.5 * xp.clip(prediction, -most, most), 0.5 * xp.clip(target, -most, most)
    whole = absolute(one) + absolute(other)
    whole = xp.where(whole == 0, 1.0, whole)
    # Far apart, distance/whole is 1 less twice the smaller share: its derivative does not cancel.
    far = 1.0 - 2.0 * quotient(_shared(one, other), whole)
    distance = absolute(one - other)
    return 2.0 * scale * xp.where(2.0 * distance > whole, far, quotient(distance, whole))


def _shared(one: Array, other: Array) -> Array:
    """The smaller size of two numbers of one sign; 0 of different signs."""
    xp = namespace(one, other)
    size, other_size = absolute(one), absolute(other)
    smaller = xp.where(size < other_size, size, other_size)
    return xp.where((one > 0) == (other > 0), smaller, 0.0)


@loss(
    properties={
        SMOOTH,
        NONNEGATIVE,
        ZERO_AT_TARGET,
        SYMMETRIC,
        elicits("geometric mean of 1 + target, less 1"),
    },
    aliases=(
        "mean_squared_logarithmic_error",
        "msle",
        "squared_log_error",
        "squared_logarithmic",
    ),
    paper="folklore",
)
def squared_logarithmic_error(prediction: NonnegativeReal, target: NonnegativeReal) -> PerElement:
    r"""The squared distance between the logarithms of 1 + prediction and 1 + target.

    .. math:: \ell(p, y) = \left( \log(1 + p) - \log(1 + y) \right)^2

    Use it when targets are not negative and run over orders of magnitude, and being off by a factor
    costs the same everywhere. The best prediction is the geometric mean (of 1 + target, less 1).
    """
    xp = namespace(prediction, target)
    above = prediction >= target
    # The logarithm of a ratio above 1, seen from 1: no difference of logarithms cancels.
    larger, smaller = xp.where(above, prediction, target), xp.where(above, target, prediction)
    return xp.square(xp.log1p(quotient(larger - smaller, 1.0 + smaller)))


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE, ZERO_AT_TARGET, EVEN, SYMMETRIC, lipschitz(1.0)},
    aliases=("logcosh", "log_hyperbolic_cosine"),
    paper="https://openreview.net/forum?id=rkglvsC9Ym",
)
def log_cosh(prediction: Real, target: Real) -> PerElement:
    r"""The logarithm of the hyperbolic cosine of the error.

    .. math:: \ell(r) = \log \cosh r

    Use it for what Huber's loss is used for when the second derivative should be smooth too and the
    scale of good errors is about 1: half the square near the target, the distance less log 2 far
    out. The best prediction lies between mean and median.
    """
    xp = namespace(prediction, target)
    residual = prediction - target
    distance = xp.abs(residual)
    far = distance > 1.0
    # With u = exp(r) - 1, cosh(r) - 1 = u^2 / (2 (1 + u)), which does not cancel near 0.
    u = exp_minus_one(xp.where(far, 0.0, residual))
    near = xp.log1p(0.5 * xp.square(u) / (1.0 + u))
    outside = xp.where(far, distance, 1.0)
    return xp.where(far, (outside - 0.6931471805599453) + xp.log1p(xp.exp(-2.0 * outside)), near)


@loss(
    properties={
        SMOOTH,
        SCALE_FREE,
        SYMMETRIC,
        bounded(1.0).at(distance=False),
        bounded(2.0).at(distance=True),
        NONNEGATIVE.at(distance=True),
    },
    aliases=(
        "cosine_proximity",
        "negative_cosine_similarity",
        named("cosine_distance", distance=True),
    ),
    paper="folklore",
)
def cosine_similarity(
    prediction: Embeddings, target: Embeddings, *, distance: bool = False, axis: int = -1
) -> PerSample:
    r"""The negative cosine of the angle between prediction and target.

    .. math:: \ell(p, y) = -\frac{p \cdot y}{\lVert p \rVert \, \lVert y \rVert}

    Use it when only the direction of a vector matters, not its length: the best prediction points
    along the mean of the targets' unit vectors. Least, -1, where the directions agree, as in
    Keras; ``distance=True`` gives 1 - cosine (Optax's ``cosine_distance``), accurate for small
    angles too. A zero vector has no direction: its cosine is 0.
    """
    xp = namespace(prediction, target)
    one, other = unit_rows(prediction, axis=axis), unit_rows(target, axis=axis)
    if not distance:
        return -xp.sum(one * other, axis=axis)
    directed = xp.logical_and(xp.any(one != 0, axis=axis), xp.any(other != 0, axis=axis))
    return xp.where(directed, 0.5 * xp.sum(xp.square(one - other), axis=axis), 1.0)


@loss(
    properties={
        CONVEX,
        NONNEGATIVE,
        ZERO_AT_TARGET,
        EVEN.at(quantile=0.5),
        SYMMETRIC.at(quantile=0.5),
        lipschitz("max(quantile, 1 - quantile)"),
        elicits("quantile"),
    },
    aliases=("quantile_loss", "tilted_loss", "check_loss", "asymmetric_laplace_nll"),
    paper="doi:10.2307/1913643",
)
def pinball(prediction: Real, target: Real, *, quantile: OpenFraction = 0.5) -> PerElement:
    r"""The distance to the target, weighed by its side.

    .. math:: \ell(p, y) = \begin{cases} \tau \, (y - p) & p \le y \\
              (1 - \tau) (p - y) & p > y \end{cases}

    Use it to predict a quantile: with ``quantile=0.9`` the best prediction is the number that nine
    targets of ten do not exceed. Two of them give an interval. At the target the derivative is 0.
    """
    xp = namespace(prediction, target)
    residual = prediction - target
    distance = absolute(residual)
    return xp.where(residual > 0, (1.0 - quantile) * distance, quantile * distance)


@loss(
    properties={CONVEX, NONNEGATIVE, ZERO_AT_TARGET, EVEN, SYMMETRIC, lipschitz(1.0)},
    aliases=("svr_loss", "l1_epsilon_insensitive"),
    paper="Vapnik 1995, The Nature of Statistical Learning Theory",
)
def epsilon_insensitive(
    prediction: Real, target: Real, *, epsilon: Nonnegative = 0.1
) -> PerElement:
    r"""The distance by which the error exceeds ``epsilon``.

    .. math:: \ell(r) = \max(0, |r| - \varepsilon)

    Use it when errors up to ``epsilon`` do not matter: such samples have no gradient, and the rest
    pull with equal force. The best prediction leaves as many targets above its band of width
    2 ``epsilon`` as below it.
    """
    xp = namespace(prediction, target)
    distance = absolute(prediction - target)
    return xp.where(distance <= epsilon, 0.0, distance - epsilon)
