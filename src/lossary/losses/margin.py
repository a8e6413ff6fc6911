"""Margins: what to score when only the decision counts, not its probability."""

from __future__ import annotations

from typing import Literal

from lossary.contract import (
    CONVEX,
    MONOTONE,
    NONNEGATIVE,
    SHIFT_INVARIANT,
    SMOOTH,
    Array,
    Classes,
    ClassLogits,
    Margin,
    MultiHot,
    Nonnegative,
    PerElement,
    PerSample,
    Signs,
    lipschitz,
    loss,
    named,
)
from lossary.numerics import class_range, one_hot, positive_part, signs, softplus, times
from lossary.xp import namespace


@loss(
    properties={CONVEX, NONNEGATIVE, MONOTONE, lipschitz(1)},
    aliases=("binary_hinge", "svm", "max_margin", named("perceptron", margin=0.0)),
    paper="doi:10.1007/BF00994018",
)
def hinge(prediction: Margin, target: Signs, *, margin: Nonnegative = 1.0) -> PerElement:
    r"""How far the score falls short of the margin on the right side.

    .. math:: \ell(z, y) = \max(0, m - y z)

    Use it when only the decision counts: answers beyond the ``margin`` cost nothing, so the
    hardest examples alone shape the result. The best prediction is the sign of the likelier
    answer, not its probability. ``target`` is -1 or 1; 0 counts as -1. With ``margin=0`` it is
    the perceptron's.
    """
    return positive_part(margin - signs(target) * prediction)


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE, MONOTONE},
    aliases=("l2_svm", "quadratic_hinge"),
    paper="doi:10.1162/neco.2007.19.5.1155",
)
def squared_hinge(prediction: Margin, target: Signs, *, margin: Nonnegative = 1.0) -> PerElement:
    r"""The squared shortfall from the margin on the right side.

    .. math:: \ell(z, y) = \max(0, m - y z)^2

    Use it as a hinge without a corner: it punishes far-off answers harder and its minimum is easier
    to find. The best prediction is 2 p - 1 (at ``margin=1``), p the probability of 1. ``target`` is
    -1 or 1; 0 counts as -1.
    """
    xp = namespace(prediction, target)
    return xp.square(positive_part(margin - signs(target) * prediction))


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE, MONOTONE, lipschitz(1)},
    aliases=("logistic_margin",),
    paper="doi:10.1214/aos/1016218223",
)
def soft_margin(prediction: Margin, target: Signs) -> PerElement:
    r"""Binary cross-entropy written in the margin, for targets of -1 and 1.

    .. math:: \ell(z, y) = \log(1 + e^{-y z})

    Use it for labels coded -1 and 1 (0 counts as -1): the best prediction is the log-odds of 1.
    """
    return softplus(-signs(target) * prediction)


def _rivals(
    prediction: Array, target: Array, margin: float, axis: int
) -> tuple[Array, Array, Array]:
    """(what each class scores against the margin, the true one's score, which is the true one).

    For a distribution, the true score is the mean, and a class is owed the margin less its share.
    """
    xp = namespace(prediction, target)
    hot = one_hot(target, prediction, axis=axis)
    true = xp.sum(times(hot, prediction), axis=axis, keepdims=True)
    return prediction - margin * hot, true, hot == 1


@loss(
    properties={CONVEX, NONNEGATIVE, MONOTONE, SHIFT_INVARIANT.at(zero_rival=False)},
    aliases=(
        named("multiclass_hinge", zero_rival=False),
        named("crammer_singer", zero_rival=False),
        named("multiclass_perceptron", zero_rival=False, margin=0.0),
    ),
    paper="Crammer and Singer, JMLR 2 (2001) 265-292",
)
def categorical_hinge(
    prediction: ClassLogits,
    target: Classes,
    *,
    margin: Nonnegative = 1.0,
    zero_rival: bool = True,
    axis: int = -1,
) -> PerSample:
    r"""How far the true class falls short of beating its strongest rival by the margin.

    .. math:: \ell(z, y) = \max(0, m + \max_{k \ne y} z_k - z_y)

    Use it when only the decision between several classes counts. The best prediction ranks the
    likeliest class first, if that is likelier than all others together. With ``zero_rival`` a
    score of 0 joins the rivals, as Keras' categorical_hinge has it; the textbook's form without is
    found as crammer_singer and multiclass_hinge (optax).
    """
    xp = namespace(prediction, target)
    rivals, true, own = _rivals(prediction, target, margin, axis)
    # The strongest is found before margin and true score are added, which would round into ties.
    strongest = xp.max(xp.where(own, -float("inf"), rivals), axis=axis, keepdims=True)
    if zero_rival:
        strongest = positive_part(strongest)
    return xp.squeeze(positive_part(margin + (strongest - true)), axis=axis)


@loss(
    properties={CONVEX, NONNEGATIVE, MONOTONE, SHIFT_INVARIANT, SMOOTH.at(p=2)},
    aliases=(
        "multiclass_margin",
        named("weston_watkins", divide_by_classes=False),
    ),
    paper="Weston and Watkins, ESANN (1999) 219-224",
)
def multi_margin(
    prediction: ClassLogits,
    target: Classes,
    *,
    p: Literal[1, 2] = 1,
    margin: Nonnegative = 1.0,
    divide_by_classes: bool = True,
    axis: int = -1,
) -> PerSample:
    r"""The shortfalls from the margin against every wrong class, added.

    .. math:: \ell(z, y) = \frac1K \sum_{k \ne y} \max(0, m - z_y + z_k)^p

    Use it like the categorical hinge when every rival shall be pushed away, not only the strongest.
    ``divide_by_classes`` divides by the number K of classes, as PyTorch does; the textbook's sum is
    found as weston_watkins. The best prediction ranks the likeliest class first, if that is
    likelier than all others together.
    """
    xp = namespace(prediction, target)
    rivals, true, own = _rivals(prediction, target, margin, axis)
    # The true one's own difference is no number where it is infinite.
    short = positive_part(margin + xp.where(own, -float("inf"), rivals - true))
    total = xp.sum(xp.square(short) if p == 2 else short, axis=axis)
    return total / prediction.shape[axis] if divide_by_classes else total


@loss(
    properties={CONVEX, NONNEGATIVE, SHIFT_INVARIANT},
    aliases=("multi_label_margin",),
    paper="Crammer and Singer, JMLR 3 (2003) 1025-1058",
)
def multilabel_margin(
    prediction: ClassLogits,
    target: MultiHot,
    *,
    margin: Nonnegative = 1.0,
    axis: int = -1,
) -> PerSample:
    r"""The shortfalls of every true label's margin over every other label, added.

    .. math:: \ell(z, Y) = \frac1K \sum_{j \in Y} \sum_{k \notin Y} \max(0, m - z_j + z_k)

    Use it when several labels are true at once and only their order before the others counts.
    ``target`` holds 1 for true labels and 0 for others; shares between weigh pairs. It is divided
    by the number K of labels, as in PyTorch, whose module takes indices. Every pair of labels is
    formed: some 1.6 K arrays of the prediction's size are held at once.
    """
    xp = namespace(prediction, target)
    score, true = xp.moveaxis(prediction, axis, -1), xp.moveaxis(target, axis, -1)
    owed = margin + (xp.expand_dims(score, axis=-2) - xp.expand_dims(score, axis=-1))
    weight = xp.expand_dims(true, axis=-1) * xp.expand_dims(positive_part(1.0 - true), axis=-2)
    label = class_range(score, -1)
    other = xp.expand_dims(label, axis=-1) != xp.expand_dims(label, axis=-2)
    weight = xp.where(other, weight, 0.0)
    return xp.sum(weight * positive_part(owed), axis=(-2, -1)) / prediction.shape[axis]
