"""Regularizers from the textbook; nested lists in, one number out."""

from mpmath import fsum, sqrt


def _flat(values):
    if not isinstance(values, list):
        return [values]
    return [number for part in values for number in _flat(part)]


def l1_regularization(weight):
    return fsum(abs(w) for w in _flat(weight))


def l2_regularization(weight, *, half):
    value = fsum(w**2 for w in _flat(weight))
    return value / 2 if half else value


def elastic_net(weight, *, l1, l2):
    return fsum(l1 * abs(w) + l2 * w**2 for w in _flat(weight))


def orthogonal_regularization(weight, *, mode):
    rows = [_flat(row) for row in weight]
    columns = [list(column) for column in zip(*rows, strict=True)]
    vectors = {"rows": [rows], "columns": [columns], "both": [rows, columns]}[mode]
    return fsum(
        (fsum(a * b for a, b in zip(one, other, strict=True)) - (i == j)) ** 2
        for group in vectors
        for i, one in enumerate(group)
        for j, other in enumerate(group)
    )


def _shape(image):
    return (len(image), *_shape(image[0])) if isinstance(image, list) else ()


def _at(image, place):
    for index in place:
        image = image[index]
    return image


def _places(shape):
    if not shape:
        return [()]
    return [(i, *rest) for i in range(shape[0]) for rest in _places(shape[1:])]


def total_variation(image, *, norm):
    shape = _shape(image)
    terms = []
    for place in _places(shape):
        steps = []
        for axis in range(1, len(shape)):
            if place[axis] + 1 < shape[axis]:
                after = (*place[:axis], place[axis] + 1, *place[axis + 1 :])
                steps.append(_at(image, after) - _at(image, place))
        if norm == "l1":
            terms.append(fsum(abs(step) for step in steps))
        else:
            square = fsum(step**2 for step in steps)
            terms.append(sqrt(square) if norm == "l2" else square)
    return fsum(terms)
