"""Textbook formulas of surprise, in mpmath."""

from mpmath import exp, fsum, isinf, log1p


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


def cross_entropy(prediction, target, *, label_smoothing=0):
    """-sum_k t'_k log p_k with t' = (1 - s) t + s / K; a logit of -inf is no class."""
    t = _distribution(target, len(prediction))
    possible = [not isinf(z) for z in prediction]
    smooth = [
        (1 - label_smoothing) * tk + (label_smoothing / sum(possible) if is_class else 0)
        for tk, is_class in zip(t, possible, strict=True)
    ]
    return fsum(tk * _surprise(prediction, k) for k, tk in enumerate(smooth) if tk != 0)


def cross_entropy_of_log_probabilities(prediction, target, *, label_smoothing=0):
    """The same of log p_k that are used as they are."""
    classes = len(prediction)
    return -fsum(
        ((1 - label_smoothing) * tk + label_smoothing / classes) * log_p
        for tk, log_p in zip(_distribution(target, classes), prediction, strict=True)
    )


def binary_cross_entropy(prediction, target, *, label_smoothing=0, pos_weight=1):
    """-(w y log p + (1 - y) log(1 - p)) with y smoothed towards 1/2."""
    y = target * (1 - label_smoothing) + label_smoothing / 2
    yes = log1p(exp(-prediction))
    no = log1p(exp(prediction))
    return (pos_weight * y * yes if y != 0 else 0) + ((1 - y) * no if y != 1 else 0)


def poly(prediction, target, *, epsilon):
    """-log p_y + epsilon (1 - p_y), averaged over the target."""
    return fsum(
        tk * (_surprise(prediction, k) + epsilon * _wrong(prediction, k))
        for k, tk in enumerate(_distribution(target, len(prediction)))
        if tk != 0
    )


# At -1 the terms cancel where the prediction is right.
PARAMETERS = {"poly": [{}, *({"epsilon": epsilon} for epsilon in (-1.0, -0.5, 1.5))]}
