"""Distances between embeddings: what to learn when like should lie near like."""

from __future__ import annotations

from typing import Literal

from lossary.contract import (
    NONNEGATIVE,
    SYMMETRIC,
    Array,
    Embeddings,
    Nonnegative,
    PairLabels,
    PerSample,
    Positive,
    loss,
    named,
)
from lossary.numerics import norm, positive_part
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
    close = xp.sum(apart * ((one + other) / xp.where(parts == 0, 1.0, parts)), axis=-1)
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
