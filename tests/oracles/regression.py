"""Textbook formulas of distances between numbers, in mpmath."""

from mpmath import cosh, fsum, log, mpf, sqrt


def squared_error(prediction, target, *, half):
    return (prediction - target) ** 2 / (2 if half else 1)


def absolute_error(prediction, target):
    return abs(prediction - target)


def percentage_error(prediction, target, *, scale, floor):
    return scale * abs(prediction - target) / max(abs(target), floor)


def symmetric_percentage_error(prediction, target, *, scale):
    if prediction == target:
        return mpf(0)
    return scale * 2 * abs(prediction - target) / (abs(prediction) + abs(target))


def squared_logarithmic_error(prediction, target):
    return log((1 + prediction) / (1 + target)) ** 2


def log_cosh(prediction, target):
    return log(cosh(prediction - target))


def cosine_similarity(prediction, target, *, distance):
    lengths = sqrt(fsum(x * x for x in prediction) * fsum(x * x for x in target))
    if 0 < fsum(x * x for x in prediction) < mpf(10) ** -100:
        raise ValueError("beside a zero vector the cosine jumps: it has no derivative there")
    dot = fsum(x * y for x, y in zip(prediction, target, strict=True))
    cosine = dot / lengths if lengths else mpf(0)
    return 1 - cosine if distance else -cosine


def pinball(prediction, target, *, quantile):
    return max(quantile * (target - prediction), (quantile - 1) * (target - prediction))


def epsilon_insensitive(prediction, target, *, epsilon):
    return max(mpf(0), abs(prediction - target) - epsilon)
