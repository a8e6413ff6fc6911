"""Contrast within a batch, from the papers; rows in, one number per anchor out."""

from mpmath import exp, log, log1p, mpf, sqrt


def _length(vector):
    length = sqrt(sum(a * a for a in vector))
    if 0 < length < mpf(10) ** -50:
        raise ValueError("beside a zero vector the cosine has no limit, so no derivative")
    return length


def _cosines(rows, columns):
    """Of every row with every column; that of a zero vector is 0."""
    lengths, others = [_length(row) for row in rows], [_length(column) for column in columns]
    return [
        [
            sum(a * b for a, b in zip(row, column, strict=True)) / (length * other)
            if length and other
            else mpf(0)
            for column, other in zip(columns, others, strict=True)
        ]
        for row, length in zip(rows, lengths, strict=True)
    ]


def _surprise(cosines, partner, candidates, temperature):
    """Minus the logarithm of the partner's share among the candidates."""
    score = cosines[partner]
    return log(sum(exp((cosines[k] - score) / temperature) for k in candidates))


def info_nce(queries, keys, *, temperature, symmetric):
    cosines, n = _cosines(queries, keys), len(queries)
    values = [_surprise(cosines[i], i, range(n), temperature) for i in range(n)]
    if not symmetric:
        return values
    back = list(zip(*cosines, strict=True))
    return [(v + _surprise(back[i], i, range(n), temperature)) / 2 for i, v in enumerate(values)]


def nt_xent(first, second, *, temperature):
    views, n = [*first, *second], len(first)
    cosines = _cosines(views, views)

    def one(i):
        candidates = [k for k in range(2 * n) if k != i]
        return _surprise(cosines[i], (i + n) % (2 * n), candidates, temperature)

    return [(one(i) + one(i + n)) / 2 for i in range(n)]


def supervised_contrastive(prediction, target, *, temperature):
    cosines, values = _cosines(prediction, prediction), []
    for i in range(len(prediction)):
        others = [k for k in range(len(prediction)) if k != i]
        partners = [k for k in others if target[k] == target[i]]
        terms = [_surprise(cosines[i], k, others, temperature) for k in partners]
        values.append(sum(terms) / len(terms) if terms else mpf(0))
    return values


def siglip(queries, keys, *, scale, bias):
    cosines, n = _cosines(queries, keys), len(queries)

    def one(i, j):
        score = scale * cosines[i][j] + bias
        return log1p(exp(-score if i == j else score))

    return [sum(one(i, j) for j in range(n)) for i in range(n)]
