"""Textbook formulas of densities' surprise, in mpmath."""

from mpmath import exp, extradps, log, log1p, loggamma, mpf, pi


def gaussian_nll(prediction, target, variance, *, full):
    value = (log(variance) + (target - prediction) ** 2 / variance) / 2
    return value + log(2 * pi) / 2 if full else value


def laplace_nll(prediction, target, scale):
    return log(2 * scale) + abs(target - prediction) / scale


@extradps(60)  # the log-gammas are huge and nearly cancel
def student_t_nll(prediction, target, scale, degrees_of_freedom):
    nu = mpf(degrees_of_freedom)
    return (
        loggamma(nu / 2)
        - loggamma((nu + 1) / 2)
        + log(pi * nu * scale**2) / 2
        + (nu + 1) / 2 * log1p(((target - prediction) / scale) ** 2 / nu)
    )


def gaussian_kl(mean, log_variance):
    return (mean**2 + exp(log_variance) - 1 - log_variance) / 2
