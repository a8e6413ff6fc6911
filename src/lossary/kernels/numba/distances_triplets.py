# ruff: noqa: F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""One row of the triplet loss: anchor, positive and negative."""

from __future__ import annotations

import math


def sides(a, p, n, count):
    """Squared distances from the anchor to both, and between these."""
    full_width()
    near, far, between = 0.0, 0.0, 0.0
    for i in range(count):
        x = float64(a[i]) - float64(p[i])
        y = float64(a[i]) - float64(n[i])
        near += x * x
        far += y * y
        if SWAP:
            z = float64(n[i]) - float64(p[i])
            between += z * z
    return near, far, between


def lengths(a, p, n, count):
    """The same of absolute differences."""
    full_width()
    near, far, between = 0.0, 0.0, 0.0
    for i in range(count):
        near += absolute(float64(a[i]) - float64(p[i]))
        far += absolute(float64(a[i]) - float64(n[i]))
        if SWAP:
            between += absolute(float64(n[i]) - float64(p[i]))
    return near, far, between


def excesses(a, p, n, count):
    """How much longer the first distance is: what its measure has more of, number by number."""
    full_width()
    more = 0.0
    for i in range(count):
        more += excess(float64(a[i]), float64(p[i]), float64(n[i]))
    return more, 0.0, 0.0


def excess(a, p, n):
    """One number's part in it. Differences are not reordered, and equal parts add up to 0."""
    always_inline()
    x, y, apart = a - p, a - n, n - p
    if CITY:
        same = (x > 0.0) == (y > 0.0)
        signed = apart if same else x + y
        return signed if x > 0.0 else -signed
    return apart * (x + y)


def zero_or(x, size):
    """``size`` with the sign of x, 0 where x is 0."""
    always_inline()
    signed = size if x > 0.0 else -size
    return 0.0 if x == 0.0 else signed


def pulls(a, p, n, to_anchor, to_positive, to_negative, count, near, apart, less, far, own):
    """Slopes, from the shares of the three differences in the anchor's, and their own."""
    full_width()
    for i in range(count):
        x = float64(a[i]) - float64(p[i])
        y = float64(a[i]) - float64(n[i])
        z = float64(n[i]) - float64(p[i])
        if CITY:
            x = zero_or(x, near)
            y = zero_or(y, near)
            to_anchor[i] = real(x - y)
            to_positive[i] = real(-x)
            to_negative[i] = real(y)
        else:
            to_anchor[i] = real((x * near + z * apart) - y * less)
            to_positive[i] = real(-(x * own))
            to_negative[i] = real(y * far)


def triplet(a, p, n, to_a, to_p, to_n, count, margin, portion):
    """One row's value; its slopes times ``portion``."""
    near, far, between = measure(a, p, n, count)
    held = within(near) and within(far) and (within(between) or not SWAP)
    if DOUBLE and not CITY and not held:
        return triplet_of_any_size(a, p, n, to_a, to_p, to_n, count, margin, portion)
    if SWAP and between < far < infinity:  # the positive takes the anchor's part
        return triplet_measured(
            p, a, n, to_p, to_a, to_n, count, near, between, 1.0, 1.0, margin, portion
        )
    return triplet_measured(a, p, n, to_a, to_p, to_n, count, near, far, 1.0, 1.0, margin, portion)


def triplet_measured(
    a, p, n, to_a, to_p, to_n, count, near, far, unit, far_unit, margin, portion
):  # fmt: skip
    """The same with the distances in units of ``unit`` and ``far_unit``."""
    if not CITY:
        near, far = math.sqrt(near), math.sqrt(far)
    both, gap = near * unit + far * far_unit, near * unit - far * far_unit
    alike = unit == far_unit and absolute(gap) < 0.125 * both
    if alike and absolute(gap + margin) < REACH * both:
        more, _, _ = compare(a, p, n, count)
        gap = (more if CITY else more / (near + far)) * unit
    excess = gap + margin
    if excess <= 0.0:
        if GRADIENT:
            blank(to_a, count)
            blank(to_p, count)
            blank(to_n, count)
        return 0.0
    if GRADIENT:
        portion = portion if excess == excess else excess  # NaN is not hidden
        own = 0.0 * portion if near == 0.0 else portion / near
        other = 0.0 * portion if far == 0.0 else portion / far
        if CITY:
            pulls(a, p, n, to_a, to_p, to_n, count, portion, 0.0, 0.0, 0.0, 0.0)
        elif alike:  # x / |x| - y / |y| = ((x - y) - y (|x| - |y|) / |y|) / |x|
            less = other * (gap / unit / near)
            pulls(a, p, n, to_a, to_p, to_n, count, 0.0, own, less, other, own)
        else:
            pulls(a, p, n, to_a, to_p, to_n, count, own, 0.0, other, other, own)
    return excess


def triplet_of_any_size(a, p, n, to_a, to_p, to_n, count, margin, portion):
    """The same where squares overflow or underflow."""
    if SWAP:
        far, between = farthest(a, n, count), farthest(p, n, count)
        scale = scale_of(between if between > far else far)
        _, far, between = scaled_measure(a, p, n, count, scale)
        if between < far < infinity:
            a, p, to_a, to_p = p, a, to_p, to_a
    near, far = farthest(a, p, count), farthest(a, n, count)
    scale, far_scale = scale_of(near), scale_of(far)
    close = scale * TOGETHER > far_scale and far_scale * TOGETHER > scale
    if near == 0.0 or (close and far_scale < scale):
        scale = far_scale
    elif far == 0.0 or close:  # else each needs a scale of its own
        far_scale = scale
    line = 8 * count
    borrowed = borrow(3 * line)
    x, y, z = doubles_at(borrowed), doubles_at(borrowed + line), doubles_at(borrowed + 2 * line)
    for i in range(count):
        # Where all are so large that they would overflow, the anchor is the origin.
        origin = a[i] if scale != far_scale or absolute(a[i]) * scale > HUGE else 0.0
        x[i] = (a[i] - origin) * scale
        y[i] = (p[i] - origin) * scale
        z[i] = (n[i] - origin) * far_scale
    near, far, _ = measure(x, y, z, count)
    value = triplet_measured(
        x, y, z, to_a, to_p, to_n, count, near, far, 1.0 / scale, 1.0 / far_scale, margin, portion
    )
    give_back(borrowed)
    return value


def scaled_measure(a, p, n, count, scale):
    """Squared distances in units of 1 / scale."""
    near, far, between = 0.0, 0.0, 0.0
    for i in range(count):
        x, y, z = (a[i] - p[i]) * scale, (a[i] - n[i]) * scale, (n[i] - p[i]) * scale
        near, far, between = near + x * x, far + y * y, between + z * z
    return near, far, between
