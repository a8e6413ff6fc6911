"""A linear layer's logits and their surprise, in mpmath."""

from mpmath import exp, fsum, log, log1p, tanh


def linear_cross_entropy(hidden, weight, target, *, label_smoothing, z_loss, softcap):
    """Each row's -sum_k t_k log p_k with t = (1 - s) [k = y] + s / K, plus z_loss (log Z)^2."""
    values = []
    for row, label in zip(hidden, target, strict=True):
        z = [fsum(a * b for a, b in zip(row, each, strict=True)) for each in weight]
        if softcap is not None:
            z = [softcap * tanh(each / softcap) for each in z]
        surprise = [log1p(fsum(exp(b - a) for j, b in enumerate(z) if j != k))
                    for k, a in enumerate(z)]  # fmt: skip
        value = (1 - label_smoothing) * surprise[label]
        value += label_smoothing * fsum(surprise) / len(z)
        values.append(value + z_loss * log(fsum(map(exp, z))) ** 2)
    return values


PARAMETERS = {
    "linear_cross_entropy": [
        {},
        {"label_smoothing": 0.25},
        {"z_loss": 0.5},
        {"softcap": 4.0, "label_smoothing": 0.1},
    ],
}
