"""Formulas of Ho and Wookey 2020, in mpmath."""

from mpmath import exp, fsum, log, log1p, mpf


def _softmax(prediction):
    total = fsum(exp(z) for z in prediction)
    return [exp(z) / total for z in prediction]


def _surprise(prediction, k):
    """-log p_k, with all its digits when p_k is nearly 1."""
    return log1p(fsum(exp(z - prediction[k]) for j, z in enumerate(prediction) if j != k))


def _distribution(target, classes):
    if isinstance(target, int):
        return [int(k == target) for k in range(classes)]
    return target


def _each(numbers, classes):
    if isinstance(numbers, (list, tuple)):
        return [mpf(number) for number in numbers]
    return [mpf(numbers)] * classes


def _square(numbers, classes):
    if isinstance(numbers, (list, tuple)):
        return [[mpf(number) for number in row] for row in numbers]
    return [[mpf(numbers)] * classes for _ in range(classes)]


def real_world_weight_binary_cross_entropy(
    prediction, target, *, false_negative_cost, false_positive_cost
):
    yes, no = log1p(exp(-prediction)), log1p(exp(prediction))
    missed = false_negative_cost * target * yes if target != 0 else 0
    return missed + (false_positive_cost * (1 - target) * no if target != 1 else 0)


def real_world_weight_multilabel_cross_entropy(
    prediction, target, *, false_negative_costs, false_positive_costs
):
    return real_world_weight_binary_cross_entropy(
        prediction,
        target,
        false_negative_cost=false_negative_costs,
        false_positive_cost=false_positive_costs,
    )


def real_world_weight_cross_entropy(
    prediction, target, *, false_negative_costs, false_positive_costs
):
    p = _softmax(prediction)
    classes = len(p)
    t = _distribution(target, classes)
    missed = _each(false_negative_costs, classes)
    called = _square(false_positive_costs, classes)
    total = fsum(t[y] * missed[y] * _surprise(prediction, y) for y in range(classes) if t[y] != 0)
    for y in range(classes):
        for k in range(classes):
            if k != y and t[y] != 0 and called[y][k] != 0:
                total -= (
                    t[y]
                    * called[y][k]
                    * (
                        log(fsum(p[j] for j in range(classes) if j != k))
                        if p[k] > 0.5
                        else log1p(-p[k])
                    )
                )
    return total


PARAMETERS = {
    "real_world_weight_cross_entropy": [
        {"false_positive_costs": ((0.0, 1.0, 2.0), (0.25, 0.0, 0.0), (1.5, 0.75, 0.0))},
        {},
        {"false_negative_costs": (1.0, 2.0, 0.5), "false_positive_costs": 2.5},
    ],
}
