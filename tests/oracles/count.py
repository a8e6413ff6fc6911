"""Textbook formulas of surprise at counts and of deviances, in mpmath."""

from mpmath import exp, extradps, inf, log, log1p, loggamma, mpf


def _times_log(weight, x):
    return weight * log(x) if weight else mpf(0)


def poisson_nll(prediction, target, *, full):
    value = exp(prediction) - (target * prediction if target else 0)
    return value + loggamma(target + 1) if full else value


@extradps(60)  # the log-gammas are huge and nearly cancel
def negative_binomial_nll(prediction, target, dispersion):
    r = 1 / mpf(dispersion)
    value = loggamma(r) + loggamma(mpf(target) + 1) - loggamma(target + r)
    value += r * log1p(dispersion * prediction)
    return value + (target * log1p(1 / (dispersion * prediction)) if target else 0)


def poisson_deviance(prediction, target, *, half):
    value = _times_log(target, target / prediction) - target + prediction
    return value if half else 2 * value


def gamma_deviance(prediction, target, *, half):
    ratio = target / prediction
    value = ratio - 1 - log(ratio) if ratio else inf
    return value if half else 2 * value


def tweedie_deviance(prediction, target, *, power, half):
    p = mpf(power)
    if p == 1:
        value = poisson_deviance(prediction, target, half=True)
    elif p == 2:
        value = gamma_deviance(prediction, target, half=True)
    elif target == 0 and p > 2:
        value = inf
    else:
        value = (
            target ** (2 - p) / ((1 - p) * (2 - p))
            - target * prediction ** (1 - p) / (1 - p)
            + prediction ** (2 - p) / (2 - p)
        )
    return value if half else 2 * value


# The limits of the Tweedie family, and either side of them.
PARAMETERS = {
    "tweedie_deviance": [
        {"power": power} for power in (1.5, 1.0, 2.0, 3.0, 1 + 1e-9, 1.49, 1.9, 2 - 1e-9, 2.5)
    ]
}
