"""Contrast within a batch: pick the own partner out of everything else in the batch."""

from __future__ import annotations

from lossary.contract import (
    NONNEGATIVE,
    ORDER_FREE,
    SCALE_FREE,
    SYMMETRIC,
    Array,
    Embeddings,
    Labels,
    Number,
    PerAnchor,
    Positive,
    loss,
    named,
)
from lossary.numerics import log_softmax, mean_where, pairs, softplus, unit_rows
from lossary.xp import namespace


def _surprise(scores: Array, candidates: Array) -> Array:
    """``-log softmax`` along the last axis among the candidates, infinite elsewhere.

    A row without candidates is 0 and has no derivative.
    """
    xp = namespace(scores)
    if 0 in scores.shape:  # an empty batch has no largest score
        return scores
    some = xp.any(candidates, axis=-1, keepdims=True)
    possible = xp.where(candidates, scores, -float("inf"))
    return -log_softmax(xp.where(some, possible, 0.0))


def _scores(queries: Array, keys: Array, temperature: float) -> Array:
    """Cosine similarities over the temperature, (queries, keys)."""
    xp = namespace(queries, keys)
    sharp = unit_rows(queries) / temperature
    return xp.matmul(sharp, xp.matrix_transpose(unit_rows(keys)))


def _own(scores: Array) -> Array:
    """True on the diagonal."""
    xp = namespace(scores)
    # Not arange: in a graph the number of rows may not be known yet.
    index = xp.cumulative_sum(xp.sum(xp.ones_like(scores), axis=1), axis=0)
    return xp.expand_dims(index, axis=1) == xp.expand_dims(index, axis=0)


def has_partner(target: Array, mask: Array | None) -> Array:
    """Which anchors count: those with another of their label in the batch."""
    if mask is not None or 0 in tuple(target.shape):  # no first one to begin with
        return namespace(target).any(pairs(target, mask)[1], axis=1)
    # Sorted, the others of a label stand beside: no square of comparisons.
    xp = namespace(target)
    order = xp.argsort(target)
    ordered = xp.take(target, order, axis=0)
    beside, end = ordered[1:] == ordered[:-1], ordered[:1] != ordered[:1]
    found = xp.logical_or(xp.concat([beside, end], axis=0), xp.concat([end, beside], axis=0))
    return xp.take(found, xp.argsort(order), axis=0)


@loss(
    properties={NONNEGATIVE, SCALE_FREE, ORDER_FREE, SYMMETRIC.at(symmetric=True)},
    aliases=(
        "infonce",
        "multiple_negatives_ranking",
        "in_batch_softmax",
        "cpc",
        "npair_cosine",
        named("symmetric_infonce", symmetric=True),
        named("multiple_negatives_symmetric_ranking", symmetric=True),
        named("clip_contrastive", symmetric=True, temperature=0.07),
        named("clip_loss", symmetric=True, temperature=0.07),
        named("image_text_contrastive", symmetric=True, temperature=0.07),
    ),
    paper="arXiv:1807.03748",
)
def info_nce(
    queries: Embeddings,
    keys: Embeddings,
    *,
    temperature: Positive = 0.05,
    symmetric: bool = False,
    mask: Array | None = None,
) -> PerAnchor:
    r"""Surprise at each query's own key among all keys of the batch, by cosine similarity.

    .. math:: \ell_i = -\log \frac{e^{s(q_i, k_i) / \tau}}{\sum_j e^{s(q_i, k_j) / \tau}}

    Use it when things come in pairs (question and answer, picture and caption) and any other pair's
    partner is wrong. Both are (pairs, features), row by row a pair. ``symmetric`` averages it with
    the surprise at each key's own query (Radford 2021, CLIP). A masked pair is no candidate either.
    A zero vector is equally like everything.
    """
    xp = namespace(queries, keys)
    scores = _scores(queries, keys, temperature)
    own = _own(scores)
    known = xp.ones_like(own) if mask is None else xp.logical_or(mask, own)
    value = xp.sum(xp.where(own, _surprise(scores, known), 0.0), axis=1)
    if not symmetric:
        return value
    back = _surprise(xp.matrix_transpose(scores), known)
    return 0.5 * (value + xp.sum(xp.where(own, back, 0.0), axis=1))


@loss(
    properties={NONNEGATIVE, SCALE_FREE, ORDER_FREE, SYMMETRIC},
    aliases=("ntxent", "simclr", "normalized_temperature_crossentropy"),
    paper="arXiv:2002.05709",
)
def nt_xent(
    first: Embeddings,
    second: Embeddings,
    *,
    temperature: Positive = 0.5,
    mask: Array | None = None,
) -> PerAnchor:
    r"""Surprise at the other view of the same thing among all other views of the batch.

    .. math:: \ell_{ij} = -\log \frac{e^{s_{ij} / \tau}}{\sum_{k \ne i} e^{s_{ik} / \tau}}

    Use it to learn embeddings without labels from two views (crops, noises) of everything. Both are
    (things, features), row by row the two views of a thing. Every view is an anchor once; the value
    of a thing is the mean of its two, so their mean is the paper's over 2N. (Optax takes labels
    instead: that is ``supervised_contrastive``.) A masked thing is no candidate either.
    """
    xp = namespace(first, second)
    views = xp.concat([first, second], axis=0)
    scores = _scores(views, views, temperature)
    # Not arange: in a graph the number of rows may not be known yet.
    one = xp.ones_like(first[:, 0])
    thing = xp.cumulative_sum(one, axis=0)
    things, sides = xp.concat([thing, thing], axis=0), xp.concat([one, -one], axis=0)
    same = xp.expand_dims(things, axis=1) == xp.expand_dims(things, axis=0)
    across = xp.expand_dims(sides, axis=1) != xp.expand_dims(sides, axis=0)
    candidates = xp.logical_or(across, xp.logical_not(same))
    partner = xp.logical_and(across, same)
    if mask is not None:
        known = xp.expand_dims(xp.concat([mask, mask], axis=0), axis=0)
        candidates = xp.logical_and(candidates, xp.logical_or(known, partner))
    value = xp.sum(xp.where(partner, _surprise(scores, candidates), 0.0), axis=1)
    return xp.mean(xp.reshape(value, (2, -1)), axis=0)


@loss(
    properties={NONNEGATIVE, SCALE_FREE, ORDER_FREE},
    aliases=("supcon", "sup_con"),
    paper="arXiv:2004.11362",
    counts=has_partner,
)
def supervised_contrastive(
    prediction: Embeddings,
    target: Labels,
    *,
    temperature: Positive = 0.07,
    mask: Array | None = None,
) -> PerAnchor:
    r"""Mean surprise at the others of the own class among all others of the batch.

    .. math:: \ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
              \log \frac{e^{s_{ip} / \tau}}{\sum_{a \ne i} e^{s_{ia} / \tau}}

    Use it to learn embeddings from class labels, before a linear classifier. ``prediction``:
    (samples, features); ``target``: (samples,) labels. A sample alone in its class is 0 and does
    not count in a mean; a masked one is no candidate either. ``temperature`` is that of the
    authors' code (their text uses 0.1).
    """
    scores = _scores(prediction, prediction, temperature)
    others, partners = pairs(target, mask)
    return mean_where(_surprise(scores, others), partners, axis=1)


@loss(
    properties={NONNEGATIVE, SCALE_FREE, ORDER_FREE},
    aliases=("sigmoid_contrastive", "sigmoid_loss_language_image"),
    paper="arXiv:2303.15343",
)
def siglip(
    queries: Embeddings,
    keys: Embeddings,
    *,
    scale: Positive = 10.0,
    bias: Number = -10.0,
    mask: Array | None = None,
) -> PerAnchor:
    r"""Surprise at each pair of the batch: do these two belong together or not.

    .. math:: \ell_i = \sum_j \log\bigl(1 + e^{-y_{ij} (a\, s(q_i, k_j) + b)}\bigr),
              \quad y_{ij} = 1 \text{ if } i = j \text{ else } -1

    Use it like InfoNCE when batches are large or spread over devices: no sum over the batch stands
    inside a logarithm. Both are (pairs, features), row by row a pair; s is the cosine. The paper
    learns ``scale`` (a) and ``bias`` (b) from the defaults here, where ``bias`` outweighs that all
    pairs but one are strangers; a ``Loss`` holds them as numbers, so learned ones go to this
    function, or without the matrix of all scores to ``lossary.kernels.chunked.siglip``. The mean
    over queries is the paper's. A masked pair is nobody's.
    """
    xp = namespace(queries, keys)
    scores = xp.matmul(scale * unit_rows(queries), xp.matrix_transpose(unit_rows(keys))) + bias
    own = _own(scores)
    value = softplus(xp.where(own, -scores, scores))
    if mask is not None:
        value = xp.where(xp.logical_or(mask, own), value, 0.0)
    return xp.sum(value, axis=1)
