"""Surprise at counts, and deviances."""

# ruff: noqa: D103, F821  (the names of functions are bound by the toolchains)
# mypy: ignore-errors


def poisson_nll(prediction, target, full):
    rate = exp(prediction)
    if full == 0.0:
        # Far up the rate alone is infinite, and infinity less infinity would be no number.
        plain = (target == 0.0) | (prediction > 1000.0)
        value = rate - where(plain, 0.0, target * prediction)
    else:
        plain = (target == 0.0) | (rate == infinity)
        rise = rate / target
        # Far down the rate has lost its digits, far from the target nothing cancels.
        apart = (prediction < -80.0) | (rise < smallest) | (rise == infinity)
        log_rise = where(apart, prediction - log_any(target), log(rise))
        value = relative_entropy(target, rate, log_rise) + surprise_at_best(target)
        value = where(plain, rate - target, value)
    return value, rate - target


def poisson_nll_of_rates(prediction, target, full):
    # Far up the rate alone is infinite.
    plain = (target == 0.0) | (prediction == infinity)
    if full == 0.0:
        value = prediction - where(plain, 0.0, target * log_any(prediction))
    else:
        value = relative_entropy(target, prediction, log_ratio(prediction, target))
        value = value + surprise_at_best(target)
        value = where(plain, prediction - target, value)
    return value, where(plain, 1.0, (prediction - target) / prediction)


def poisson_deviance(prediction, target, half):
    plain = (target == 0.0) | (prediction == infinity)
    value = relative_entropy(target, prediction, log_ratio(prediction, target))
    value = where(plain, prediction, value)
    slope = where(plain, 1.0, (prediction - target) / prediction)
    times = where(half > 0.0, 1.0, 2.0)
    return times * value, times * slope


def gamma_deviance(prediction, target, half):
    excess = (target - prediction) / prediction
    near = (excess >= -0.5) & (excess <= 1.0)
    gap = log1p_gap(where(near, excess, 0.0))
    apart = where(excess == infinity, excess, excess - log_ratio(target, prediction))
    far = prediction == infinity
    value = where(far, prediction, where(near, gap, apart))
    slope = where(far, 1.0, -excess / prediction)
    times = where(half > 0.0, 1.0, 2.0)
    return times * value, times * slope


def tweedie_deviance(prediction, target, power, half):
    none = target == 0.0
    amount = where(none, 1.0, target)
    if power == 1.5:
        root = sqrt(prediction)
        gap = (target - prediction) / (sqrt(target) + root)
        value = where(none, 2.0 * root, 2.0 * gap * (gap / root))
        slope = where(none, 1.0, (prediction - target) / prediction) / root
        limit = prediction
    # Each of two forms divides by what is not small.
    if power < 1.5:
        exponent = 1.0 - power
        excess = (prediction - amount) / amount
        log_near = -log1p(where(excess < 1.0, where(excess > -0.5, excess, 0.0), 0.0))
    if power > 1.5:
        exponent = 2.0 - power
        excess = (amount - prediction) / prediction
        log_near = log1p(where(excess < 1.0, where(excess > -0.5, excess, 0.0), 0.0))
    if power != 1.5:
        flat = exponent * exponent < 1e-36
        divisor = where(flat, 1.0, exponent)
        growth = exponent * log_near
        near = ((excess > -0.5) & (excess < 1.0)) & (absolute(growth) <= 1.38)
        bend = log1p_gap(where(near, excess, 0.0))
        curve = where(flat, 0.0, exp_gap(where(near, growth, 0.0)) / divisor)
        scale = power_of(prediction, 0.0, exponent)
        own = power_of(amount, 0.0, exponent)
        log_gain = log_ratio(amount, prediction)
        growth = exponent * log_gain
        slow = absolute(growth) <= 1.0
        gain = where(slow, scale * expm1(where(slow, growth, 0.0)), own - scale) / divisor
        gain = where(flat, scale * log_gain, gain)
    if power < 1.5:
        apart = amount * (gain - scale) + scale * prediction
        value = where(near, scale * amount * (bend + curve), apart)
        value = where(none, scale * prediction, value) / (2.0 - power)
        slope = scale * where(none, 1.0, (prediction - target) / prediction)
        limit = prediction
    if power > 1.5:
        apart = scale * (amount - prediction) / prediction - gain
        apart = where(scale == infinity, infinity, apart)
        value = where(near, scale * (bend - curve), apart) / (power - 1.0)
        value = where(excess == 0.0, 0.0, value)
        slope = scale * where(none, 1.0, (prediction - target) / prediction) / prediction
        slope = where(excess == 0.0, 0.0, slope)
    if power > 1.5 and power < 2.0:
        value = where(none, scale / exponent, value)
        limit = prediction
    if power >= 2.0:
        value = where(none, infinity, value)
        limit = where(flat, infinity, own / (divisor * (divisor - 1.0)))
        limit = where(none, infinity, limit)
    # The ends, where the powers are products of 0 and infinity.
    value = where(prediction == infinity, limit, value)
    slope = where(prediction == infinity, 0.0, slope)
    value = where((prediction == 0.0) & (target > 0.0), infinity, value)
    value = where((prediction < 0.0) | (target < 0.0), infinity - infinity, value)
    times = where(half > 0.0, 1.0, 2.0)
    return times * value, times * slope
