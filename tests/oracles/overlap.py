"""Overlap losses from their papers: flat lists of probabilities and of mask values."""

from mpmath import exp, fsum, log, mpf


def _counts(p, y):
    both = fsum(a * b for a, b in zip(p, y, strict=True))
    false_positive = fsum(a * (1 - b) for a, b in zip(p, y, strict=True))
    false_negative = fsum((1 - a) * b for a, b in zip(p, y, strict=True))
    return both, false_positive, false_negative


def _coefficient(above, below):
    """Two empty masks are alike."""
    return mpf(1) if below == 0 else above / below


def dice(prediction, target, *, smooth, squared):
    power = 2 if squared else 1
    shared = 2 * fsum(a * b for a, b in zip(prediction, target, strict=True))
    below = fsum(a**power for a in prediction) + fsum(b**power for b in target)
    return 1 - _coefficient(shared + smooth, below + smooth)


def jaccard(prediction, target, *, smooth):
    shared = fsum(a * b for a, b in zip(prediction, target, strict=True))
    union = fsum(prediction) + fsum(target) - shared
    return 1 - _coefficient(shared + smooth, union + smooth)


def tversky(prediction, target, *, alpha, beta, smooth):
    both, false_positive, false_negative = _counts(prediction, target)
    below = both + alpha * false_positive + beta * false_negative + smooth
    return 1 - _coefficient(both + smooth, below)


def focal_tversky(prediction, target, *, alpha, beta, gamma, smooth):
    share = tversky(prediction, target, alpha=alpha, beta=beta, smooth=smooth)
    if 0 < share < mpf(10) ** -40 and gamma > 1:
        raise ValueError(
            "beside a perfect mask the slope grows without bound: it has no value there"
        )
    return share ** (1 / mpf(gamma))


def dice_cross_entropy(prediction, target, *, dice_weight, smooth, background):
    """A region of one pixel: the logits of its classes, and its class or its share of each."""
    total = fsum(exp(z) for z in prediction)
    p = [exp(z) / total for z in prediction]
    if isinstance(target, int):
        target = [mpf(k == target) for k in range(len(p))]
    surprise = fsum(y * (log(total) - z) for z, y in zip(prediction, target, strict=True) if y)
    wrong = [
        1 - _coefficient(2 * a * b + smooth, a + b + smooth) for a, b in zip(p, target, strict=True)
    ]
    wrong = wrong if background else wrong[1:]
    return surprise + dice_weight * fsum(wrong) / len(wrong)
