"""Value and slope of every pointwise loss that has a fused kernel: each loss once, as mathematics.

A formula takes the loss's inputs and its parameters as numbers, under their own names; it returns
the value and its derivative by each prediction. ``<loss>_of_<form>`` is of predictions that arrive
in another form. The toolchains compile these functions with their own ``where``, ``exp``,
``exp_below`` and ``expm1`` (of numbers <= 1), ``log`` (of normal numbers > 0) and ``log_any`` (of
all), ``log1p`` (of numbers > -1), ``log1p_unit`` (of numbers in [0, 1]), ``log1p_gap`` and
``exp_gap`` (what the first term of the series leaves, near 0), ``log_ratio`` and ``power_of`` (of
positive numbers), ``relative_entropy`` and ``surprise_at_best`` (of counts > 0), ``ratio`` (by
numbers near 1), ``sqrt``, ``absolute`` and ``sign`` (0 at 0), ``infinity``, ``smallest`` (the first
normal number) and ``below_one`` (the number before 1), in single and double precision.
Forms are chosen so that no difference cancels, both tails are right, NaN goes through and an
infinity comes out as in the limit. A parameter arrives as a number: True as 1, False as 0, None as
-1.
"""

# ruff: noqa: D103, F821  (the names of functions are bound by the toolchains)
# mypy: ignore-errors


# -- distances ------------------------------------------------------------------------------------


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


# -- noise that is predicted too -------------------------------------------------------------------


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


# -- counts ---------------------------------------------------------------------------------------


def poisson_nll(prediction, target, full):
    rate = exp(prediction)
    if full == 0.0:
        # Far up the rate alone is infinite, and infinity less infinity would be no number.
        plain = (target == 0.0) | (prediction > 1000.0)
        value = rate - where(plain, 0.0, target * prediction)
    else:
        plain = (target == 0.0) | (rate == infinity)
        # Far down the rate has lost its digits, far from the target nothing cancels.
        low = prediction < -80.0
        log_rise = where(low, prediction - log_any(target), log_ratio(rate, target))
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


# -- yes or no ------------------------------------------------------------------------------------


def binary_cross_entropy(prediction, target, label_smoothing, pos_weight):
    if label_smoothing == 0.0 and pos_weight == 1.0:
        yes = target
        no = 1.0 - target
        mass = 1.0
    else:
        keep = 1.0 - label_smoothing
        moved = 0.5 * label_smoothing
        yes = (target * keep + moved) * pos_weight
        no = (1.0 - target) * keep + moved
        mass = yes + no
    # Seen from the likelier answer: what speaks against it, and what for it.
    positive = prediction > 0.0
    against = where(positive, no, yes)
    agreeing = where(positive, yes, no)
    distance = absolute(prediction)
    odds = exp_below(-distance)
    # A weight of exactly zero wins over an infinite logit.
    miss = where(against == 0.0, 0.0, against * distance)
    pull = ratio(against - agreeing * odds, 1.0 + odds)
    return mass * log1p_unit(odds) + miss, where(positive, pull, -pull)


def binary_cross_entropy_of_probabilities(prediction, target, label_smoothing, pos_weight):
    # Exactly 0 or 1 counts as the nearest number inside, and keeps its slope.
    inside = where(prediction < smallest, smallest, prediction)
    inside = where(inside > below_one, below_one, inside)
    rest = 1.0 - inside
    if label_smoothing == 0.0 and pos_weight == 1.0:
        yes = target
        no = 1.0 - target
        pull = inside - target
    else:
        keep = 1.0 - label_smoothing
        moved = 0.5 * label_smoothing
        yes = (target * keep + moved) * pos_weight
        no = (1.0 - target) * keep + moved
        pull = no * inside - yes * rest
    value = -(yes * log(inside) + no * log1p(-inside))
    return value, pull / (inside * rest)


def binary_focal(prediction, target, gamma, alpha):
    positive = prediction > 0.0
    wrong_share = where(positive, 1.0 - target, target)
    right_share = where(positive, target, 1.0 - target)
    if alpha < 0.0:
        against = wrong_share
        agreeing = right_share
    else:
        yes = alpha * target
        no = (1.0 - alpha) * (1.0 - target)
        against = where(positive, no, yes)
        agreeing = where(positive, yes, no)
    distance = absolute(prediction)
    odds = exp_below(-distance)
    sure = ratio(1.0, 1.0 + odds)
    miss = where(against == 0.0, 0.0, against * distance)
    surprise = (against + agreeing) * log1p_unit(odds) + miss
    wrong = sure * (wrong_share + right_share * odds)
    right = sure * (right_share + wrong_share * odds)
    # d focus = gamma focus / wrong d wrong, and d wrong = (wrong share - right share) bend.
    if gamma == 2.0:
        focus = wrong * wrong
        steeper = wrong
    else:
        power = where(wrong > 0.0, exp(-gamma * log1p(right / wrong)), wrong)
        focus = where(gamma == 0.0, 1.0, power)
        steeper = where(wrong > 0.0, focus / wrong, 0.0)
    bend = sure * (sure * odds)
    bend = where(bend > 0.0, bend * surprise, bend)
    value = where(surprise == 0.0, 0.0, focus * surprise)
    pull = sure * (against - agreeing * odds)
    slope = focus * pull + gamma * steeper * ((wrong_share - right_share) * bend)
    return value, where(positive, slope, -slope)


# -- margins --------------------------------------------------------------------------------------


def hinge(prediction, target, margin):
    side = where(target == 0.0, -1.0, target)
    short = margin - side * prediction
    return where(short <= 0.0, 0.0, short), where(short <= 0.0, 0.0, -side)


def squared_hinge(prediction, target, margin):
    side = where(target == 0.0, -1.0, target)
    short = margin - side * prediction
    short = where(short <= 0.0, 0.0, short)
    return short * short, -2.0 * side * short


def soft_margin(prediction, target):
    side = where(target == 0.0, -1.0, target)
    z = side * prediction
    odds = exp_below(-absolute(z))
    sure = ratio(1.0, 1.0 + odds)
    value = log1p_unit(odds) + where(z > 0.0, 0.0, -z)
    return value, -side * where(z > 0.0, odds * sure, sure)


def hinge_embedding(prediction, target, margin):
    alike = target == 1.0
    short = margin - prediction
    apart = where(short <= 0.0, 0.0, short)
    return where(alike, prediction, apart), where(alike, 1.0, where(short <= 0.0, 0.0, -1.0))


def margin_ranking(first, second, target, margin):
    side = where(target == 0.0, -1.0, target)
    short = margin - side * (first - second)
    pull = where(short <= 0.0, 0.0, side)
    return where(short <= 0.0, 0.0, short), -pull, pull


# -- distributions --------------------------------------------------------------------------------


def kl_divergence_of_log_probabilities(prediction, target):
    # One class's part. A weight of 0 wins over an infinite surprise.
    excess = log(where(target < smallest, 1.0, target)) - prediction
    absent = (target == 0.0) & (absolute(prediction) == infinity)
    return where(absent, 0.0, target * excess), -target
