"""Textbook formulas of divergences between distributions, in mpmath."""

from mpmath import exp, fsum, log, log1p


def _softmax(prediction):
    total = fsum(exp(z) for z in prediction)
    return [exp(z) / total for z in prediction]


def _distribution(target, classes):
    if isinstance(target, int):
        return [int(k == target) for k in range(classes)]
    return target


def _surprise(prediction, k):
    """-log p_k, with all its digits when p_k is nearly 1."""
    return log1p(fsum(exp(z - prediction[k]) for j, z in enumerate(prediction) if j != k))


def kl_divergence(prediction, target):
    """sum_k t_k log(t_k / p_k)."""
    return fsum(
        tk * (log(tk) + _surprise(prediction, k))
        for k, tk in enumerate(_distribution(target, len(prediction)))
        if tk != 0
    )


def kl_divergence_of_log_probabilities(prediction, target):
    """The same of log p_k that are used as they are."""
    return fsum(
        tk * (log(tk) - log_p)
        for tk, log_p in zip(_distribution(target, len(prediction)), prediction, strict=True)
        if tk != 0
    )


def jensen_shannon(prediction, target, *, beta):
    """beta KL(t | m) + (1 - beta) KL(p | m) of the mixture m = beta t + (1 - beta) p."""
    p = _softmax(prediction)
    t = _distribution(target, len(p))
    total = 0
    for k, (tk, pk) in enumerate(zip(t, p, strict=True)):
        if tk == 0:
            total -= (1 - beta) * pk * log(1 - beta)
            continue
        # With the gap d = t - p, m = t - (1 - beta) d = p + beta d; log1p keeps a small d.
        gap = tk - pk if tk != 1 else _wrong(prediction, k)
        total -= beta * tk * log1p(-(1 - beta) * gap / tk)
        if pk != 0:
            total -= (1 - beta) * pk * log1p(beta * gap / pk)
    return total


def _wrong(prediction, k):
    """1 - p_k, likewise."""
    others = fsum(exp(z) for j, z in enumerate(prediction) if j != k)
    return others / (others + exp(prediction[k]))
