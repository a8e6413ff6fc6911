"""Losses of pairs and triplets of embeddings, from their papers."""

from mpmath import fsum, mpf, sqrt


def contrastive(first, second, target, *, margin, half):
    distance = sqrt(fsum((a - b) ** 2 for a, b in zip(first, second, strict=True)))
    value = target * distance**2 + (1 - target) * max(mpf(0), margin - distance) ** 2
    return value / 2 if half else value


def _distance(one, other, p):
    return fsum(abs(a - b) ** p for a, b in zip(one, other, strict=True)) ** (1 / mpf(p))


def triplet(anchor, positive, negative, *, margin, p, swap):
    far = _distance(anchor, negative, p)
    if swap:
        far = min(far, _distance(positive, negative, p))
    return max(mpf(0), _distance(anchor, positive, p) - far + margin)
