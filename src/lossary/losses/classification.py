"""Surprise: what to predict when the target is one of several classes, or yes or no."""

from __future__ import annotations

from typing import Annotated

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
    Fraction,
    Interval,
    Logit,
    NonnegativeNumbers,
    PerElement,
    PerSample,
    Probability,
    Simplex,
    loss,
    named,
)
from lossary.numerics import (
    interior,
    log_normalized,
    log_softmax,
    mean_where,
    one_minus_exp,
    per_class,
    pick,
    surprise_of_logit,
    times,
)
from lossary.special import exp_gap
from lossary.xp import namespace


def _expected(
    surprise: Array,
    possible: Array,
    target: Array,
    label_smoothing: float,
    axis: int,
    class_weights: Array | None,
) -> Array:
    """The target's mean of the surprise at each class."""
    xp = namespace(surprise, target)
    if class_weights is not None:
        shape = [1] * surprise.ndim
        shape[axis] = surprise.shape[axis]
        surprise = times(xp.reshape(class_weights, tuple(shape)), surprise)
    hit = pick(surprise, target, axis=axis)
    if label_smoothing == 0.0:  # a Python number: decided while tracing
        return hit
    share = mean_where(surprise, possible, axis=axis)
    return (1.0 - label_smoothing) * hit + label_smoothing * share


def _cross_entropy_of_probabilities(
    prediction: Simplex,
    target: Classes,
    *,
    label_smoothing: Fraction = 0.0,
    axis: int = -1,
    class_weights: Array | None = None,
) -> PerSample:
    surprise = -log_normalized(prediction, axis=axis)
    possible = surprise == surprise
    return _expected(surprise, possible, target, label_smoothing, axis, class_weights)


def _cross_entropy_of_log_probabilities(
    prediction: ClassLogits,
    target: Classes,
    *,
    label_smoothing: Fraction = 0.0,
    axis: int = -1,
    class_weights: Array | None = None,
) -> PerSample:
    possible = namespace(prediction, target).isfinite(prediction)
    return _expected(-prediction, possible, target, label_smoothing, axis, class_weights)


@loss(
    properties={
        CONVEX,
        SMOOTH,
        NONNEGATIVE,
        SHIFT_INVARIANT,
        MONOTONE.at(label_smoothing=0.0),
        STRICTLY_PROPER.at(label_smoothing=0.0),
    },
    aliases=(
        "softmax_cross_entropy",
        "safe_softmax_cross_entropy",
        "softmax_cross_entropy_with_integer_labels",
        "soft_target_cross_entropy",
        "multiclass_logistic",
        "half_multinomial",
        named("nll", predictions="log_probabilities"),
        named("label_smoothing_cross_entropy", label_smoothing=0.1),
        named("categorical_crossentropy", predictions="probabilities"),
        named("sparse_categorical_crossentropy", predictions="probabilities"),
    ),
    paper="doi:10.1111/j.2517-6161.1952.tb00104.x",
    forms={
        "probabilities": _cross_entropy_of_probabilities,
        "log_probabilities": _cross_entropy_of_log_probabilities,
    },
)
def cross_entropy(
    prediction: ClassLogits,
    target: Classes,
    *,
    label_smoothing: Fraction = 0.0,
    axis: int = -1,
    class_weights: Array | None = None,
) -> PerSample:
    r"""Surprise at the true class under the softmax of the prediction.

    .. math:: \ell(z, y) = \log \sum_k e^{z_k} - z_y

    Use it when exactly one of several classes is true: the best prediction is the probability of
    each. ``target`` holds class indices, one-hot rows or distributions. ``label_smoothing`` moves
    that share of the target evenly to all classes, the true one included (Szegedy 2016; as Keras,
    PyTorch and optax do); a class whose logit is -inf is absent and gets none. Keras' names
    (categorical_crossentropy, sparse_categorical_crossentropy) take probabilities, as in Keras;
    probabilities are divided by their sum. Log-probabilities, which ``nll`` takes as in PyTorch,
    are used as they are.
    """
    possible = namespace(prediction, target).isfinite(prediction)
    surprise = -log_softmax(prediction, axis=axis)
    return _expected(surprise, possible, target, label_smoothing, axis, class_weights)


def _shares(target: Array, label_smoothing: float, pos_weight: object) -> tuple[Array, Array]:
    """How much yes and no weigh."""
    keep, moved = 1.0 - label_smoothing, 0.5 * label_smoothing
    weight = per_class(pos_weight, target, what="binary_cross_entropy: pos_weight")
    # Not 1 - (y (1 - s) + s / 2), in which a small s would drown.
    return (target * keep + moved) * weight, (1.0 - target) * keep + moved


def _binary_cross_entropy_of_probabilities(
    prediction: Probability,
    target: Binary,
    *,
    label_smoothing: Fraction = 0.0,
    pos_weight: NonnegativeNumbers = 1.0,
) -> PerElement:
    xp, inside = namespace(prediction, target), interior(prediction)
    yes, no = _shares(target, label_smoothing, pos_weight)
    return -(yes * xp.log(inside) + no * xp.log1p(-inside))


@loss(
    properties={
        CONVEX,
        SMOOTH,
        NONNEGATIVE,
        MONOTONE.at(label_smoothing=0.0),
        STRICTLY_PROPER.at(label_smoothing=0.0, pos_weight=1.0),
    },
    aliases=(
        "bce_with_logits",
        "binary_cross_entropy_with_logits",
        "sigmoid_cross_entropy",
        "sigmoid_binary_cross_entropy",
        "binary_logistic",
        "logistic_loss",
        "half_binomial",
        "balanced_bce_pos_weight",
        "multilabel_soft_margin",
        "multi_label_soft_margin",
        named("bce", predictions="probabilities"),
        named("log_loss", predictions="probabilities"),
        named("binary_crossentropy", predictions="probabilities"),
    ),
    paper="doi:10.1111/j.2517-6161.1958.tb00292.x",
    forms={"probabilities": _binary_cross_entropy_of_probabilities},
)
def binary_cross_entropy(
    prediction: Logit,
    target: Binary,
    *,
    label_smoothing: Fraction = 0.0,
    pos_weight: NonnegativeNumbers = 1.0,
) -> PerElement:
    r"""Surprise at yes or no under the sigmoid of the prediction.

    .. math:: \ell(z, y) = w\, y \log(1 + e^{-z}) + (1 - y) \log(1 + e^{z})

    Use it when each answer is yes or no, several yeses in a row of labels included: the best
    prediction is the log-odds of yes. ``target`` is 0, 1 or a probability between.
    ``label_smoothing`` s makes it y (1 - s) + s / 2 (as Keras). ``pos_weight`` w, one number or one
    per class of the last axis, multiplies the surprise at yes (as PyTorch). The names that take
    probabilities elsewhere (bce, log_loss, binary_crossentropy) take them here.
    """
    return surprise_of_logit(prediction, *_shares(target, label_smoothing, pos_weight))


@loss(
    properties={
        SMOOTH,
        NONNEGATIVE,
        SHIFT_INVARIANT,
        MONOTONE,
        CONVEX.at(epsilon=0.0),
        CONVEX.at(epsilon=1.0),
        STRICTLY_PROPER.at(epsilon=0.0),
    },
    aliases=(
        "poly1",
        "poly1_cross_entropy",
        "poly_cross_entropy",
        named("poly_loss_cross_entropy", epsilon=2.0),
    ),
    paper="arXiv:2204.12511",
)
def poly(
    prediction: ClassLogits,
    target: Classes,
    *,
    epsilon: Annotated[float, Interval(-1.0)] = 1.0,
    axis: int = -1,
) -> PerSample:
    r"""Cross-entropy with the weight of its first polynomial term changed.

    .. math:: \ell(z, y) = -\log p_y + \epsilon (1 - p_y), \quad p = \operatorname{softmax}(z)

    Use it to tune cross-entropy by one number: a positive ``epsilon`` pulls longer on examples that
    are already right, a negative one less. The best prediction leans from the probabilities
    towards certainty when ``epsilon`` is positive. The optax name (poly_loss_cross_entropy) has
    its default of 2.
    """
    log_probability = log_softmax(prediction, axis=axis)
    if epsilon >= 0.0:
        value = epsilon * one_minus_exp(log_probability) - log_probability
    else:  # what cancels, -log p - (1 - p), in one piece
        value = -epsilon * exp_gap(log_probability) - (1.0 + epsilon) * log_probability
    return pick(value, target, axis=axis)
