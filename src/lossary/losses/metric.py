"""Distances between embeddings: what to learn when like should lie near like."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from lossary.contract import (
    CONVEX,
    MONOTONE,
    NONNEGATIVE,
    ORDER_FREE,
    SCALE_FREE,
    SYMMETRIC,
    Array,
    Embeddings,
    Interval,
    Labels,
    Nonnegative,
    PairLabels,
    PairSigns,
    PerAnchor,
    PerElement,
    PerSample,
    Positive,
    Real,
    Signs,
    Weights,
    bounded,
    lipschitz,
    loss,
    named,
)
from lossary.numerics import (
    class_range,
    log_softmax,
    logsumexp,
    norm,
    pairs,
    pick,
    positive_part,
    quotient,
    signs,
    softplus,
    stop_gradient,
    unit_rows,
)
from lossary.xp import namespace


def _gap(one: Array, other: Array, apart: Array, p: int) -> Array:
    """The p-norm of ``one`` less that of ``other``, along the last axis; ``apart`` is one - other.

    Two long distances that are nearly equal differ by (a - b)(a + b) / (|a| + |b|): subtracting
    them would leave no digit. Where a vector is 0 its norm's derivative is 0.
    """
    xp = namespace(one, other)
    long, short = _length(one, p), _length(other, p)
    both = long + short
    gap = long - short
    alike = xp.abs(gap) < 0.125 * both
    parts = xp.abs(one) + xp.abs(other) if p == 1 else xp.expand_dims(both, axis=-1)
    close = xp.sum(apart * quotient(one + other, xp.where(parts == 0, 1.0, parts)), axis=-1)
    return xp.where(alike, close, gap)


def _length(x: Array, p: int) -> Array:
    xp = namespace(x)
    return xp.sum(xp.abs(x), axis=-1) if p == 1 else norm(x)


@loss(
    properties={NONNEGATIVE, SYMMETRIC},
    aliases=(
        "siamese_contrastive",
        "hadsell_contrastive",
        "pairwise_margin",
        "contrastive_pair",
        named("half_contrastive", half=True),
    ),
    paper="doi:10.1109/CVPR.2006.100",
)
def contrastive(
    first: Embeddings,
    second: Embeddings,
    target: PairLabels,
    *,
    margin: Positive = 1.0,
    half: bool = False,
) -> PerSample:
    r"""Squared distance of similar pairs; squared shortfall to a margin of dissimilar ones.

    .. math:: \ell = y\, d^2 + (1 - y) \max(0, m - d)^2, \quad d = \lVert a - b \rVert_2

    Use it when you know of pairs whether they belong together. ``first`` and ``second``: (pairs,
    features); ``target``: (pairs,), 1 for similar (Hadsell's paper writes 0 for similar; every
    library uses 1). ``half`` halves both terms, as the paper does. Where a dissimilar pair
    coincides no direction leads apart: its derivative is 0.
    """
    xp = namespace(first, second, target)
    difference = first - second
    together = xp.sum(xp.square(difference), axis=-1)
    apart = xp.square(positive_part(margin - norm(difference)))
    value = target * together + (1.0 - target) * apart
    return 0.5 * value if half else value


@loss(
    properties={NONNEGATIVE},
    aliases=("triplet_margin", "triplet_margin_with_distance", "batch_all_triplet"),
    paper="doi:10.1109/CVPR.2015.7298682",
)
def triplet(
    anchor: Embeddings,
    positive: Embeddings,
    negative: Embeddings,
    *,
    margin: Nonnegative = 1.0,
    p: Literal[1, 2] = 2,
    swap: bool = False,
) -> PerSample:
    r"""How much nearer than the margin allows the negative is, against the positive.

    .. math:: \ell = \max\bigl(0,\; \lVert a - b^+ \rVert_p - \lVert a - b^- \rVert_p + m\bigr)

    Use it when you know what is more alike than what, but no absolute distance. All three are
    (triplets, features). ``p`` is the order of the norm: 1 adds absolute differences, 2 is
    Euclidean. ``swap`` takes the nearer of the negative's distances to anchor and positive (Balntas
    2016). Distances are true norms (PyTorch adds 1e-6 to every difference); where two embeddings
    coincide the derivative of their distance is 0.
    """
    xp = namespace(anchor, positive, negative)
    near, far = anchor - positive, anchor - negative
    excess = _gap(near, far, negative - positive, p) + margin
    if swap:
        other = _gap(near, negative - positive, far, p) + margin
        excess = xp.where(other > excess, other, excess)
    return positive_part(excess)


@loss(
    properties={NONNEGATIVE, SYMMETRIC, SCALE_FREE, bounded(2.0)},
    aliases=("cosine_contrastive",),
    paper="PyTorch, torch.nn.CosineEmbeddingLoss",
)
def cosine_embedding(
    first: Embeddings,
    second: Embeddings,
    target: PairSigns,
    *,
    margin: Annotated[float, Interval(-1, 1)] = 0.0,
) -> PerSample:
    r"""One minus the cosine of similar pairs; the cosine beyond a margin of dissimilar ones.

    .. math:: \ell = \begin{cases} 1 - \cos(a, b) & y = 1 \\
              \max(0, \cos(a, b) - m) & y = -1 \end{cases}

    Use it when you know of pairs whether they belong together and only directions shall tell.
    ``first`` and ``second``: (pairs, features); ``target``: (pairs,), 1 for similar, -1 (or 0) for
    dissimilar. A zero vector has no direction: its cosine is 0.
    """
    xp = namespace(first, second, target)
    one, other = unit_rows(first), unit_rows(second)
    directed = xp.logical_and(xp.any(one != 0, axis=-1), xp.any(other != 0, axis=-1))
    cosine = xp.sum(one * other, axis=-1)
    # Half a squared distance: 1 - cosine keeps no digit of a small angle.
    apart = 0.5 * xp.sum(xp.square(one - other), axis=-1)
    apart = xp.where(directed, apart, 1.0 - stop_gradient(cosine))  # 0, or NaN beside a zero vector
    return xp.where(target == 1, apart, positive_part(cosine - margin))


@loss(
    properties={CONVEX, lipschitz(1)},
    paper="PyTorch, torch.nn.HingeEmbeddingLoss",
)
def hinge_embedding(prediction: Real, target: Signs, *, margin: Nonnegative = 1.0) -> PerElement:
    r"""The distance of similar pairs; its shortfall from a margin of dissimilar ones.

    .. math:: \ell(d, y) = \begin{cases} d & y = 1 \\ \max(0, m - d) & y = -1 \end{cases}

    Use it when a distance of pairs, of any kind, is already computed: similar ones shall be near,
    dissimilar ones beyond the ``margin``. ``target`` is 1 or -1 (0 counts as -1). A negative
    ``prediction``, which is no distance, costs less than 0 where pairs are similar, as in PyTorch.
    """
    xp = namespace(prediction, target)
    return xp.where(target == 1, prediction, positive_part(margin - prediction))


@loss(
    properties={CONVEX, NONNEGATIVE, MONOTONE, lipschitz(2**0.5)},
    aliases=("pairwise_margin_ranking",),
    paper="Herbrich, Graepel and Obermayer, Large margin rank boundaries (2000)",
)
def margin_ranking(
    first: Real, second: Real, target: Signs, *, margin: Nonnegative = 0.0
) -> PerElement:
    r"""How far the one of two that ranks higher falls short of scoring higher by the margin.

    .. math:: \ell = \max(0,\; m - y (x_1 - x_2))

    Use it when only comparisons are known: which answer, picture or move is the better of two.
    ``target`` is 1 where ``first`` ranks higher, -1 (or 0) where ``second`` does; ``first``,
    ``second`` and ``target`` have one shape.
    """
    return positive_part(margin - signs(target) * (first - second))


def _balanced(
    score: Array, positives: Array, negatives: Array, gamma: float, margin: float
) -> Array:
    """Circle loss of each anchor (row) by its scores; 0 without a positive or a negative."""
    xp = namespace(score)
    if 0 in score.shape:  # an empty batch has no largest score
        return xp.sum(score, axis=1)
    pull = -gamma * positive_part(1.0 + margin - score) * (score - (1.0 - margin))
    push = gamma * positive_part(score + margin) * (score - margin)
    both = xp.logical_and(xp.any(positives, axis=1), xp.any(negatives, axis=1))
    here = xp.expand_dims(both, axis=1)

    def most(terms: Array, among: Array) -> Array:
        return logsumexp(xp.where(here, xp.where(among, terms, -float("inf")), 0.0), axis=1)

    return xp.where(both, softplus(most(pull, positives) + most(push, negatives)), 0.0)


def has_both(target: Array, mask: Array | None) -> Array:
    """Which anchors count: those with another of their label and one of another label."""
    xp = namespace(target)
    others, partners = pairs(target, mask)
    strangers = xp.logical_and(others, xp.logical_not(partners))
    return xp.logical_and(xp.any(partners, axis=1), xp.any(strangers, axis=1))


@loss(
    properties={NONNEGATIVE, SCALE_FREE, ORDER_FREE},
    paper="arXiv:2002.10857",
    counts=has_both,
)
def circle(
    prediction: Embeddings,
    target: Labels,
    *,
    gamma: Positive = 80.0,
    margin: Annotated[float, Interval(0, 1)] = 0.4,
    mask: Array | None = None,
    references: tuple[Array, Array] | None = None,
) -> PerAnchor:
    r"""Cosines within and between classes, each pulled the harder the further it is from its aim.

    .. math:: \ell_i = \log\Bigl(1 +
              \sum_n e^{\gamma [s_n + m]_+ (s_n - m)}
              \sum_p e^{-\gamma [1 + m - s_p]_+ (s_p - 1 + m)}\Bigr)

    Use it to learn embeddings from class labels for retrieval. ``prediction``: (samples, features)
    of any length; ``target``: (samples,) labels. s are cosines: to the others of the own
    class (p) and to those of other classes (n). A sample without one of either is 0 and does not
    count in a mean; a masked one is nobody's partner. ``references`` (embeddings, labels) take the
    batch's place as partners, all of them. The factors in brackets are differentiated too, as in
    Keras; the authors hold them constant.
    """
    xp = namespace(prediction, target)
    if references is None:
        others, positives = pairs(target, mask)
        negatives = xp.logical_and(others, xp.logical_not(positives))
        known = prediction
    else:
        known, labels = references
        positives = xp.expand_dims(target, axis=1) == xp.expand_dims(labels, axis=0)
        negatives = xp.logical_not(positives)
    score = xp.matmul(unit_rows(prediction), xp.matrix_transpose(unit_rows(known)))
    return _balanced(score, positives, negatives, gamma, margin)


def _angles(prediction: Array, target: Array, centers: Array) -> tuple[Array, Array, Array, Array]:
    """(cosines to all centers, which is the own one, cosine and sine to the own one)."""
    xp = namespace(prediction, target, centers)
    rows, axes = unit_rows(prediction), unit_rows(centers)
    cosines = xp.matmul(rows, xp.matrix_transpose(axes))
    classes = xp.astype(class_range(cosines, 1), target.dtype)
    own = classes == xp.expand_dims(target, axis=1)
    known = xp.any(own, axis=1)
    index = xp.where(known, target, xp.zeros_like(target))
    axis = xp.take(axes, index, axis=0)
    directed = xp.logical_and(xp.any(rows != 0, axis=1), xp.any(axis != 0, axis=1))
    # Half the product of the rhombus' diagonals: sqrt(1 - cosine^2) keeps no digit of small angles.
    sine = xp.where(directed, 0.5 * norm(rows - axis) * norm(rows + axis), 1.0)
    return cosines, own, xp.sum(rows * axis, axis=1), sine


def _surprise(cosines: Array, own: Array, shifted: Array, target: Array, scale: float) -> Array:
    xp = namespace(cosines)
    scores = scale * xp.where(own, xp.expand_dims(shifted, axis=1), cosines)
    return pick(-log_softmax(scores, axis=1), target, axis=1)


@loss(
    properties={NONNEGATIVE, SCALE_FREE},
    aliases=("arc_face", "additive_angular_margin"),
    paper="arXiv:1801.07698",
)
def arcface(
    prediction: Embeddings,
    target: Labels,
    centers: Weights,
    *,
    margin: Annotated[float, Interval(0, 1.5707963267948966)] = 0.5,
    scale: Positive = 64.0,
) -> PerSample:
    r"""Cross-entropy of cosines to class centers, the own center seen under a wider angle.

    .. math:: \ell = -\log \frac{e^{s \cos(\theta_y + m)}}
              {e^{s \cos(\theta_y + m)} + \sum_{k \ne y} e^{s \cos \theta_k}}

    Use it to learn embeddings whose angles tell known classes (faces, products) apart and new ones
    too. ``prediction``: (samples, features); ``target``: (samples,) classes from 0; ``centers``:
    (classes, features), learned with the network, of any length. ``margin`` in radians. An angle
    beyond pi - margin is pulled the wrong way, by the paper's formula. A zero embedding stands at
    a right angle to everything.
    """
    cosines, own, cosine, sine = _angles(prediction, target, centers)
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    return _surprise(cosines, own, shifted, target, scale)


@loss(
    properties={NONNEGATIVE, SCALE_FREE},
    aliases=("cos_face", "large_margin_cosine", "am_softmax", "additive_margin_softmax"),
    paper="arXiv:1801.09414",
)
def cosface(
    prediction: Embeddings,
    target: Labels,
    centers: Weights,
    *,
    margin: Annotated[float, Interval(0, 2)] = 0.35,
    scale: Positive = 64.0,
) -> PerSample:
    r"""Cross-entropy of cosines to class centers, the own center's lessened by a margin.

    .. math:: \ell = -\log \frac{e^{s (\cos\theta_y - m)}}
              {e^{s (\cos\theta_y - m)} + \sum_{k \ne y} e^{s \cos \theta_k}}

    Use it like ArcFace, with a margin that counts alike at every angle. ``prediction``: (samples,
    features); ``target``: (samples,) classes from 0; ``centers``: (classes, features), learned
    with the network, of any length.
    """
    cosines, own, cosine, _ = _angles(prediction, target, centers)
    return _surprise(cosines, own, cosine - margin, target, scale)
