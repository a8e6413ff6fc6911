"""Losses of pairs and triplets of embeddings, from their papers."""

from mpmath import acos, cos, exp, fsum, log, log1p, mpf, sqrt


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


def _cosine(one, other):
    """That of a zero vector is 0; beside one it has no limit."""
    lengths = [sqrt(fsum(x * x for x in vector)) for vector in (one, other)]
    if not all(lengths):
        return mpf(0)
    if min(lengths) < mpf(10) ** -45:
        raise ValueError("beside a zero vector the cosine has no limit, so no derivative")
    return fsum(a * b for a, b in zip(one, other, strict=True)) / (lengths[0] * lengths[1])


def cosine_embedding(first, second, target, *, margin):
    cosine = _cosine(first, second)
    return 1 - cosine if target == 1 else max(mpf(0), cosine - margin)


def hinge_embedding(prediction, target, *, margin):
    return prediction if target == 1 else max(mpf(0), margin - prediction)


def margin_ranking(first, second, target, *, margin):
    return max(mpf(0), margin - (1 if target == 1 else -1) * (first - second))


def circle(prediction, target, *, gamma, margin):
    """Equation 7 of the paper, its relaxation factors and optima in terms of one margin."""
    values = []
    for i, anchor in enumerate(prediction):
        within, between = [], []
        for j, other in enumerate(prediction):
            if j != i:
                (within if target[j] == target[i] else between).append(_cosine(anchor, other))
        pulls = [exp(-gamma * max(mpf(0), 1 + margin - s) * (s - (1 - margin))) for s in within]
        pushes = [exp(gamma * max(mpf(0), s + margin) * (s - margin)) for s in between]
        values.append(log1p(fsum(pulls) * fsum(pushes)))
    return values


def _surprise(scores, label):
    return log(fsum(exp(score - scores[label]) for score in scores))


def _among(prediction, target, centers, scale, own):
    values = []
    for row, label in zip(prediction, target, strict=True):
        cosines = [_cosine(row, center) for center in centers]
        cosines[label] = own(row, centers[label], cosines[label])
        values.append(_surprise([scale * cosine for cosine in cosines], label))
    return values


def arcface(prediction, target, centers, *, margin, scale):
    def own(row, center, cosine):
        return cos(acos(min(max(cosine, mpf(-1)), mpf(1))) + margin)

    return _among(prediction, target, centers, scale, own)


def cosface(prediction, target, centers, *, margin, scale):
    return _among(prediction, target, centers, scale, lambda row, center, cosine: cosine - margin)
