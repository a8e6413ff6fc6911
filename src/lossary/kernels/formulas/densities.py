"""Surprise under whole distributions, and how far these lie apart."""

# ruff: noqa: D103, F821  (the names of functions are bound by the toolchains)
# mypy: ignore-errors


def gaussian_nll(prediction, target, variance, full):
    residual = prediction - target
    pull = residual / variance
    square = residual * pull
    value = 0.5 * (log_any(variance) + square) + where(full > 0.0, 0.9189385332046727, 0.0)
    return value, pull, 0.5 * ((1.0 - square) / variance)


def laplace_nll(prediction, target, scale):
    residual = prediction - target
    distance = absolute(residual) / scale
    return log_any(2.0 * scale) + distance, sign(residual) / scale, (1.0 - distance) / scale


def kl_divergence_of_log_probabilities(prediction, target):
    # One class's part. A weight of 0 wins over an infinite surprise.
    excess = log(where(target < smallest, 1.0, target)) - prediction
    absent = (target == 0.0) & (absolute(prediction) == infinity)
    return where(absent, 0.0, target * excess), -target


def gaussian_kl(mean, log_variance):
    near = absolute(log_variance) <= 1.0
    gap = exp_gap(where(near, log_variance, 0.0))
    growth = exp(log_variance)
    # An infinite variance costs more than its logarithm gives back.
    apart = (growth - 1.0) - where(growth == infinity, 0.0, log_variance)
    value = 0.5 * (mean * mean + where(near, gap, apart))
    return value, mean, 0.5 * where(near, log_variance + gap, growth - 1.0)
