"""Likeness of images as eyes see it: local brightness, contrast and structure.

All compare ``prediction`` and ``target`` of shape (batch, channels, d1[, d2[, d3]]) through
Gaussian windows that lie wholly inside the image, and return one value per image, the mean over
channels and windows. With ``d = x - y`` the two factors of SSIM have the complements

    1 - luminance = mean(d)^2 / (mean(x)^2 + mean(y)^2 + C1)
    1 - structure = var(d)    / (var(x)    + var(y)    + C2)

so the loss of nearly equal images keeps all its digits, which ``1 - SSIM`` loses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lossary.contract import (
    NONNEGATIVE,
    SMOOTH,
    SYMMETRIC,
    ZERO_AT_TARGET,
    Array,
    Image,
    LossError,
    PerRegion,
    Positive,
    PositiveInteger,
    PositiveNumbers,
    UnitInterval,
    bounded,
    loss,
    named,
)
from lossary.xp import namespace


def _gaussian(window: int, sigma: float) -> list[float]:
    """The weights of a window along one axis; they sum to 1."""
    middle = (window - 1) / 2
    places = [(place - middle) / sigma for place in range(window)]
    weights = [math.exp(-0.5 * place * place) for place in places]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _shifts(x: Array, axis: int, window: int) -> list[Array]:
    """``x`` as the first, second, ... place of every window along ``axis`` sees it."""
    before, count = (slice(None),) * axis, x.shape[axis] - window + 1
    return [x[(*before, slice(place, place + count))] for place in range(window)]


def _average(places: Sequence[Array], weights: Sequence[float]) -> Array:
    """The weighted mean of every window, whose places ``_shifts`` gives."""
    total = weights[0] * places[0]
    for weight, shifted in zip(weights[1:], places[1:], strict=True):
        total = total + weight * shifted
    return total


def _moments(x: Array, weights: Sequence[float]) -> tuple[Array, Array]:
    """Mean and variance in every window.

    Axis by axis, by the law of total variance: the mean of the variances plus the variance of the
    means. A sum of squares, so nothing cancels; the mean square minus the squared mean would lose
    every digit where the image is smooth.
    """
    xp = namespace(x)
    mean, variance = x, None
    for axis in range(2, x.ndim):
        places = _shifts(mean, axis, len(weights))
        mean = _average(places, weights)
        if variance is not None:
            variance = _average(_shifts(variance, axis, len(weights)), weights)
        for weight, shifted in zip(weights, places, strict=True):
            term = weight * xp.square(shifted - mean)
            variance = term if variance is None else variance + term
    return mean, variance


def _complements(
    x: Array, y: Array, d: Array, weights: Sequence[float], c1: float, c2: float
) -> tuple[Array, Array]:
    """1 - luminance and 1 - structure in every window; ``d`` is ``x - y``."""
    xp = namespace(x)
    mean_x, variance_x = _moments(x, weights)
    mean_y, variance_y = _moments(y, weights)
    brightness = xp.square(mean_x) + xp.square(mean_y) + c1
    contrast = variance_x + variance_y + c2
    del mean_x, mean_y, variance_x, variance_y
    shift, residual = _moments(d, weights)
    return xp.square(shift) / brightness, residual / contrast


def _both(one: Array, other: Array) -> Array:
    """The complement of a product from the complements of its factors."""
    return one + (1.0 - one) * other


def _mean(x: Array, first: int = 1) -> Array:
    """The mean over all axes from ``first`` on."""
    return namespace(x).mean(x, axis=tuple(range(first, x.ndim)))


def _fits(x: Array, least: int, loss_name: str, change: str) -> None:
    shape = tuple(x.shape)
    if min(shape[2:]) < least:
        raise LossError(
            f"{loss_name}: prediction has shape {shape}, but its windows need at least {least} "
            f"pixels along each axis; {change}"
        )


@loss(
    properties={NONNEGATIVE, SMOOTH, SYMMETRIC, ZERO_AT_TARGET, bounded(2.0)},
    aliases=(
        "structural_similarity",
        "structural_similarity_index",
        "ssim3d",
        named("dssim", half=True),
    ),
    paper="doi:10.1109/TIP.2003.819861",
)
def ssim(
    prediction: Image,
    target: Image,
    *,
    window: PositiveInteger = 11,
    sigma: Positive = 1.5,
    k1: Positive = 0.01,
    k2: Positive = 0.03,
    data_range: Positive = 1.0,
    half: bool = False,
) -> PerRegion:
    r"""One minus the structural similarity of two images.

    .. math:: \ell(x, y) = 1 - \frac{(2 \mu_x \mu_y + C_1)(2 \sigma_{xy} + C_2)}
              {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)},\quad
              C_i = (k_i L)^2

    Use it when a restored image shall look right rather than be right pixel by pixel. Images:
    (batch, channels, d1[, d2[, d3]]), one to three spatial axes; one value per image. ``window`` is
    the width of the Gaussian window in pixels and ``sigma`` its deviation; windows do not leave the
    image (as in the paper and piq; kornia pads). ``data_range`` is L, the largest possible value
    minus the least. ``half`` halves it (DSSIM; kornia).
    """
    _fits(prediction, window, "ssim", "use a smaller window")
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    value = _mean(
        _both(
            *_complements(prediction, target, prediction - target, _gaussian(window, sigma), c1, c2)
        )
    )
    return 0.5 * value if half else value


def _halve(x: Array) -> Array:
    """The mean of every two neighbours along each spatial axis; an odd one out is dropped."""
    for axis in range(2, x.ndim):
        before, whole = (slice(None),) * axis, x.shape[axis] // 2 * 2
        x = 0.5 * (x[(*before, slice(0, whole, 2))] + x[(*before, slice(1, whole, 2))])
    return x


@loss(
    properties={NONNEGATIVE, SYMMETRIC, ZERO_AT_TARGET, bounded(1.0)},
    aliases=(
        "multi_scale_ssim",
        "multiscale_ssim",
        "multi_scale_structural_similarity",
        "multiscale_structural_similarity",
    ),
    paper="doi:10.1109/ACSSC.2003.1292216",
)
def ms_ssim(
    prediction: Image,
    target: Image,
    *,
    scale_weights: PositiveNumbers = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
    window: PositiveInteger = 11,
    sigma: Positive = 1.5,
    k1: Positive = 0.01,
    k2: Positive = 0.03,
    data_range: Positive = 1.0,
) -> PerRegion:
    r"""One minus the structural similarity over several scales, each half as fine as the last.

    .. math:: \ell(x, y) = 1 - l_M^{\beta_M} \prod_{j=1}^{M} \overline{cs}_j^{\,\beta_j}

    Use it when the distance from which the image is seen is not known. Images: (batch, channels,
    d1[, d2[, d3]]); one value per image, the mean over channels. At scale j the structure cs is
    averaged over the windows; at the last scale, its product with the luminance l. Between scales
    neighbours are averaged two by two. ``scale_weights`` are the exponents, finest first; a scale
    less makes do with images half as large. Where the mean structure of a scale is not positive the
    product is 0, without derivative (as in piq). Other parameters are those of SSIM.
    """
    levels = len(scale_weights)
    least = (window - 1) * 2 ** (levels - 1) + 2 ** (levels - 1)
    _fits(prediction, least, "ms_ssim", "give fewer scale_weights or a smaller window")
    xp = namespace(prediction, target)
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    weights = _gaussian(window, sigma)
    x, y, d = prediction, target, prediction - target
    # The product's logarithm: 1 - product is then exact where every factor is nearly 1.
    logarithm, dead = 0.0, None
    for level, exponent in enumerate(scale_weights):
        luminance, structure = _complements(x, y, d, weights, c1, c2)
        last = level == levels - 1
        lacking = _mean(_both(luminance, structure) if last else structure, 2)
        none = lacking >= 1.0
        dead = none if dead is None else xp.logical_or(dead, none)
        logarithm = logarithm + exponent * xp.log1p(-xp.where(none, 0.0, lacking))
        if not last:
            x, y, d = _halve(x), _halve(y), _halve(d)
    return _mean(xp.where(dead, 1.0, -xp.expm1(logarithm)))


@loss(
    properties={NONNEGATIVE, SYMMETRIC, ZERO_AT_TARGET, bounded("1 + alpha")},
    aliases=("zhao_mix", "mix", "ms_ssim_gaussian_l1"),
    paper="doi:10.1109/TCI.2016.2644865",
)
def ms_ssim_l1(
    prediction: Image,
    target: Image,
    *,
    alpha: UnitInterval = 0.84,
    sigmas: PositiveNumbers = (0.5, 1.0, 2.0, 4.0, 8.0),
    window: PositiveInteger = 33,
    k1: Positive = 0.01,
    k2: Positive = 0.03,
    data_range: Positive = 1.0,
) -> PerRegion:
    r"""Structural similarity over several window sizes, mixed with the windowed absolute error.

    .. math:: \ell(x, y) = \alpha \Bigl(1 - l_M \prod_{j=1}^{M} cs_j\Bigr)
              + (1 - \alpha)\, G_{\sigma_M} * |x - y|

    Use it to restore images (noise, missing colours, compression): structural similarity alone may
    shift brightness, the absolute error holds it (Zhao 2017). Images: (batch, channels, d1[, d2[,
    d3]]); one value per image, the mean over channels and windows. All windows are ``window`` wide
    and at full resolution, with deviations ``sigmas``, the last for luminance and absolute error.
    The paper takes one window per patch: ``window`` as wide as the patch. ``alpha`` is the paper's
    0.84 (its released layer: 0.025). With ``alpha=1`` it is the paper's MS-SSIM.
    """
    _fits(prediction, window, "ms_ssim_l1", "use a smaller window")
    xp = namespace(prediction, target)
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    difference = prediction - target
    lacking = None
    for sigma in sigmas:
        weights = _gaussian(window, sigma)
        luminance, structure = _complements(prediction, target, difference, weights, c1, c2)
        lacking = structure if lacking is None else _both(lacking, structure)
    lacking = _both(lacking, luminance)
    error = xp.abs(difference)
    for axis in range(2, error.ndim):
        error = _average(_shifts(error, axis, window), weights)
    return _mean(alpha * lacking + (1.0 - alpha) * error)
