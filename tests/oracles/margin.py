"""Textbook formulas of margins, in mpmath."""

from mpmath import exp, fsum, log1p, mpf


def _sign(target):
    return -1 if target == 0 else target


def hinge(prediction, target, *, margin):
    return max(mpf(0), margin - _sign(target) * prediction)


def squared_hinge(prediction, target, *, margin):
    return max(mpf(0), margin - _sign(target) * prediction) ** 2


def soft_margin(prediction, target):
    return log1p(exp(-_sign(target) * prediction))


def _distribution(target, classes):
    if isinstance(target, int):
        return [int(k == target) for k in range(classes)]
    return target


def _shortfalls(prediction, target, margin):
    """How far each wrong class comes within the margin of the (mean) true score."""
    t = _distribution(target, len(prediction))
    true = fsum(tk * z for tk, z in zip(t, prediction, strict=True) if tk != 0)
    return true, [
        z - true + margin * (1 - tk) for tk, z in zip(t, prediction, strict=True) if tk != 1
    ]


def categorical_hinge(prediction, target, *, margin, zero_rival):
    true, shortfalls = _shortfalls(prediction, target, margin)
    rival = [margin - true] if zero_rival else []
    certain = len(shortfalls) < len(prediction)
    return max(shortfalls + rival + ([mpf(0)] if certain else []))


def multi_margin(prediction, target, *, p, margin, divide_by_classes):
    _, shortfalls = _shortfalls(prediction, target, margin)
    total = fsum(max(mpf(0), gap) ** p for gap in shortfalls)
    return total / len(prediction) if divide_by_classes else total


def multilabel_margin(prediction, target, *, margin):
    """Every label but itself owes a true label the margin, each pair by its shares."""
    labels = range(len(prediction))
    return fsum(
        target[j] * (1 - target[k]) * max(mpf(0), margin - prediction[j] + prediction[k])
        for j in labels
        for k in labels
        if j != k
    ) / len(prediction)


# The textbook's form first: with a zero rival, logarithms of probabilities (whose rivals never
# exceed 0) make categorical_hinge 1 plus cross-entropy, which is proper on them alone.
PARAMETERS = {
    "categorical_hinge": [
        {"zero_rival": False},
        {"zero_rival": False, "margin": 0.5},
        {},
        {"margin": 2.5},
    ],
}
