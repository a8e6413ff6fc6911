"""Distances between numbers."""

# ruff: noqa: D103, F821  (the names of functions are bound by the toolchains)
# mypy: ignore-errors


def squared_error(prediction, target, half):
    residual = prediction - target
    twice = where(half > 0.0, residual, residual + residual)
    return where(half > 0.0, 0.5 * residual, residual) * residual, twice


def absolute_error(prediction, target):
    residual = prediction - target
    return absolute(residual), sign(residual)


def percentage_error(prediction, target, scale, floor):
    residual = prediction - target
    size = absolute(target)
    size = where(size < floor, floor, size)
    return scale * (absolute(residual) / size), scale * (sign(residual) / size)


def symmetric_percentage_error(prediction, target, scale):
    size = absolute(prediction)
    other = absolute(target)
    # Halves, so that their sum cannot overflow.
    whole = 0.5 * size + 0.5 * other
    whole = where(whole == 0.0, 1.0, whole)
    far = whole == infinity
    share = absolute(0.5 * prediction - 0.5 * target) / whole
    share = where(far, where(prediction == target, 0.0, 1.0), share)
    # Of different signs the distance is the whole, whatever the prediction is.
    alike = ((prediction > 0.0) & (target > 0.0)) | ((prediction < 0.0) & (target < 0.0))
    steep = where(alike & (whole < infinity), scale * (other / whole) / whole, 0.0)
    return 2.0 * scale * share, steep * sign(prediction - target)


def squared_logarithmic_error(prediction, target):
    above = prediction >= target
    larger = where(above, prediction, target)
    smaller = where(above, target, prediction)
    # The logarithm of a ratio above 1, seen from 1: no difference of logarithms cancels.
    gap = log1p((larger - smaller) / (1.0 + smaller))
    return gap * gap, where(above, 2.0, -2.0) * gap / (1.0 + prediction)


def log_cosh(prediction, target):
    residual = prediction - target
    distance = absolute(residual)
    # With u = exp(-|r|) - 1: cosh(r) - 1 = u^2 / (2 (1 + u)), which does not cancel near 0.
    u = expm1(-distance)
    tail = 1.0 + u
    far = distance > 1.0
    bend = log1p_unit(where(far, tail * tail, ratio(0.5 * u * u, tail)))
    # log 2 in two parts, the first exact.
    value = bend + where(far, (distance - 0.693145751953125) - 1.4286068203094172e-6, 0.0)
    steep = u * (2.0 + u)
    slope = ratio(-steep, 2.0 + steep)
    return value, where(residual < 0.0, -slope, slope)


def pinball(prediction, target, quantile):
    residual = prediction - target
    value = where(residual > 0.0, 1.0 - quantile, -quantile) * residual
    slope = where(residual > 0.0, 1.0 - quantile, where(residual < 0.0, -quantile, residual))
    return value, slope


def epsilon_insensitive(prediction, target, epsilon):
    residual = prediction - target
    distance = absolute(residual)
    inside = distance <= epsilon
    return where(inside, 0.0, distance - epsilon), where(inside, 0.0, sign(residual))


def huber(prediction, target, delta):
    residual = prediction - target
    distance = absolute(residual)
    near = where(distance > delta, delta, distance)
    return near * (distance - 0.5 * near), where(residual < 0.0, -near, near)


def smooth_l1(prediction, target, beta):
    residual = prediction - target
    distance = absolute(residual)
    near = where(distance > beta, beta, distance)
    steep = near / beta
    return steep * (distance - 0.5 * near), where(residual < 0.0, -steep, steep)


def charbonnier(prediction, target, epsilon):
    residual = prediction - target
    z = residual / epsilon
    size = absolute(z)
    far = size > 1e9
    root = where(far, size, sqrt(1.0 + z * z))
    return epsilon * root, where(far, sign(z), z / root)


def pseudo_huber(prediction, target, delta):
    residual = prediction - target
    z = residual / delta
    size = absolute(z)
    far = size > 1e17
    root = where(far, size, sqrt(1.0 + z * z))
    value = where(far, delta * absolute(residual), residual * (residual / (1.0 + root)))
    return value, where(far, delta * sign(residual), residual / root)


def tukey_biweight(prediction, target, scale):
    residual = prediction - target
    z = residual / scale
    size = absolute(z)
    square = z * z
    gap = (1.0 - size) * (1.0 + size)
    # 1 - (1 - s)^3 = s (3 - s (3 - s)): the first keeps its digits near 1, the second near 0.
    inside = square * (3.0 - square * (3.0 - square))
    share = where(square > 0.5, 1.0 - gap * gap * gap, inside)
    far = size > 1.0
    value = scale * scale / 6.0 * where(far, 1.0, share)
    return value, where(far, 0.0, residual * (gap * gap))


def cauchy(prediction, target, scale):
    z = (prediction - target) / (1.4142135623730951 * scale)
    size = absolute(z)
    far = size > 1e17
    value = log1p(where(far, size, z * z)) * where(far, 2.0, 1.0)
    slope = where(far, 2.0 / z, (z + z) / (1.0 + z * z))
    return value, slope / (1.4142135623730951 * scale)


def welsch(prediction, target, scale):
    z = (prediction - target) / scale
    fall = -0.5 * (z * z)
    return -expm1(fall), where(absolute(z) > 1e9, 0.0, z * exp(fall)) / scale


def barron(prediction, target, alpha, scale):
    z = (prediction - target) / scale
    size = absolute(z)
    if alpha == 2.0:
        value = 0.5 * (z * z)
        slope = z
    if alpha == 1.0:
        far = size > 1e17
        root = where(far, size, sqrt(1.0 + z * z))
        value = where(far, size, z * (z / (1.0 + root)))
        slope = where(far, sign(z), z / root)
    if alpha == -2.0:
        share = 1.0 / (1.0 + 0.25 * (z * z))
        value = where(size > 1e17, 2.0, 0.5 * (z * z) * share)
        slope = z * share * share
    if alpha < -1e20:
        fall = -0.5 * (z * z)
        value = -expm1(fall)
        slope = where(size > 1e9, 0.0, z * exp(fall))
    if alpha > 1e20:
        rise = 0.5 * (z * z)
        growth = exp(rise)
        value = -expm1(-rise) * growth
        slope = z * growth
    # The others in two forms, so that no power overflows before the result does.
    if (alpha * alpha != 4.0 and alpha != 1.0) and (alpha >= -1e20 and alpha <= 1e20):
        bend = where(alpha < 2.0, 2.0 - alpha, alpha - 2.0)
        bend = where(bend == 0.0, 1e-9, bend)  # single precision has no numbers so near 2
        square = z * (z / bend)
        far = square > 1e30
        root = sqrt(where(far, bend, 1.0))
        y = size / root
        base = where(far, y, 1.0 + square)
        rest = where(far, 0.0, square - (base - 1.0))
        none = alpha * alpha < 1e-36
        times = bend / where(none, 1.0, alpha)
        lever = where(far, root * sign(z), z)
    if (alpha < 1.0 and alpha != -2.0) and (alpha >= -1e20):
        raised = power_of(base, rest, where(far, alpha, 0.5 * alpha))
        whole = times * raised
        slope = lever / base * raised
    if (alpha > 1.0 and alpha != 2.0) and (alpha <= 1e20):
        raised = power_of(base, rest, where(far, alpha - 1.0, 0.5 * alpha - 1.0))
        whole = times * base * raised
        slope = lever * raised
    if (alpha * alpha != 4.0 and alpha != 1.0) and (alpha >= -1e20 and alpha <= 1e20):
        # From the logarithm where the power is near 1.
        log_base = log1p(where(far, y, square)) * where(far, 2.0, 1.0)
        growth = 0.5 * alpha * log_base
        near = absolute(growth) <= 1.0
        value = where(near, times * expm1(where(near, growth, 0.0)), whole - times)
        value = where(none, 0.5 * bend * log_base, value)
        value = where(size < 1e-9, 0.5 * (z * z), value)
        # Infinitely far out the powers are products of 0 and infinity.
        value = where(size == infinity, where(alpha < 0.0, -times, infinity), value)
        slope = where(size == infinity, sign(z) * where(alpha > 1.0, 1.0, 0.0), slope)
    return value, slope / scale
