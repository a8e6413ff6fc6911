"""Distances between embeddings: what to learn when like should lie near like."""

from __future__ import annotations

from typing import Annotated

from lossary.contract import (
    NONNEGATIVE,
    Array,
    Embeddings,
    Interval,
    Nonnegative,
    PairLabels,
    PerSample,
    Positive,
    loss,
    named,
)
from lossary.numerics import norm, stop_gradient
from lossary.xp import namespace


def _length(x: Array, p: float) -> Array:
    """The p-norm along the last axis; at 0 the derivative is 0."""
    xp = namespace(x)
    if p == 2:
        return norm(x)
    size = xp.abs(x)
    if p == 1:
        return xp.sum(size, axis=-1)
    scale = stop_gradient(xp.max(size, axis=-1, keepdims=True))
    scale = xp.where(xp.logical_or(scale == 0, xp.logical_not(xp.isfinite(scale))), 1.0, scale)
    nothing = size == 0
    powers = xp.where(nothing, 0.0, xp.where(nothing, 1.0, size / scale) ** p)
    total = xp.sum(powers, axis=-1)
    zero = total == 0
    root = xp.where(zero, 0.0, xp.where(zero, 1.0, total) ** (1.0 / p))
    return xp.squeeze(scale, axis=-1) * root


@loss(
    properties={NONNEGATIVE},
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
    distance = norm(difference)
    short = distance < margin
    shortfall = xp.where(short, margin - distance, 0.0)
    together = xp.sum(xp.square(difference), axis=-1)
    value = target * together + (1.0 - target) * xp.square(shortfall)
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
    p: Annotated[float, Interval(1.0)] = 2.0,
    swap: bool = False,
) -> PerSample:
    r"""How much nearer than the margin allows the negative is, against the positive.

    .. math:: \ell = \max\bigl(0,\; \lVert a - b^+ \rVert_p - \lVert a - b^- \rVert_p + m\bigr)

    Use it when you know what is more alike than what, but no absolute distance. All three are
    (triplets, features). ``p`` is the order of the norm; ``swap`` takes the nearer of the
    negative's distances to anchor and positive (Balntas 2016). Distances are true norms (PyTorch
    adds 1e-6 to every difference); where two embeddings coincide their derivative is 0.
    """
    xp = namespace(anchor, positive, negative)
    near = _length(anchor - positive, p)
    far = _length(anchor - negative, p)
    if swap:
        other = _length(positive - negative, p)
        far = xp.where(other < far, other, far)
    excess = (near - far) + margin
    return xp.where(excess > 0, excess, 0.0)
