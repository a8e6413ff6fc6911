"""Textbook formulas against wrong labels, in mpmath."""

from mpmath import exp, expm1, fsum, log, log1p, mp


def _softmax(prediction):
    total = fsum(exp(z) for z in prediction)
    return [exp(z) / total for z in prediction]


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


def generalized_cross_entropy(prediction, target, *, q):
    """(1 - p_y^q) / q, averaged over the target."""
    return fsum(
        -tk * expm1(-q * _surprise(prediction, k)) / q
        for k, tk in enumerate(_distribution(target, len(prediction)))
        if tk != 0
    )


def symmetric_cross_entropy(prediction, target, *, alpha, beta, log_zero):
    """Cross-entropy of (t, p) and of (p, t), where log 0 counts as log_zero."""
    p = _softmax(prediction)
    t = _distribution(target, len(p))
    forward = fsum(tk * _surprise(prediction, k) for k, tk in enumerate(t) if tk != 0)
    known = [log_zero if tk == 0 else max(log(tk), log_zero) for tk in t]
    return alpha * forward - beta * fsum(pk * lk for pk, lk in zip(p, known, strict=True))


def partially_huberised_cross_entropy(prediction, target, *, tau):
    p = _softmax(prediction)
    return fsum(
        tk * (_surprise(prediction, k) if p[k] > 1 / tau else 1 + log(tau) - tau * p[k])
        for k, tk in enumerate(_distribution(target, len(p)))
        if tk != 0
    )


def _log_t(x, t):
    return (x ** (1 - t) - 1) / (1 - t)


def _tempered_softmax(prediction, t2):
    """exp_t2(z_k - lambda), lambda by Newton's method, in few digits first."""
    slope = t2 - 1
    place = prediction.index(max(prediction))
    gaps = [prediction[place] - z for z in prediction]
    others = [k for k in range(len(gaps)) if k != place]

    def stride(shift):
        base = [1 + slope * (shift + gap) for gap in gaps]
        p = [b ** (-1 / slope) for b in base]
        # sum(p) - 1, in which the likeliest class may be 1 to all digits.
        excess = fsum(p[k] for k in others) + expm1(-log1p(slope * shift) / slope)
        # The sum is convex and falls: from the left Newton's method only rises.
        return p, excess / fsum(pk / b for pk, b in zip(p, base, strict=True))

    shift, digits, wanted = mp.mpf(0), 30, mp.dps
    with mp.workdps(digits):
        step = stride(shift)[1]
        while abs(step) > mp.mpf(10) ** -20 * shift:
            shift += step
            step = stride(shift)[1]
    while digits < 2 * wanted:  # each step doubles the right digits
        digits *= 2
        with mp.workdps(min(digits, wanted)):
            shift += stride(shift)[1]
    return stride(shift)[0]


def bi_tempered_logistic(prediction, target, *, t1, t2):
    """sum_k t (log_t1 t - log_t1 p) - (t^(2 - t1) - p^(2 - t1)) / (2 - t1)."""
    digits = mp.dps
    with mp.workdps(2 * digits):  # one minus a probability is a difference
        p = _tempered_softmax(prediction, t2)
        t = _distribution(target, len(p))
        order = 2 - t1
        known = fsum(
            tk * (_log_t(tk, t1) - _log_t(pk, t1)) for tk, pk in zip(t, p, strict=True) if tk != 0
        )
        given = fsum(mp.mpf(tk) ** order - pk**order for tk, pk in zip(t, p, strict=True))
        return known - given / order


PARAMETERS = {
    "symmetric_cross_entropy": [
        {},
        {"alpha": 0.5},
        {"beta": 2.5},
        *({"log_zero": log_zero} for log_zero in (-9.25, -745.0, -1e-6)),
    ],
    "bi_tempered_logistic": [
        {},
        {"t1": 0.99, "t2": 1.01},
        {"t1": 0.25, "t2": 1.5},
        {"t1": 0.0, "t2": 3.0},
    ],
}
