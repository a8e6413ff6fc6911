# ruff: noqa: F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""One row of a loss of pairs: by the cosine, or by the distance."""

from __future__ import annotations

import math


def moments(a, b, unused, count):
    """Squared lengths, and the inner product."""
    full_width()
    one, other, both = 0.0, 0.0, 0.0
    for i in range(count):
        x, y = float64(a[i]), float64(b[i])
        one += x * x
        other += y * y
        both += x * y
    return one, other, both


def distance(a, b, unused, count):
    """The squared distance."""
    full_width()
    total = 0.0
    for i in range(count):
        x = float64(a[i]) - float64(b[i])
        total += x * x
    return total, 0.0, 0.0


def chord(a, b, length, other_length, count):
    """The squared distance of the unit vectors, times both squared lengths."""
    full_width()
    total = 0.0
    for i in range(count):
        x = cross(float64(a[i]), float64(b[i]), length, other_length)
        total += x * x
    return total


def cross(a, b, length, other_length):
    """One number's difference; its products are rounded alike, so parallel axes differ by 0."""
    always_inline()
    return a * other_length - b * length


def turns(a, b, to_a, to_b, count, one, other, near, rest, pull, other_pull):
    """b/|b| - cosine a/|a| times ``pull``, and the other way round; cosine = near - rest."""
    full_width()
    for i in range(count):
        x, y = float64(a[i]) * one, float64(b[i]) * other
        to_a[i] = real(((y - near * x) + rest * x) * pull)
        to_b[i] = real(((x - near * y) + rest * y) * other_pull)


def largest(a, count):
    """The largest |a|, NaN on top."""
    full_width()
    most = integer(0)
    for i in range(count):
        pattern = bits(absolute(a[i]))
        most = pattern if pattern > most else most
    return from_bits(most)


def along_own_axis(a, b, to_a, count, square, other, pull):
    """The slope along the axis that dominates ``a``, if one does, without cancellation."""
    most = largest(a, count)
    if float64(most) * float64(most) > 0.5 * square:
        k = 0
        while absolute(a[k]) != most:
            k += 1
        x, _, u = measure(a, b, a, k)
        y, _, v = measure(past(a, k + 1), past(b, k + 1), past(a, k + 1), count - k - 1)
        across = float64(b[k]) * (x + y) - float64(a[k]) * (u + v)
        to_a[k] = real(across / square * other * pull)


def finite(x):
    """``x``, or the largest number: it will be multiplied by what may be 0."""
    always_inline()
    return math.copysign(LARGEST, x) if absolute(x) == infinity else x


def cosine_embedding(a, b, c, to_a, to_b, unused, count, margin, portion):
    """One row's value; its slopes times ``portion``."""
    square, other_square, inner = measure(a, b, a, count)
    similar = c[0] == one
    if within(square) and within(other_square):
        return cosine_measured(
            a, b, to_a, to_b, count, square, other_square, inner, 1.0, 1.0, similar, margin, portion
        )
    line = 8 * count
    borrowed = borrow(2 * line)
    x, y = reals_at(borrowed), reals_at(borrowed + line)
    scale, other_scale = directed(a, x, count), directed(b, y, count)
    square, other_square, inner = measure(x, y, x, count)
    value = cosine_measured(
        x, y, to_a, to_b, count, square, other_square, inner, scale, other_scale, similar, margin,
        portion,
    )  # fmt: skip
    give_back(borrowed)
    return value


def directed(a, into, count):
    """A vector of the same direction, of everyday length; its scale. One infinity is an axis."""
    most, infinities = 0.0, 0
    for i in range(count):
        size = absolute(float64(a[i]))
        most = size if size > most else most
        infinities += size == infinity
    scale = scale_of(most)
    for i in range(count):
        size = absolute(a[i])
        into[i] = real(float64(a[i]) * scale)
        if infinities > 0 and size == size:
            into[i] = math.copysign(one, a[i]) if size == infinity else zero
    if infinities > 1:
        into[0] = real(math.nan)
    return 0.0 if infinities > 0 else scale


def cosine_measured(
    a, b, to_a, to_b, count, square, other_square, inner, scale, other_scale, similar, margin,
    portion,
):  # fmt: skip
    """The same of vectors that are ``scale`` times as long."""
    length, other_length = math.sqrt(square), math.sqrt(other_square)
    direct = square != 0.0 and other_square != 0.0
    by, other_by = (1.0 / length, 1.0 / other_length) if direct else (0.0, 0.0)
    cosine = inner / (length * other_length) if direct else inner
    cosine = 1.0 if cosine > 1.0 else (-1.0 if cosine < -1.0 else cosine)
    apart = 1.0 - cosine
    if similar and apart < CLOSE:
        apart = 0.5 * chord(a, b, length, other_length, count) / (square * other_square)
    value = apart if similar else cosine - margin
    if not similar and value <= 0.0:
        value, direct = 0.0, False
    if GRADIENT:
        if not direct and value == value:
            blank(to_a, count)
            blank(to_b, count)
            return value
        portion = -portion if similar else portion
        portion = portion if value == value else value  # NaN is not hidden
        pull = finite(portion * by * scale)
        other_pull = finite(portion * other_by * other_scale)
        near, rest = (1.0, apart) if cosine > 0.5 else (0.0, -cosine)
        turns(a, b, to_a, to_b, count, by, other_by, near, rest, pull, other_pull)
        if 1.0 - absolute(cosine) < CLOSE:
            along_own_axis(a, b, to_a, count, square, other_by, pull)
            along_own_axis(b, a, to_b, count, other_square, by, other_pull)
    return value


def pushes(a, b, to_a, to_b, count, pull):
    """The difference times ``pull``, both ways."""
    full_width()
    for i in range(count):
        slope = real((float64(a[i]) - float64(b[i])) * pull)
        to_a[i] = slope
        to_b[i] = -slope


def contrastive(a, b, c, to_a, to_b, unused, count, margin, portion):
    """One row's value; its slopes times ``portion``."""
    square, _, _ = measure(a, b, a, count)
    label = float64(c[0])
    if within(square) or not DOUBLE:
        return contrastive_measured(a, b, to_a, to_b, count, square, 1.0, label, margin, portion)
    scale = scale_of(farthest(a, b, count))
    line = 8 * count
    borrowed = borrow(2 * line)
    x, y = doubles_at(borrowed), doubles_at(borrowed + line)
    for i in range(count):  # the second in the origin
        x[i], y[i] = (a[i] - b[i]) * scale, 0.0
    square, _, _ = measure(x, y, x, count)
    value = contrastive_measured(
        x, y, to_a, to_b, count, square, 1.0 / scale, label, margin, portion
    )
    give_back(borrowed)
    return value


def contrastive_measured(a, b, to_a, to_b, count, square, unit, label, margin, portion):
    """The same of vectors in units of ``unit``."""
    length = math.sqrt(square)
    away = length * unit
    short = margin - away
    short = 0.0 if short <= 0.0 else short
    together = square if unit == 1.0 else away * away
    if label == 0.0 and away < infinity:  # also where its square overflows
        together = 0.0
    value = label * together + (1.0 - label) * (short * short)
    share = 0.5 if HALF else 1.0
    if GRADIENT:
        push = 0.0 if length == 0.0 else (1.0 - label) * (short / length)
        pull = (2.0 * share) * (label * unit - push) * portion
        pushes(a, b, to_a, to_b, count, pull if value == value else value)
    return share * value
