"""Value and slope of every pointwise loss that has a fused kernel: each loss once, as mathematics.

A formula takes the numbers (prediction, target) and the loss's parameters under their own names; it
returns (value, derivative by the prediction). The toolchains compile these functions with their
own ``where``, ``exp``, ``expm1`` (of numbers <= 0), ``log1p`` (of numbers >= 0), ``log1p_unit`` (of
numbers in [0, 1]), ``sqrt`` and ``absolute``, in single and double precision. Forms are chosen so that no
difference cancels, both tails are right, NaN goes through and an infinity comes out as in the limit.
"""

# ruff: noqa: F821  (the names of functions are bound by the toolchains)
# mypy: ignore-errors


def squared_error(prediction, target):
    residual = prediction - target
    return residual * residual, 2.0 * residual


def absolute_error(prediction, target):
    residual = prediction - target
    return absolute(residual), sign(residual)


def huber(prediction, target, delta):
    residual = prediction - target
    distance = absolute(residual)
    near = where(distance > delta, delta, distance)
    slope = where(distance > delta, delta * sign(residual), residual)
    return near * (distance - 0.5 * near), slope


def smooth_l1(prediction, target, beta):
    residual = prediction - target
    distance = absolute(residual)
    value = where(distance < beta, 0.5 * distance * (distance / beta), distance - 0.5 * beta)
    return value, where(distance < beta, residual / beta, sign(residual))


def log_cosh(prediction, target):
    residual = prediction - target
    distance = absolute(residual)
    # With u = exp(-|r|) - 1: cosh(r) - 1 = u^2 / (2 (1 + u)), which does not cancel near 0.
    u = expm1(-distance)
    tail = 1.0 + u
    far = distance > 1.0
    bend = log1p_unit(where(far, tail * tail, 0.5 * u * u / where(far, 1.0, tail)))
    value = bend + where(far, (distance - 0.693145751953125) - 1.4286068203094172e-6, 0.0)
    steep = u * (2.0 + u)
    return value, sign(residual) * (-steep / (2.0 + steep))


def pinball(prediction, target, quantile):
    residual = prediction - target
    above = (1.0 - quantile) * residual
    value = where(residual > 0.0, above, -quantile * residual)
    slope = where(residual > 0.0, 1.0 - quantile, where(residual < 0.0, -quantile, residual))
    return value, slope


def binary_cross_entropy(prediction, target, label_smoothing, pos_weight):
    yes = target * (1.0 - label_smoothing) + 0.5 * label_smoothing
    no = 1.0 - yes
    yes = yes * pos_weight
    positive = prediction > 0.0
    small = exp(-absolute(prediction))
    large_share = 1.0 / (1.0 + small)
    small_share = small * large_share
    bend = log1p_unit(small)
    # A weight of exactly zero wins over an infinite logit.
    upward = where(no == 0.0, 0.0, no * where(positive, prediction, 0.0))
    downward = where(yes == 0.0, 0.0, yes * where(positive, 0.0, -prediction))
    value = (yes + no) * bend + (upward + downward)
    slope = no * where(positive, large_share, small_share)
    return value, slope - yes * where(positive, small_share, large_share)
