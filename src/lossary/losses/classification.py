"""Surprise and margins: what to predict when the target is one of several classes, or yes or no."""

from lossary.contract import (
    CONVEX,
    NONNEGATIVE,
    SHIFT_INVARIANT,
    SMOOTH,
    STRICTLY_PROPER,
    Array,
    Classes,
    ClassLogits,
    Fraction,
    PerSample,
    loss,
    named,
)
from lossary.numerics import log_softmax, mean_where, one_hot, pick, times
from lossary.xp import namespace


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE, SHIFT_INVARIANT, STRICTLY_PROPER.at(label_smoothing=0.0)},
    aliases=(
        "softmax_cross_entropy",
        "softmax_cross_entropy_with_integer_labels",
        "multiclass_logistic",
        "nll",
        named("categorical_crossentropy", predictions="probabilities"),
        named("sparse_categorical_crossentropy", predictions="probabilities"),
    ),
    paper="doi:10.1111/j.2517-6161.1952.tb00104.x",
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
    (categorical_crossentropy, sparse_categorical_crossentropy) take probabilities, as in Keras.
    """
    xp = namespace(prediction, target)
    surprise = -log_softmax(prediction, axis=axis)
    weighted = surprise
    if class_weights is not None:
        shape = [1] * prediction.ndim
        shape[axis] = prediction.shape[axis]
        weighted = times(xp.reshape(class_weights, tuple(shape)), surprise)
    hit = pick(weighted, target, axis=axis)
    if label_smoothing == 0.0:  # a Python number: decided while tracing
        return hit
    possible = xp.isfinite(prediction)
    share = mean_where(weighted, possible, axis=axis)
    return (1.0 - label_smoothing) * hit + label_smoothing * share
