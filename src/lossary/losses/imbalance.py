"""Rare classes and easy examples: weights, priors and margins by frequency."""

from __future__ import annotations

import math

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
    Logit,
    Nonnegative,
    NonnegativeNumbers,
    PerElement,
    PerSample,
    Positive,
    PositiveNumbers,
    Probability,
    Simplex,
    UnitInterval,
    loss,
    named,
)
from lossary.numerics import (
    from_highest,
    interior,
    log_normalized,
    log_softmax,
    one_hot,
    one_minus_exp,
    per_class,
    pick,
    power,
    stop_gradient,
    surprise_of_logit,
    times,
)
from lossary.xp import namespace


def _shares(target: Array, alpha: float | None) -> tuple[Array, Array]:
    """How much yes and no weigh."""
    if alpha is None:
        return target, 1.0 - target
    return alpha * target, (1.0 - alpha) * (1.0 - target)


def _binary_focal_of_probabilities(
    prediction: Probability,
    target: Binary,
    *,
    gamma: Nonnegative = 2.0,
    alpha: UnitInterval | None = None,
) -> PerElement:
    xp, inside = namespace(prediction, target), interior(prediction)
    wrong = target * (1.0 - inside) + (1.0 - target) * inside
    yes, no = _shares(target, alpha)
    return -power(wrong, gamma) * (yes * xp.log(inside) + no * xp.log1p(-inside))


@loss(
    properties={
        SMOOTH,
        NONNEGATIVE,
        MONOTONE,
        CONVEX.at(gamma=0.0),
        STRICTLY_PROPER.at(gamma=0.0, alpha=None),
    },
    aliases=(
        "focal",
        "sigmoid_focal",
        "focal_loss_binary",
        "focal_bce",
        "binary_focal_cross_entropy",
        named("binary_focal_crossentropy", predictions="probabilities"),
    ),
    paper="arXiv:1708.02002",
    forms={"probabilities": _binary_focal_of_probabilities},
)
def binary_focal(
    prediction: Logit,
    target: Binary,
    *,
    gamma: Nonnegative = 2.0,
    alpha: UnitInterval | None = None,
) -> PerElement:
    r"""Binary cross-entropy that turns away from examples which are already right.

    .. math:: \ell(z, y) = -\alpha_y (1 - p_y)^\gamma \log p_y,
              \quad p_1 = \sigma(z), \; p_0 = 1 - p_1

    Use it when easy examples of the common answer drown the rare one, as in dense detection. The
    larger ``gamma``, the less an easy example counts; ``alpha`` weighs yes by alpha and no by
    1 - alpha (None: neither; torchvision's default is 0.25, Keras and optax weigh neither unless
    told). The best prediction is less sure than the log-odds of yes but has their sign. For a
    ``target`` between 0 and 1 the factor holds the mean probability of being wrong, as elsewhere.
    Keras' name (binary_focal_crossentropy) takes probabilities.
    """
    xp = namespace(prediction, target)
    surprise = surprise_of_logit(prediction, *_shares(target, alpha))
    if gamma == 0:
        return surprise
    above = prediction > 0
    small = xp.exp(xp.where(above, -prediction, prediction))
    wrong = target * xp.where(above, small, 1.0) + (1.0 - target) * xp.where(above, 1.0, small)
    return times(power(wrong / (1.0 + small), gamma), surprise)


def _categorical_focal(
    log_probability: Array, target: Array, gamma: float, alpha: object, axis: int
) -> Array:
    surprise = -log_probability
    if gamma != 0:
        surprise = times(power(one_minus_exp(log_probability), gamma), surprise)
    weight = per_class(alpha, log_probability, axis=axis, what="categorical_focal: alpha")
    return pick(weight * surprise, target, axis=axis)


def _categorical_focal_of_probabilities(
    prediction: Simplex,
    target: Classes,
    *,
    gamma: Nonnegative = 2.0,
    alpha: NonnegativeNumbers = 1.0,
    axis: int = -1,
) -> PerSample:
    return _categorical_focal(log_normalized(prediction, axis=axis), target, gamma, alpha, axis)


@loss(
    properties={
        SMOOTH,
        NONNEGATIVE,
        SHIFT_INVARIANT,
        MONOTONE,
        CONVEX.at(gamma=0.0),
        STRICTLY_PROPER.at(gamma=0.0, alpha=1.0),
    },
    aliases=(
        "softmax_focal",
        "focal_loss_multiclass",
        "multiclass_focal",
        "sparse_categorical_focal",
        "categorical_focal_cross_entropy",
        named("categorical_focal_crossentropy", predictions="probabilities", alpha=0.25),
    ),
    paper="arXiv:1708.02002",
    forms={"probabilities": _categorical_focal_of_probabilities},
)
def categorical_focal(
    prediction: ClassLogits,
    target: Classes,
    *,
    gamma: Nonnegative = 2.0,
    alpha: NonnegativeNumbers = 1.0,
    axis: int = -1,
) -> PerSample:
    r"""Cross-entropy that turns away from examples which are already right.

    .. math:: \ell(z, y) = -\alpha_y (1 - p_y)^\gamma \log p_y, \quad p = \operatorname{softmax}(z)

    Use it when easy examples drown the hard ones. The larger ``gamma``, the less an easy example
    counts; ``alpha`` is a factor, one for all or one per class. The best prediction is less sure
    than the probabilities but keeps their order. Keras' name (categorical_focal_crossentropy)
    takes probabilities and has its factor of 0.25.
    """
    return _categorical_focal(log_softmax(prediction, axis=axis), target, gamma, alpha, axis)


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE, SHIFT_INVARIANT, MONOTONE},
    aliases=("class_balanced_weighting", "effective_number", "cb"),
    paper="arXiv:1901.05555",
)
def class_balanced(
    prediction: ClassLogits,
    target: Classes,
    *,
    class_counts: PositiveNumbers,
    beta: Fraction = 0.999,
    axis: int = -1,
) -> PerSample:
    r"""Cross-entropy weighed by the inverse of each class's effective number of examples.

    .. math:: \ell(z, y) = \frac{1 - \beta}{1 - \beta^{n_y}} \left(\log \sum_k e^{z_k} - z_y\right)

    Use it when classes are unequally frequent: ``class_counts`` holds the number n of training
    examples of each. ``beta`` leads from no weighting (0) to weighting by inverse frequency
    (towards 1). The best prediction is the probability of each class times its weight, divided by
    their sum. Released code also scales the weights to a mean of 1: that is another learning rate.
    """
    counts = _per_class_list(class_counts, prediction, axis)
    if beta > 0:
        rate = math.log1p(-(1.0 - beta))
        counts = [(1.0 - beta) / -math.expm1(count * rate) for count in counts]
    else:
        counts = [1.0 for _ in counts]
    weight = per_class(counts, prediction, axis=axis, what="class_balanced: class_counts")
    return pick(weight * -log_softmax(prediction, axis=axis), target, axis=axis)


@loss(
    properties={
        CONVEX,
        SMOOTH,
        NONNEGATIVE,
        SHIFT_INVARIANT,
        MONOTONE,
        STRICTLY_PROPER.at(tau=0.0),
    },
    aliases=(
        "logit_adjusted_cross_entropy",
        "logit_adjusted_crossentropy",
        named("balanced_softmax", tau=1.0),
    ),
    paper="arXiv:2007.07314; arXiv:2007.10740",
)
def logit_adjustment(
    prediction: ClassLogits,
    target: Classes,
    *,
    class_counts: PositiveNumbers,
    tau: Nonnegative = 1.0,
    axis: int = -1,
) -> PerSample:
    r"""Cross-entropy of logits to which the frequency of each class is added.

    .. math:: \ell(z, y) = -\log \frac{n_y^\tau e^{z_y}}{\sum_k n_k^\tau e^{z_k}}

    Use it when classes are unequally frequent in training but count equally afterwards:
    ``class_counts`` holds the number n of training examples of each. The best prediction is, for
    ``tau=1`` (balanced softmax), the logarithm of how much likelier the input is in each class,
    whose largest entry makes the fewest errors per class.
    """
    counts = _per_class_list(class_counts, prediction, axis)
    xp = namespace(prediction, target)
    # A large offset's rounding is large beside a probability's own: what it loses is added.
    bits = 53 if xp.finfo(prediction.dtype).bits == 64 else 24
    offsets = [_in_bits(tau * math.log(count / max(counts)), bits) for count in counts]
    rests = [
        (count / max(counts)) ** tau * math.exp(-offset) - 1.0 if offset > -600.0 else 0.0
        for count, offset in zip(counts, offsets, strict=True)
    ]
    name = "logit_adjustment: class_counts"
    shift = per_class(offsets, prediction, axis=axis, what=name)
    rest = per_class(rests, prediction, axis=axis, what=name)
    logits = from_highest(prediction, axis=axis)
    lost = rest + _lost(stop_gradient(logits), shift)
    logits = logits + shift
    at_best = xp.argmax(stop_gradient(logits), axis=axis, keepdims=True)
    lost = lost - xp.take_along_axis(lost, at_best, axis=axis)
    log_probability = log_softmax(logits, axis=axis)
    mean = xp.sum(xp.exp(log_probability) * lost, axis=axis, keepdims=True)
    return pick((mean - lost) - log_probability, target, axis=axis)


def _in_bits(number: float, bits: int) -> float:
    """Rounded to so many binary digits."""
    fraction, exponent = math.frexp(number)
    return math.ldexp(round(math.ldexp(fraction, bits)), exponent - bits)


def _lost(x: Array, shift: Array) -> Array:
    """What the rounding of ``x + shift`` loses (Knuth's exact sum)."""
    xp = namespace(x)
    moved = (x + shift) - x
    lost = (x - ((x + shift) - moved)) + (shift - moved)
    return xp.where(xp.isfinite(lost), lost, 0.0)


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE, SHIFT_INVARIANT, MONOTONE},
    aliases=("label_distribution_aware_margin",),
    paper="arXiv:1906.07413",
)
def ldam(
    prediction: ClassLogits,
    target: Classes,
    *,
    class_counts: PositiveNumbers,
    max_margin: Nonnegative = 0.5,
    scale: Positive = 30.0,
    axis: int = -1,
) -> PerSample:
    r"""Cross-entropy that asks a wider margin of rarer classes.

    .. math:: \ell(z, y) = -\log \frac{e^{s (z_y - \Delta_y)}}
              {e^{s (z_y - \Delta_y)} + \sum_{k \ne y} e^{s z_k}},
              \quad \Delta_k = m \left(\frac{\min_j n_j}{n_k}\right)^{1/4}

    Use it when classes are unequally frequent and the prediction is a cosine: ``class_counts``
    holds the number n of training examples of each, ``max_margin`` m is the rarest one's margin
    and ``scale`` s the inverse temperature. The best prediction ranks the classes by their
    probability, the rarer ones raised by their margin.
    """
    counts = _per_class_list(class_counts, prediction, axis)
    margins = [max_margin * (min(counts) / count) ** 0.25 for count in counts]
    asked = per_class(margins, prediction, axis=axis, what="ldam: class_counts")
    hot = one_hot(target, prediction, axis=axis)
    scores = scale * (from_highest(prediction, axis=axis) - asked * hot)
    return pick(-log_softmax(scores, axis=axis), target, axis=axis)


def _per_class_list(numbers: object, prediction: Array, axis: int) -> list[float]:
    """Counts as Python numbers; one number means that all classes have so many."""
    if isinstance(numbers, (int, float)):
        return [float(numbers)] * prediction.shape[axis]
    return [float(number) for number in numbers]  # type: ignore[attr-defined]
