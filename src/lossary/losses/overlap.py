"""Overlap of masks: what to predict when a region is wanted and most of the picture is background.

All four count, softly, what is found in both masks, in the prediction only (false positives) and in
the target only (false negatives), and return the share of the wrong among them. Written as a share
of the wrong, not as one minus a share of the right: a nearly perfect mask keeps its digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lossary.contract import (
    MONOTONE,
    NONNEGATIVE,
    SHIFT_INVARIANT,
    SMOOTH,
    SYMMETRIC,
    ZERO_AT_TARGET,
    Array,
    Classes,
    ClassLogits,
    Mask,
    Nonnegative,
    PerRegion,
    Positive,
    bounded,
    loss,
    named,
)
from lossary.numerics import log_one_minus_softmax, log_softmax, one_hot, pick, sigmoid
from lossary.xp import namespace

Axis = int | tuple[int, ...] | None


def _share(part: Array, rest: Array) -> Array:
    """``part / (part + rest)``; 0, with derivative 0, where both are 0.

    Divided by the larger of the two: the plain quotient's derivative cancels where ``part`` is
    nearly everything.
    """
    xp = namespace(part, rest)
    most = part > rest
    nothing = xp.logical_and(part == 0, rest == 0)
    ratio = xp.where(nothing, 0.0, xp.where(most, rest, part))
    ratio = ratio / xp.where(nothing, 1.0, xp.where(most, part, rest))
    return xp.where(most, 1.0, ratio) / (1.0 + ratio)


def _spread(mask: Array, shape: tuple[int, ...]) -> Array:
    """A mask of whole regions or of their first axes, for every place."""
    xp = namespace(mask)
    mask = xp.reshape(mask, tuple(mask.shape) + (1,) * (len(shape) - mask.ndim))
    return xp.broadcast_to(mask, shape)


def _sum(values: Array, axis: Axis, mask: Array | None) -> Array:
    """The sum over a region: all axes but the first, or ``axis``; masked places are absent."""
    xp = namespace(values)
    if mask is not None:
        shape = tuple(mask.shape) + (1,) * (values.ndim - mask.ndim)
        values = xp.where(xp.reshape(mask, shape), values, 0.0)
    return xp.sum(values, axis=tuple(range(1, values.ndim)) if axis is None else axis)


def _tversky(
    inside: Array,
    outside: Array,
    target: Array,
    *,
    alpha: float,
    beta: float,
    smooth: float,
    axis: Axis,
    mask: Array | None,
) -> Array:
    """``inside`` and ``outside`` are the probabilities of either, each with its own digits."""
    found = _sum(inside * target, axis, mask)
    false_positive = _sum(inside * (1.0 - target), axis, mask)
    false_negative = _sum(outside * target, axis, mask)
    return _share(alpha * false_positive + beta * false_negative, found + smooth)


def _focal_tversky(
    inside: Array, outside: Array, target: Array, *, gamma: float, **chosen: Any
) -> Array:
    xp = namespace(inside)
    share = _tversky(inside, outside, target, **chosen)
    # At a perfect mask the power's slope is infinite; there it is 0.
    perfect = share == 0
    return xp.where(perfect, 0.0, xp.where(perfect, 1.0, share) ** (1.0 / gamma))


def _dice(
    inside: Array,
    outside: Array,
    target: Array,
    *,
    smooth: float,
    squared: bool,
    axis: Axis,
    mask: Array | None,
) -> Array:
    if not squared:
        return _tversky(
            inside, outside, target, alpha=0.5, beta=0.5, smooth=0.5 * smooth, axis=axis, mask=mask
        )
    xp = namespace(inside)
    difference = inside * (1.0 - target) - outside * target
    apart = _sum(xp.square(difference), axis, mask)
    return _share(apart, 2.0 * _sum(inside * target, axis, mask) + smooth)


def _jaccard(inside: Array, outside: Array, target: Array, **chosen: Any) -> Array:
    return _tversky(inside, outside, target, alpha=1.0, beta=1.0, **chosen)


def _of_logits(core: Callable[..., Array]) -> dict[str, Callable[..., Array]]:
    """The same loss from logits: both probabilities keep their tails."""

    def form(
        prediction: Array, target: Array, *, mask: Array | None = None, **chosen: Any
    ) -> Array:
        return core(sigmoid(prediction), sigmoid(-prediction), target, mask=mask, **chosen)

    return {"logits": form}


@loss(
    properties={
        NONNEGATIVE,
        SYMMETRIC,
        SMOOTH.at(smooth=1.0),
        bounded(1.0),
        ZERO_AT_TARGET.at(squared=True),
    },
    aliases=(
        "soft_dice",
        "dice_coefficient",
        "binary_dice",
        "f1_overlap",
        "sorensen",
        "sorensen_dice",
        named("squared_dice", squared=True),
        named("vnet_dice", squared=True, smooth=0.0),
        named("dice_squared_pred", squared=True),
    ),
    paper="doi:10.1109/3DV.2016.79",
    forms=_of_logits(_dice),
)
def dice(
    prediction: Mask,
    target: Mask,
    *,
    smooth: Nonnegative = 1.0,
    squared: bool = False,
    axis: Axis = None,
    mask: Array | None = None,
) -> PerRegion:
    r"""One minus the Dice coefficient of two masks: twice what they share over what both hold.

    .. math:: \ell(p, y) = 1 - \frac{2 \sum_i p_i y_i + s}{\sum_i p_i + \sum_i y_i + s}

    Use it when the region is small against the picture, so that a cost per pixel would be content
    with background everywhere. ``prediction`` and ``target`` lie in [0, 1] and have one shape,
    (regions, ...); one value per region, summed over all axes but the first, or over ``axis``
    (Keras sums over everything, which is a tuple of all axes). ``smooth`` enters above and below:
    empty against empty costs 0 (Keras: 1). ``squared`` squares the terms below (Milletari 2016);
    without it a soft target, such as 0.5, is not met at 0.
    """
    return _dice(
        prediction, 1.0 - prediction, target, smooth=smooth, squared=squared, axis=axis, mask=mask
    )


@loss(
    properties={NONNEGATIVE, SYMMETRIC, SMOOTH.at(smooth=1.0), bounded(1.0)},
    aliases=("soft_jaccard", "soft_iou", "iou_mask"),
    paper="doi:10.1007/978-3-319-50835-1_22",
    forms=_of_logits(_jaccard),
)
def jaccard(
    prediction: Mask,
    target: Mask,
    *,
    smooth: Nonnegative = 1.0,
    axis: Axis = None,
    mask: Array | None = None,
) -> PerRegion:
    r"""One minus the intersection over the union of two masks.

    .. math:: \ell(p, y) = 1 - \frac{\sum_i p_i y_i + s}{\sum_i (p_i + y_i - p_i y_i) + s}

    Use it when intersection over union is what you report; it is stricter than Dice on middling
    overlap. Shapes, ``smooth`` and ``axis`` are those of Dice.
    """
    return _jaccard(prediction, 1.0 - prediction, target, smooth=smooth, axis=axis, mask=mask)


@loss(
    properties={
        NONNEGATIVE,
        SYMMETRIC.at(alpha=0.5, beta=0.5),
        SMOOTH.at(smooth=1.0),
        bounded(1.0),
    },
    aliases=("tversky_index",),
    paper="doi:10.1007/978-3-319-67389-9_44",
    forms=_of_logits(_tversky),
)
def tversky(
    prediction: Mask,
    target: Mask,
    *,
    alpha: Nonnegative = 0.5,
    beta: Nonnegative = 0.5,
    smooth: Nonnegative = 1.0,
    axis: Axis = None,
    mask: Array | None = None,
) -> PerRegion:
    r"""Overlap loss with one price for false positives and another for false negatives.

    .. math:: \ell(p, y) = 1 - \frac{\mathrm{TP} + s}
              {\mathrm{TP} + \alpha\, \mathrm{FP} + \beta\, \mathrm{FN} + s},\quad
              \mathrm{TP} = \sum_i p_i y_i,\;
              \mathrm{FP} = \sum_i p_i (1 - y_i),\;
              \mathrm{FN} = \sum_i (1 - p_i) y_i

    Use it when missing a pixel and inventing one do not cost the same: ``beta`` above ``alpha``
    favours recall. Both at 0.5 is Dice (with half its ``smooth``), both at 1 is Jaccard. Shapes and
    ``axis`` are those of Dice.
    """
    return _tversky(
        prediction,
        1.0 - prediction,
        target,
        alpha=alpha,
        beta=beta,
        smooth=smooth,
        axis=axis,
        mask=mask,
    )


@loss(
    properties={NONNEGATIVE, SYMMETRIC.at(alpha=0.5, beta=0.5), bounded(1.0)},
    aliases=("ftl",),
    paper="doi:10.1109/ISBI.2019.8759329",
    forms=_of_logits(_focal_tversky),
)
def focal_tversky(
    prediction: Mask,
    target: Mask,
    *,
    alpha: Nonnegative = 0.3,
    beta: Nonnegative = 0.7,
    gamma: Positive = 4 / 3,
    smooth: Nonnegative = 1.0,
    axis: Axis = None,
    mask: Array | None = None,
) -> PerRegion:
    r"""The Tversky loss to the power 1 / ``gamma``: regions that are nearly right still pull.

    .. math:: \ell(p, y) = \left(1 - \frac{\mathrm{TP} + s}
              {\mathrm{TP} + \alpha\, \mathrm{FP} + \beta\, \mathrm{FN} + s}\right)^{1 / \gamma}

    Use it when small regions among large ones stay badly segmented. ``alpha`` prices false
    positives and ``beta`` false negatives, as in Keras and MONAI (the paper names them the other
    way round; the defaults are its values). The exponent is the paper's 1 / gamma; others use
    gamma. At a perfect mask, where the slope is infinite, the derivative is 0.
    """
    return _focal_tversky(
        prediction,
        1.0 - prediction,
        target,
        gamma=gamma,
        alpha=alpha,
        beta=beta,
        smooth=smooth,
        axis=axis,
        mask=mask,
    )


@loss(
    properties={NONNEGATIVE, SMOOTH, SHIFT_INVARIANT, MONOTONE},
    aliases=("dice_ce", "dc_and_ce"),
    paper="doi:10.1038/s41592-020-01008-z",
)
def dice_cross_entropy(
    prediction: ClassLogits,
    target: Classes,
    *,
    dice_weight: Nonnegative = 1.0,
    smooth: Positive = 1e-5,
    background: bool = True,
    axis: int = 1,
    mask: Array | None = None,
) -> PerRegion:
    r"""Mean surprise of a region's pixels, and what its softmax masks lack in overlap.

    .. math:: \ell(z, y) = \frac{1}{n} \sum_i \Bigl(\log \sum_k e^{z_{ki}} - z_{y_i i}\Bigr)
              + \frac{w}{K} \sum_k \Bigl(1 - \frac{2 \sum_i p_{ki} [y_i = k] + s}
              {\sum_i p_{ki} + \sum_i [y_i = k] + s}\Bigr)

    Use it to segment images: the surprise gives every pixel a steady gradient, Dice sees to it that
    small classes count as much as large ones (Isensee 2021; MONAI's DiceCELoss). ``prediction`` has
    shape (regions, classes, ...), ``target`` class indices (regions, ...) or one-hot masks and
    distributions of the prediction's shape; one value per region. ``dice_weight`` is w, ``smooth``
    s; ``background=False`` leaves class 0 out of the overlap, as nnU-Net does.
    """
    xp = namespace(prediction, target)
    shape, axis = prediction.shape, axis % prediction.ndim
    places = (*shape[1:axis], *shape[axis + 1 :])

    def flat(array: Array, *axes: int) -> Array:
        return xp.reshape(array, (shape[0], *axes, math.prod(places)))

    def masks(array: Array) -> Array:
        return flat(xp.moveaxis(array, axis, 1), shape[axis])

    outside = masks(xp.exp(log_one_minus_softmax(prediction, axis=axis)))
    logarithm = log_softmax(prediction, axis=axis)
    hit = -flat(pick(logarithm, target, axis=axis))
    inside = masks(xp.exp(logarithm))
    del logarithm  # as large as the prediction
    hot = masks(one_hot(target, prediction, axis=axis))
    pixels: Array = float(math.prod(places))
    if mask is not None:
        mask = flat(_spread(mask, (shape[0], *places)))
        hit = xp.where(mask, hit, 0.0)
        pixels = xp.sum(xp.astype(mask, hit.dtype), axis=1)
        pixels = xp.where(pixels == 0, 1.0, pixels)
        mask = mask[:, None, :]
    outside = _sum(outside * hot, 2, mask) + _sum(inside * (1.0 - hot), 2, mask)
    inside = 2.0 * _sum(inside * hot, 2, mask) + smooth
    del hot  # as large too, and so are sums over regions of one pixel
    share = _share(outside, inside)[:, 0 if background else 1 :]
    return xp.sum(hit, axis=1) / pixels + dice_weight * xp.mean(share, axis=1)
