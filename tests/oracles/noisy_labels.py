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
    """exp_t2(z_k - lambda), lambda by Newton's method."""
    slope = t2 - 1
    high = max(prediction)
    gaps = [high - z for z in prediction]

    def share(shift):
        return [(1 + slope * (shift + gap)) ** (-1 / slope) for gap in gaps]

    shift, tolerance = mp.mpf(0), mp.eps * 1000
    for _ in range(10000):
        p = share(shift)
        excess = fsum(p) - 1
        escort = fsum(pk / (1 + slope * (shift + gap)) for pk, gap in zip(p, gaps, strict=True))
        step = excess / escort  # convex and falling: from the left Newton's method only rises
        shift += step
        if abs(step) <= tolerance * abs(shift) or step == 0:
            return share(shift)
    raise ArithmeticError("the normalizer was not found")


def bi_tempered_logistic(prediction, target, *, t1, t2):
    p = _tempered_softmax(prediction, t2)
    t = _distribution(target, len(p))
    order = 2 - t1
    known = fsum(
        tk * (_log_t(tk, t1) - _log_t(pk, t1)) for tk, pk in zip(t, p, strict=True) if tk != 0
    )
    return known - fsum(
        (mp.mpf(tk) ** order - pk**order) / order for tk, pk in zip(t, p, strict=True)
    )
