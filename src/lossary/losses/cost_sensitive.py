"""Mistakes of different cost: the price of each kind of wrong answer enters the loss."""

from __future__ import annotations

from lossary.contract import (
    CONVEX,
    MONOTONE,
    NONNEGATIVE,
    SHIFT_INVARIANT,
    SMOOTH,
    STRICTLY_PROPER,
    Array,
    Binary,
    Classes,
    ClassLogits,
    Logit,
    LossError,
    Nonnegative,
    NonnegativeNumbers,
    PerElement,
    PerSample,
    loss,
)
from lossary.numerics import (
    constant,
    is_index,
    log_one_minus_softmax,
    log_softmax,
    per_class,
    pick,
    surprise_of_logit,
    times,
)
from lossary.xp import namespace


@loss(
    properties={
        CONVEX,
        SMOOTH,
        NONNEGATIVE,
        MONOTONE,
        STRICTLY_PROPER.at(false_negative_cost=1.0, false_positive_cost=1.0),
    },
    aliases=(
        "real_world_weight_binary_crossentropy",
        "rwwce_binary",
        "cost_sensitive_bce",
        "cost_sensitive_binary_cross_entropy",
    ),
    paper="doi:10.1109/ACCESS.2019.2962617",
)
def real_world_weight_binary_cross_entropy(
    prediction: Logit,
    target: Binary,
    *,
    false_negative_cost: Nonnegative = 1.0,
    false_positive_cost: Nonnegative = 1.0,
) -> PerElement:
    r"""Binary cross-entropy whose two kinds of mistake cost what they cost in the world.

    .. math:: \ell(z, y) = -w_{FN}\, y \log p - w_{FP} (1 - y) \log(1 - p), \quad p = \sigma(z)

    Use it when missing a yes and raising a false alarm have different prices (Ho and Wookey
    2020): ``false_negative_cost`` is what a missed yes costs more than a found one,
    ``false_positive_cost`` what a false alarm costs more than a rightful no. The best prediction is
    the log-odds of yes plus the logarithm of w_FN / w_FP, so a decision at 0 costs least.
    """
    missed, raised = false_negative_cost * target, false_positive_cost * (1.0 - target)
    return surprise_of_logit(prediction, missed, raised)


@loss(
    properties={
        CONVEX,
        SMOOTH,
        NONNEGATIVE,
        MONOTONE,
        STRICTLY_PROPER.at(false_negative_costs=1.0, false_positive_costs=1.0),
    },
    aliases=("real_world_weight_multilabel_crossentropy", "rwwce_multilabel"),
    paper="doi:10.1109/ACCESS.2019.2962617",
)
def real_world_weight_multilabel_cross_entropy(
    prediction: Logit,
    target: Binary,
    *,
    false_negative_costs: NonnegativeNumbers = 1.0,
    false_positive_costs: NonnegativeNumbers = 1.0,
) -> PerElement:
    r"""The binary real-world-weight cross-entropy with prices of its own for every label.

    .. math:: \ell(z_k, y_k) = -w^{FN}_k\, y_k \log p_k - w^{FP}_k (1 - y_k) \log(1 - p_k),
              \quad p = \sigma(z)

    Use it when several labels may be true at once and each has its own price of being missed and of
    being raised wrongly: one number for all, or one per label of the last axis. This is Lossary's
    extension; the paper has the binary and the single-label form. The best prediction is each
    label's log-odds plus the logarithm of its w_FN / w_FP.
    """
    name = "real_world_weight_multilabel_cross_entropy"
    missed = per_class(false_negative_costs, prediction, what=f"{name}: false_negative_costs")
    raised = per_class(false_positive_costs, prediction, what=f"{name}: false_positive_costs")
    return surprise_of_logit(prediction, missed * target, raised * (1.0 - target))


@loss(
    properties={
        SMOOTH,
        NONNEGATIVE,
        SHIFT_INVARIANT,
        MONOTONE,
        CONVEX.at(false_negative_costs=1.0, false_positive_costs=0.0),
    },
    aliases=(
        "real_world_weight_crossentropy",
        "real_world_weighted_categorical_crossentropy",
        "rwwce_categorical",
        "rwwce",
    ),
    paper="doi:10.1109/ACCESS.2019.2962617",
)
def real_world_weight_cross_entropy(
    prediction: ClassLogits,
    target: Classes,
    *,
    false_negative_costs: NonnegativeNumbers = 1.0,
    false_positive_costs: NonnegativeNumbers = 0.0,
    axis: int = -1,
) -> PerSample:
    r"""Cross-entropy in which every kind of mislabelling has its own price.

    .. math:: \ell(z, y) = -w^{FN}_y \log p_y - \sum_{k \ne y} W^{FP}_{y,k} \log(1 - p_k),
              \quad p = \operatorname{softmax}(z)

    Use it when taking one class for another is dearer than the reverse (Ho and Wookey 2020).
    ``false_negative_costs`` are what missing each class costs, one number or one per class;
    ``false_positive_costs`` what calling class y (row) class k (column) costs, one number or a
    square of them whose diagonal does not matter. At 1 and 0 it is cross-entropy. The best
    prediction shifts probability away from dear mistakes. The authors' notebook also divides by
    the number of classes: that is another learning rate.
    """
    xp = namespace(prediction, target)
    name = "real_world_weight_cross_entropy"
    missing = per_class(
        false_negative_costs, prediction, axis=axis, what=f"{name}: false_negative_costs"
    )
    missed = pick(missing * -log_softmax(prediction, axis=axis), target, axis=axis)
    if isinstance(false_positive_costs, (int, float)) and false_positive_costs == 0:
        return missed
    costs = _costs_of_target(false_positive_costs, prediction, target, axis)
    return missed - xp.sum(times(costs, log_one_minus_softmax(prediction, axis=axis)), axis=axis)


def _costs_of_target(numbers: object, prediction: Array, target: Array, axis: int) -> Array:
    """The price of calling each sample each class, in the shape of the prediction."""
    xp = namespace(prediction, target)
    classes = prediction.shape[axis]
    if isinstance(numbers, (int, float)):
        numbers = [[numbers] * classes] * classes
    square = constant(numbers, prediction)
    if tuple(square.shape) != (classes, classes):
        raise LossError(
            "real_world_weight_cross_entropy: false_positive_costs has shape "
            f"{tuple(square.shape)}, but the prediction has {classes} classes; give one number or "
            f"a square of {classes} rows (true class) and {classes} columns (class called)"
        )
    line = xp.arange(classes)
    diagonal = xp.expand_dims(line, axis=0) == xp.expand_dims(line, axis=1)
    square = xp.where(diagonal, 0.0, square)
    if not is_index(target, prediction):
        return xp.moveaxis(xp.matmul(xp.moveaxis(target, axis, -1), square), -1, axis)
    # take, not matmul with one-hot rows: accelerators multiply matrices in fewer digits.
    index = target if xp.isdtype(target.dtype, "integral") else xp.astype(target, xp.int64)
    known = xp.logical_and(index >= 0, index < classes)
    index = xp.where(known, index, xp.zeros_like(index))
    rows = xp.take(square, xp.reshape(index, (-1,)), axis=0)
    rows = xp.reshape(rows, (*target.shape, classes))
    return xp.moveaxis(rows, -1, axis)
