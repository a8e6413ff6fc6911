"""Contrast within a batch, from the papers; rows in, one number per anchor out."""

from mpmath import exp, fsum, log, log1p, mpf, sqrt


def _similarity(one, other):
    """Cosine; that of a zero vector is 0."""
    length, other_length = sqrt(fsum(a * a for a in one)), sqrt(fsum(b * b for b in other))
    if not (length and other_length):
        return mpf(0)
    if min(length, other_length) < mpf(10) ** -50:
        raise ValueError("beside a zero vector the cosine has no limit, so no derivative")
    return fsum(a * b for a, b in zip(one, other, strict=True)) / (length * other_length)


def _surprise(anchor, partner, candidates, temperature):
    """Minus the logarithm of the partner's share among the candidates."""
    score = _similarity(anchor, partner) / temperature
    return log(fsum(exp(_similarity(anchor, c) / temperature - score) for c in candidates))


def info_nce(queries, keys, *, temperature, symmetric):
    values = []
    for query, key in zip(queries, keys, strict=True):
        value = _surprise(query, key, keys, temperature)
        if symmetric:
            value = (value + _surprise(key, query, queries, temperature)) / 2
        values.append(value)
    return values


def nt_xent(first, second, *, temperature):
    views, n = [*first, *second], len(first)

    def one(i):
        candidates = [view for k, view in enumerate(views) if k != i]
        return _surprise(views[i], views[(i + n) % (2 * n)], candidates, temperature)

    return [(one(i) + one(i + n)) / 2 for i in range(n)]


def supervised_contrastive(prediction, target, *, temperature):
    values = []
    for i, anchor in enumerate(prediction):
        others = [k for k in range(len(prediction)) if k != i]
        partners = [k for k in others if target[k] == target[i]]
        candidates = [prediction[k] for k in others]
        terms = [_surprise(anchor, prediction[k], candidates, temperature) for k in partners]
        values.append(fsum(terms) / len(terms) if terms else mpf(0))
    return values


def siglip(queries, keys, *, scale, bias):
    def one(i, j):
        score = scale * _similarity(queries[i], keys[j]) + bias
        return log1p(exp(-score if i == j else score))

    return [fsum(one(i, j) for j in range(len(keys))) for i in range(len(queries))]
