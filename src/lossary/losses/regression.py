"""Distances between numbers: what to predict when the target is a quantity."""

from lossary.contract import (
    CONVEX,
    EVEN,
    NONNEGATIVE,
    SMOOTH,
    SYMMETRIC,
    ZERO_AT_TARGET,
    PerElement,
    Positive,
    Real,
    elicits,
    lipschitz,
    loss,
)
from lossary.xp import namespace


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE, ZERO_AT_TARGET, EVEN, SYMMETRIC, elicits("mean")},
    aliases=("mean_squared_error", "mse", "quadratic_loss", "l2_distance_squared"),
    paper="Legendre 1805; Gauss 1809",
)
def squared_error(prediction: Real, target: Real) -> PerElement:
    r"""The squared distance to the target.

    .. math:: \ell(r) = r^2

    Use it when errors are symmetric and none is far out: the best prediction is the mean, and one
    error of 10 weighs as much as a hundred errors of 1.
    """
    return namespace(prediction, target).square(prediction - target)


@loss(
    properties={
        CONVEX,
        SMOOTH,
        NONNEGATIVE,
        ZERO_AT_TARGET,
        EVEN,
        SYMMETRIC,
        lipschitz("delta"),
        elicits("huber location"),
    },
    paper="doi:10.1214/aoms/1177703732",
)
def huber(prediction: Real, target: Real, *, delta: Positive = 1.0) -> PerElement:
    r"""Quadratic near the target, linear beyond ``delta``.

    .. math:: \ell(r) = \begin{cases} \tfrac12 r^2 & |r| \le \delta \\
              \delta(|r| - \tfrac12\delta) & |r| > \delta \end{cases}

    Use it when a few targets are wrong or far out: beyond ``delta`` an error pulls with constant
    force.
    """
    xp = namespace(prediction, target)
    distance = xp.abs(prediction - target)
    near = xp.clip(distance, None, delta)
    # One expression for both branches: no where(), so the derivative is right at the joint too.
    return near * (distance - 0.5 * near)
