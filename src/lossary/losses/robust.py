"""Distances that forgive: what to predict when some targets are wrong or far out."""

from __future__ import annotations

import math

from lossary.contract import (
    CONVEX,
    EVEN,
    NONNEGATIVE,
    SMOOTH,
    SYMMETRIC,
    ZERO_AT_TARGET,
    Number,
    PerElement,
    Positive,
    Real,
    bounded,
    elicits,
    lipschitz,
    loss,
    named,
)
from lossary.numerics import largest, quotient
from lossary.special import (
    exp_minus_one,
    hypotenuse,
    log_one_plus_square,
    power_gap,
)
from lossary.xp import namespace

DISTANCE = {SMOOTH, NONNEGATIVE, ZERO_AT_TARGET, EVEN, SYMMETRIC}


@loss(
    properties={*DISTANCE, CONVEX, lipschitz("delta"), elicits("huber location")},
    aliases=("bounded_gradient_l2",),
    paper="doi:10.1214/aoms/1177703732",
)
def huber(prediction: Real, target: Real, *, delta: Positive = 1.0) -> PerElement:
    r"""Quadratic near the target, linear beyond ``delta``.

    .. math:: \ell(r) = \begin{cases} \tfrac12 r^2 & |r| \le \delta \\
              \delta(|r| - \tfrac12\delta) & |r| > \delta \end{cases}

    Use it when a few targets are wrong or far out: beyond ``delta`` an error pulls with constant
    force. The best prediction is the mean after targets farther than ``delta`` from it are moved in
    to that distance. ``smooth_l1`` is this divided by ``delta``.
    """
    xp = namespace(prediction, target)
    residual = prediction - target
    near = xp.clip(residual, -delta, delta)
    # One expression for both branches: the first two derivatives are right at 0 and at the joint.
    return near * (residual - 0.5 * near)


@loss(
    properties={*DISTANCE, CONVEX, lipschitz(1.0), elicits("huber location")},
    aliases=("huber_over_delta",),
    paper="arxiv:1504.08083",
)
def smooth_l1(prediction: Real, target: Real, *, beta: Positive = 1.0) -> PerElement:
    r"""The distance to the target, rounded off within ``beta``.

    .. math:: \ell(r) = \begin{cases} \tfrac1{2\beta} r^2 & |r| \le \beta \\
              |r| - \tfrac12\beta & |r| > \beta \end{cases}

    Use it where you would use the absolute error but want small errors to pull less (box corners in
    detection): far out the slope is 1 whatever ``beta`` is. It is ``huber`` divided by ``beta``,
    with the same best prediction.
    """
    xp = namespace(prediction, target)
    residual = prediction - target
    near = xp.clip(residual, -beta, beta)
    return (near / beta) * (residual - 0.5 * near)


@loss(
    properties={SMOOTH, NONNEGATIVE, EVEN, SYMMETRIC, CONVEX, lipschitz(1.0)},
    aliases=("smooth_sqrt",),
    paper="doi:10.1109/ICIP.1994.413553",
)
def charbonnier(prediction: Real, target: Real, *, epsilon: Positive = 1e-3) -> PerElement:
    r"""The distance to the target, never below ``epsilon``.

    .. math:: \ell(r) = \sqrt{r^2 + \varepsilon^2}

    Use it in image restoration in place of the absolute error, whose derivative jumps at the
    target: with a small ``epsilon`` the best prediction is nearly the median. At the target it is
    ``epsilon``, not 0; ``pseudo_huber`` with ``delta=epsilon`` is ``epsilon`` times the rest.
    """
    return hypotenuse(prediction - target, epsilon)


@loss(
    properties={*DISTANCE, CONVEX, lipschitz("delta")},
    aliases=("soft_l1",),
    paper="doi:10.1109/83.551699",
)
def pseudo_huber(prediction: Real, target: Real, *, delta: Positive = 1.0) -> PerElement:
    r"""Quadratic near the target, linear far out, with every derivative continuous.

    .. math:: \ell(r) = \delta^2 \left( \sqrt{1 + (r/\delta)^2} - 1 \right)

    Use it for what Huber's loss is used for when the second derivative must not jump: half the
    square near the target, slope ``delta`` far out. The best prediction lies between mean and
    median. It is ``barron`` at ``alpha=1`` times ``delta`` squared.
    """
    residual, most = prediction - target, largest(prediction)
    finite = namespace(prediction, target).clip(residual, -most, most)
    # sqrt(1 + z^2) - 1 = z^2 / (1 + sqrt(1 + z^2)), which does not cancel near 0.
    return residual * (delta * quotient(finite, delta + hypotenuse(finite, delta)))


@loss(
    properties={
        *DISTANCE,
        CONVEX.at(alpha=1.0),
        CONVEX.at(alpha=2.0),
        CONVEX.at(alpha=math.inf),
        lipschitz("1 / scale").at(alpha=1.0),
        bounded(1.0).at(alpha=-math.inf),
        bounded(2.0).at(alpha=-2.0),
        elicits("mean").at(alpha=2.0),
    },
    aliases=(
        "general_robust",
        "general_adaptive_robust",
        "lossfun",
        named("geman_mcclure", alpha=-2.0),
    ),
    paper="arxiv:1701.03077",
)
def barron(
    prediction: Real, target: Real, *, alpha: Number = 1.0, scale: Positive = 1.0
) -> PerElement:
    r"""Barron's family of robust losses, from the square to one that ignores outliers.

    .. math:: \ell(z) = \frac{|\alpha - 2|}{\alpha} \left( \left( \frac{z^2}{|\alpha - 2|} + 1
              \right)^{\alpha/2} - 1 \right), \quad z = r / c

    Use it to choose how much outliers count by one number, ``alpha``: 2 is half the square, 1
    pseudo-Huber, 0 Cauchy, -2 Geman-McClure, minus infinity Welsch; the removable singularities
    take their limits. All are half the square within ``scale`` (c) of the target. The best
    prediction moves from the mean towards the mode as ``alpha`` falls.
    """
    xp = namespace(prediction, target)
    z = (prediction - target) / scale
    bend = abs(alpha - 2.0)
    if bend == 0.0:
        return 0.5 * xp.square(z)
    if bend > 1e20:
        return math.copysign(1.0, alpha) * exp_minus_one(math.copysign(0.5, alpha) * xp.square(z))
    y = z / math.sqrt(bend)
    base, log_base = hypotenuse(y), 0.5 * log_one_plus_square(y)
    if bend > 0.5:
        return bend * power_gap(base, log_base, alpha)
    # Near alpha = 2 the power is huge and its factor tiny: a square is taken out of it.
    far = xp.abs(y) > 1e9
    near = xp.where(far, 0.0, z)
    inside = near * (near * xp.where(far, 1.0, base) ** (alpha - 2.0))
    inside = inside + bend * exp_minus_one((alpha - 2.0) * log_base)
    beyond = bend ** (1.0 - 0.5 * alpha) * xp.where(far, xp.abs(z), 1.0) ** alpha
    return xp.where(far, beyond, inside) / alpha


@loss(
    properties={
        *DISTANCE,
        bounded("scale * scale / 6"),
        lipschitz("0.28621670111997307 * scale"),  # 16 / (25 sqrt 5)
    },
    aliases=("tukey", "bisquare", "biweight"),
    paper="doi:10.1080/00401706.1974.10489171",
)
def tukey_biweight(prediction: Real, target: Real, *, scale: Positive = 4.685) -> PerElement:
    r"""Half the square near the target, constant beyond ``scale``.

    .. math:: \ell(r) = \begin{cases} \tfrac{c^2}6 \left( 1 - \left( 1 - (r/c)^2 \right)^3 \right)
              & |r| \le c \\ \tfrac{c^2}6 & |r| > c \end{cases}

    Use it when targets beyond ``scale`` (c) are certainly wrong: they have no gradient at all. The
    default keeps 95 % of the mean's efficiency for normal errors of standard deviation 1. The best
    prediction is the centre of the densest region within ``scale``; start from a robust one.
    """
    xp = namespace(prediction, target)
    z = xp.clip((prediction - target) / scale, -1.0, 1.0)
    square, gap = xp.square(z), (1.0 - z) * (1.0 + z)
    # 1 - (1 - s)^3 = s (3 - s (3 - s)): the first keeps the derivative near 1, the second near 0.
    inside = square * (3.0 - square * (3.0 - square))
    return scale * scale / 6.0 * xp.where(square > 0.5, 1.0 - gap * xp.square(gap), inside)


@loss(
    properties={*DISTANCE, lipschitz("0.7071067811865476 / scale")},
    aliases=("lorentzian", "log_squared_loss"),
    paper="doi:10.1006/cviu.1996.0006",
)
def cauchy(prediction: Real, target: Real, *, scale: Positive = 1.0) -> PerElement:
    r"""The logarithm of one plus half the squared error.

    .. math:: \ell(r) = \log \left( 1 + \tfrac12 (r/c)^2 \right)

    Use it when errors have heavy tails: an error far beyond ``scale`` (c) pulls ever less, but
    never not at all. Half the square within ``scale``. The best prediction lies near the mode.
    """
    return log_one_plus_square((prediction - target) / (math.sqrt(2.0) * scale))


@loss(
    properties={*DISTANCE, bounded(1.0), lipschitz("0.6065306597126335 / scale")},  # exp(-1/2)
    aliases=("leclerc", "correntropy", "gaussian_kernel_loss"),
    paper="doi:10.1080/03610917808812083",
)
def welsch(prediction: Real, target: Real, *, scale: Positive = 1.0) -> PerElement:
    r"""One less a Gaussian bump around the target.

    .. math:: \ell(r) = 1 - \exp \left( -\tfrac12 (r/c)^2 \right)

    Use it when outliers are many and far: beyond some three times ``scale`` (c) an error has
    practically no gradient, so start near. The best prediction is the mode as seen through a
    Gaussian window of width ``scale``.
    """
    xp = namespace(prediction, target)
    return -exp_minus_one(-0.5 * xp.square((prediction - target) / scale))
