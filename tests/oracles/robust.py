"""Textbook formulas of robust distances, in mpmath."""

from mpmath import exp, expm1, inf, log1p, mpf, sqrt


def huber(prediction, target, *, delta):
    distance = abs(prediction - target)
    if distance <= delta:
        return distance**2 / 2
    return delta * (distance - mpf(delta) / 2)


def smooth_l1(prediction, target, *, beta):
    distance = abs(prediction - target)
    return distance**2 / (2 * beta) if distance <= beta else distance - mpf(beta) / 2


def charbonnier(prediction, target, *, epsilon):
    return sqrt((prediction - target) ** 2 + mpf(epsilon) ** 2)


def pseudo_huber(prediction, target, *, delta):
    delta = mpf(delta)
    return delta**2 * (sqrt(1 + ((prediction - target) / delta) ** 2) - 1)


def barron(prediction, target, *, alpha, scale):
    """Equation 8 of Barron 2019; plus infinity as the limit of equation 1."""
    square = ((prediction - target) / scale) ** 2
    if alpha == 2:
        return square / 2
    if alpha == 0:
        return log1p(square / 2)
    if alpha == -inf:
        return 1 - exp(-square / 2)
    if alpha == inf:
        return expm1(square / 2)
    bend = abs(mpf(alpha) - 2)
    return bend / alpha * expm1(mpf(alpha) / 2 * log1p(square / bend))


def tukey_biweight(prediction, target, *, scale):
    share = min(mpf(1), ((prediction - target) / scale) ** 2)
    return mpf(scale) ** 2 / 6 * (1 - (1 - share) ** 3)


def cauchy(prediction, target, *, scale):
    return log1p(((prediction - target) / scale) ** 2 / 2)


def welsch(prediction, target, *, scale):
    return -expm1(-(((prediction - target) / scale) ** 2) / 2)


# The limits of Barron's family, and where its formula divides small numbers by small ones.
_LIMITS = (1.0, 0.0, 2.0, -2.0, -float(inf), float(inf))
_NEARBY = (1e-9, 0.5, 1.6, 1.999, 2 - 1e-9, 2.5, -1e6)
PARAMETERS = {"barron": [{"alpha": alpha} for alpha in (*_LIMITS, *_NEARBY)]}
