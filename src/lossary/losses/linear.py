"""A network's last linear layer and its loss as one function of what goes into the layer."""

from __future__ import annotations

from lossary.contract import (
    NONNEGATIVE,
    SMOOTH,
    Array,
    Embeddings,
    Fraction,
    Labels,
    Nonnegative,
    PerSample,
    Positive,
    Weights,
    loss,
)
from lossary.numerics import log_softmax, logsumexp, pick, times
from lossary.xp import namespace


@loss(
    properties={NONNEGATIVE, SMOOTH},
    aliases=("fused_linear_cross_entropy", "chunked_cross_entropy", "cut_cross_entropy"),
    paper="arXiv:2411.09009",
)
def linear_cross_entropy(
    hidden: Embeddings,
    weight: Weights,
    target: Labels,
    *,
    label_smoothing: Fraction = 0.0,
    z_loss: Nonnegative = 0.0,
    softcap: Positive | None = None,
    class_weights: Array | None = None,
) -> PerSample:
    r"""Cross-entropy of the logits that a linear layer makes of its inputs.

    .. math:: \ell = -\log \frac{e^{w_y \cdot h}}{\sum_k e^{w_k \cdot h}}

    Use it in place of a last layer and ``cross_entropy`` where classes are many (the words of a
    language model): as one function the logits of all samples need not be kept. ``hidden``: (...,
    features); ``weight``: (classes, features), learned with the network; ``target``: (...) classes
    from 0. A layer's bias is one more column of ``weight``, met by a feature that is 1; as a vector
    of its own, ``lossary.kernels.chunked.linear_cross_entropy(..., bias=...)`` takes it. ``z_loss``
    adds its multiple of log(sum(exp(z)))^2 (Chowdhery 2022); ``softcap`` c bounds logits z as
    c tanh(z / c) (Gemma 2). Class weights enter as in ``cross_entropy``, not into ``z_loss``.
    """
    xp = namespace(hidden, weight, target)
    logits = xp.matmul(hidden, xp.matrix_transpose(weight))
    if softcap is not None:
        logits = softcap * xp.tanh(logits / softcap)
    surprise = -log_softmax(logits)
    if class_weights is not None:
        surprise = times(class_weights, surprise)
    value = pick(surprise, target)
    if label_smoothing:
        value = (1.0 - label_smoothing) * value + label_smoothing * xp.mean(surprise, axis=-1)
    if z_loss:
        value = value + z_loss * xp.square(logsumexp(logits))
    return value
