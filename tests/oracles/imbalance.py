"""Textbook formulas for unequally frequent classes, in mpmath."""

from mpmath import exp, fsum, log, log1p, mpf


def _surprise(prediction, k):
    """-log p_k, with all its digits when p_k is nearly 1."""
    return log1p(fsum(exp(z - prediction[k]) for j, z in enumerate(prediction) if j != k))


def _wrong(prediction, k):
    """1 - p_k, likewise."""
    others = fsum(exp(z) for j, z in enumerate(prediction) if j != k)
    return others / (others + exp(prediction[k]))


def _distribution(target, classes):
    if isinstance(target, int):
        return [int(k == target) for k in range(classes)]
    return target


def _each(numbers, classes):
    if isinstance(numbers, (list, tuple)):
        return [mpf(number) for number in numbers]
    return [mpf(numbers)] * classes


def binary_focal(prediction, target, *, gamma, alpha):
    """alpha_t (1 - p_t)^gamma times the binary cross-entropy, p_t = y p + (1 - y)(1 - p)."""
    p, q = 1 / (1 + exp(-prediction)), 1 / (1 + exp(prediction))
    y = target
    a, b = (1, 1) if alpha is None else (alpha, 1 - alpha)
    yes = a * y * log1p(exp(-prediction)) if y != 0 else 0
    no = b * (1 - y) * log1p(exp(prediction)) if y != 1 else 0
    return (y * q + (1 - y) * p) ** gamma * (yes + no)


def categorical_focal(prediction, target, *, gamma, alpha):
    t = _distribution(target, len(prediction))
    a = _each(alpha, len(prediction))
    return fsum(
        a[k] * tk * _wrong(prediction, k) ** gamma * _surprise(prediction, k)
        for k, tk in enumerate(t)
        if tk != 0
    )


def _cross_entropy(prediction, t):
    return fsum(tk * _surprise(prediction, k) for k, tk in enumerate(t) if tk != 0)


def class_balanced(prediction, target, *, class_counts, beta):
    t = _distribution(target, len(prediction))
    n = _each(class_counts, len(prediction))
    weights = [(1 - beta) / (1 - beta**nk) for nk in n]
    return _cross_entropy(prediction, [w * tk for w, tk in zip(weights, t, strict=True)])


def logit_adjustment(prediction, target, *, class_counts, tau):
    n = _each(class_counts, len(prediction))
    adjusted = [z + tau * log(nk) for z, nk in zip(prediction, n, strict=True)]
    return _cross_entropy(adjusted, _distribution(target, len(prediction)))


def ldam(prediction, target, *, class_counts, max_margin, scale):
    n = _each(class_counts, len(prediction))
    t = _distribution(target, len(prediction))
    margins = [max_margin * (min(n) / nk) ** mpf("0.25") for nk in n]
    scores = [scale * (z - tk * d) for z, tk, d in zip(prediction, t, margins, strict=True)]
    return _cross_entropy(scores, t)


PARAMETERS = {
    "class_balanced": [
        {"class_counts": (100.0, 7.0, 1.0)},
        {"class_counts": (100.0, 7.0, 1.0), "beta": 0.25},
        {"class_counts": (1e5, 20.0, 300.0), "beta": 0.0},
    ],
    "logit_adjustment": [
        {"class_counts": (100.0, 7.0, 1.0)},
        {"class_counts": (100.0, 7.0, 1.0), "tau": 0.0},
        {"class_counts": (50.0, 7.0, 300.0), "tau": 0.5},
        {"class_counts": (1e12, 1.0, 1e5), "tau": 1.5},
    ],
    "ldam": [
        {"class_counts": (100.0, 7.0, 1.0)},
        {"class_counts": (1e5, 20.0, 300.0), "scale": 2.5, "max_margin": 2.0},
    ],
    "categorical_focal": [
        {},
        {"gamma": 0.0},
        {"gamma": 0.5},
        {"gamma": 2.5, "alpha": (0.25, 1.0, 3.0)},
    ],
}
