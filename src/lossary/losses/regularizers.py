"""Prices on weights and images themselves, to be added to a cost: one number, no target.

How strongly they pull is the factor they get in an ``Objective``.
"""

from __future__ import annotations

import math
from typing import Literal

from lossary.contract import (
    CONVEX,
    EVEN,
    NONNEGATIVE,
    SMOOTH,
    Array,
    Image,
    LossError,
    Nonnegative,
    PerRegion,
    PerTensor,
    Weights,
    loss,
    named,
)
from lossary.numerics import stop_gradient
from lossary.xp import device, namespace


@loss(
    properties={CONVEX, NONNEGATIVE, EVEN},
    aliases=("l1_regularizer", "l1_penalty", "lasso"),
    paper="doi:10.1111/j.2517-6161.1996.tb02080.x",
)
def l1_regularization(weight: Weights) -> PerTensor:
    r"""The sum of absolute weights.

    .. math:: \Omega(w) = \sum_i |w_i|

    Use it when most weights should become exactly 0. ``weight`` has any shape.
    """
    xp = namespace(weight)
    return xp.sum(xp.abs(weight))


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE, EVEN},
    aliases=("l2_regularizer", "l2_penalty", "weight_decay", "ridge"),
    paper="doi:10.1080/00401706.1970.10488634",
)
def l2_regularization(weight: Weights, *, half: bool = False) -> PerTensor:
    r"""The sum of squared weights.

    .. math:: \Omega(w) = \sum_i w_i^2

    Use it to keep weights small without setting any to 0. ``weight`` has any shape. ``half`` halves
    it, so that the derivative is the weight itself (weight decay under plain gradient descent).
    """
    xp = namespace(weight)
    value = xp.sum(xp.square(weight))
    return 0.5 * value if half else value


@loss(
    properties={CONVEX, NONNEGATIVE, EVEN},
    aliases=("l1_l2_regularization", "l1_l2", "l1l2"),
    paper="doi:10.1111/j.1467-9868.2005.00503.x",
)
def elastic_net(weight: Weights, *, l1: Nonnegative = 0.01, l2: Nonnegative = 0.01) -> PerTensor:
    r"""Absolute and squared weights together, each at its own price.

    .. math:: \Omega(w) = \lambda_1 \sum_i |w_i| + \lambda_2 \sum_i w_i^2

    Use it where L1 alone would keep one of several like inputs and drop the rest. ``weight`` has
    any shape; ``l1`` and ``l2`` are the prices, with Keras' defaults.
    """
    return l1 * l1_regularization(weight) + l2 * l2_regularization(weight)


@loss(
    properties={SMOOTH, NONNEGATIVE, EVEN},
    aliases=("orthogonality", "soft_orthogonality", "so", named("dso", mode="both")),
    paper="arXiv:1810.09102",
)
def orthogonal_regularization(
    weight: Weights, *, mode: Literal["columns", "rows", "both"] = "columns"
) -> PerTensor:
    r"""Squared distance of a matrix's inner products from those of orthonormal vectors.

    .. math:: \Omega(W) = \lVert W^\top W - I \rVert_F^2

    Use it to keep the units of a layer from learning the same, and gradients from fading in depth.
    ``weight`` is a matrix; of more than two axes all but the first are flattened. ``mode`` says
    what shall be orthonormal: the columns, the rows (then it is W W'), or both (Bansal 2018: DSO).
    """
    xp = namespace(weight)
    if weight.ndim < 2:
        shape = tuple(weight.shape)
        raise LossError(f"orthogonal_regularization: weight has shape {shape}, expected a matrix")
    matrix = xp.reshape(weight, (weight.shape[0], math.prod(weight.shape[1:])))
    turned = xp.matrix_transpose(matrix)
    if mode == "both":
        return _from_identity(xp.matmul(turned, matrix)) + _from_identity(xp.matmul(matrix, turned))
    gram = xp.matmul(turned, matrix) if mode == "columns" else xp.matmul(matrix, turned)
    return _from_identity(gram)


def _from_identity(gram: Array) -> Array:
    xp = namespace(gram)
    index = xp.arange(gram.shape[0], device=device(gram))
    diagonal = xp.expand_dims(index, axis=0) == xp.expand_dims(index, axis=1)
    return xp.sum(xp.square(gram - xp.astype(diagonal, gram.dtype)))


@loss(
    properties={CONVEX, NONNEGATIVE, EVEN, SMOOTH.at(norm="l2_squared")},
    aliases=(
        "tv",
        named("anisotropic_tv", norm="l1"),
        named("isotropic_tv", norm="l2"),
    ),
    paper="doi:10.1016/0167-2789(92)90242-F",
)
def total_variation(image: Image, *, norm: Literal["l1", "l2", "l2_squared"] = "l1") -> PerRegion:
    r"""How much each pixel differs from its next neighbours, summed over the image.

    .. math:: \Omega(x) = \sum_{i,j} |x_{i+1,j} - x_{i,j}| + |x_{i,j+1} - x_{i,j}|

    Use it to take noise out of an image and leave its edges. ``image``: (batch, channels, d1[,
    d2[, d3]]); one value per image. ``norm`` joins the differences of a pixel along the axes:
    ``l1`` their absolute values, ``l2`` their Euclidean length (isotropic; a pixel at the far
    border has no next), ``l2_squared`` their squares. This is a sum (as in kornia); others divide
    by the number of pixels.
    """
    xp = namespace(image)
    steps = [_step(image, axis) for axis in range(2, image.ndim)]
    if norm == "l2":
        return _total(_lengths(steps, image))
    size = xp.abs if norm == "l1" else xp.square
    value = _total(size(steps[0]))
    for step in steps[1:]:
        value = value + _total(size(step))
    return value


def _step(image: Array, axis: int) -> Array:
    """Next minus this along ``axis``."""
    before = (slice(None),) * axis
    return image[(*before, slice(1, None))] - image[(*before, slice(None, -1))]


def _lengths(steps: list[Array], image: Array) -> Array:
    """The Euclidean length of each pixel's steps, those over the border being 0.

    ``numerics.norm`` of all steps in one array would hold that array four times.
    """
    xp = namespace(image)
    whole = []
    for axis, step in enumerate(steps, start=2):
        border = xp.zeros_like(image[(*(slice(None),) * axis, slice(0, 1))])
        whole.append(xp.concat([step, border], axis=axis))
    scale = stop_gradient(xp.abs(whole[0]))
    for step in whole[1:]:
        scale = xp.maximum(scale, stop_gradient(xp.abs(step)))
    flat = scale == 0
    scale = xp.where(flat, 1.0, scale)
    square = xp.square(whole.pop() / scale)
    while whole:
        square = square + xp.square(whole.pop() / scale)
    return scale * xp.where(flat, 0.0, xp.sqrt(xp.where(flat, 1.0, square)))


def _total(values: Array) -> Array:
    return namespace(values).sum(values, axis=tuple(range(1, values.ndim)))
