# ruff: noqa: D103, F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""Softmax cross-entropy of rows of some dozens to hundreds of classes: a few rows at a time.

Rows are laid out in lines of whole vectors, for what is left over beside them would take as long
as they do; each step goes over all lines, for to begin a loop takes as long as such a row.
"""

from __future__ import annotations

LANES = 16  # numbers in the widest vector
WHOLE = 32  # what a line is a multiple of: loops are unrolled
LINES = 4096  # numbers in the lines that are looked at together: they stay in the nearest cache
MOST = 512  # classes of which a line is made


def dense(z, y, c, share, keep):
    """What a class weighs in a dense target, its own class index apart."""
    always_inline()
    q = keep * y if SOFT else zero
    if SMOOTHED:
        q += share if absolute(z) < infinity else zero
    if CLASSES:
        q *= c
    return q


def line_fill(source, target, classes, width, n):
    """Vector by vector, the last of which begins early: the lines end in what was there before."""
    full_width()
    for i in range(n):
        for low in range(0, width, LANES):
            begin = low if low + LANES <= classes else classes - LANES
            for k in range(begin, begin + LANES):
                target[i * width + k] = source[i * classes + k]


def line_blank(line, count, number):
    full_width()
    for k in range(count):
        line[k] = number


def line_highest(z, width, high, peak, finite, n):
    """The maximum of each line and where it is first met."""
    full_width()
    for i in range(n):
        key, count = lowest_key, zero
        for k in range(width):
            pattern = bits(z[i * width + k])
            # Ordered as the numbers are, NaN on top.
            mirrored = integer(pattern ^ integer(integer(pattern >> sign_bit) & no_sign))
            key = mirrored if mirrored > key else key
            if SMOOTHED:
                count += one if absolute(z[i * width + k]) < infinity else zero
        top = from_bits(integer(key ^ integer(integer(key >> sign_bit) & no_sign)))
        first = integer(width)
        for k in range(width):  # to its end, for a loop that may stop takes no vectors
            here = integer(k) if z[i * width + k] == top else integer(width)
            first = here if here < first else first
        high[i] = top
        peak[i] = first if first < width else 0
        if SMOOTHED:
            finite[i] = count


def line_tally(z, y, c, e, width, high, peak, share, rest, mass, gap, keep, n):
    """exp(z - high) into ``e``; beside the peak the sums of it, of q, and of q (high - z)."""
    full_width()
    for i in range(n):
        top, skipped = high[i], integer(peak[i])
        total, weight, distance = zero, zero, zero
        for k in range(width):
            at = i * width + k
            other = integer(k) != skipped
            below = z[at] - top if other else zero
            power = exp_below(below)
            if GRADIENT:
                e[at] = power
            total += power if other else zero
            if DENSE:
                q = dense(z[at], y[at], c[k], share[i], keep) if other else zero
                weight += q
                # A weight of 0 wins over an infinite distance. Adding "0 if q is 0, else q * below"
                # would say the same, but such a sum is not vectorised.
                distance -= q * (deepest if below < deepest else below)
                distance += infinity if below < deepest and q != zero else zero
        rest[i] = total
        if DENSE:
            mass[i] = weight
            gap[i] = distance


def line_peaks(z, y, c, width, peak, share, at_peak, keep, n):
    """The weight at the peak, where targets are dense."""
    for i in range(n):
        at = i * width + peak[i]
        at_peak[i] = dense(z[at], y[at], c[peak[i]], share[i], keep)


def line_hits(z, width, classes, t, c, high, peak, mass, at_peak, gap, keep, n):
    """The part of the class indices in the sums."""
    full_width()
    for i in range(n):
        hit = t[i] if 0 <= t[i] < classes else 0  # of an absent sample: not used
        q = keep * (c[hit] if CLASSES else one)
        sure = peak[i] == hit
        near, far = q if sure else zero, zero if sure else q
        below = zero if sure or q == zero else q * (high[i] - z[i * width + hit])
        at_peak[i] = at_peak[i] + near if DENSE else near
        mass[i] = mass[i] + far if DENSE else far
        gap[i] = gap[i] + below if DENSE else below


def line_finish(
    z, y, c, e, g, t, width, classes, peak, share, rest, mass, at_peak, weights, keep, factor, n
):
    """From exp(z - high) to the slopes."""
    full_width()
    for i in range(n):
        weight = weights[i] if WEIGHTED else one
        present = weight != zero
        portion = weight * factor
        share_of_all = one / (one + rest[i])
        ratio = (mass[i] + at_peak[i]) * share_of_all
        for k in range(classes):
            at = i * width + k
            if DENSE:
                q = dense(z[at], y[at], c[k], share[i], keep)
                slope = (e[at] * ratio - q) * portion
            else:
                slope = e[at] * ratio * portion
            g[i * classes + k] = slope if present else zero
        if not SOFT and present and t[i] != peak[i]:
            at = i * width + t[i]
            q = keep
            if SMOOTHED:
                q += share[i] if absolute(z[at]) < infinity else zero
            if CLASSES:
                q *= c[t[i]]
            g[i * classes + t[i]] = (e[at] * ratio - q) * portion
        top = (mass[i] - at_peak[i] * rest[i]) * share_of_all * portion
        g[i * classes + peak[i]] = top if present else zero


def lines(
    first, last, classes, width, most, samples, prediction_at, target_at, weights_at, gradient_at,
    values_at, partial_at, class_weights_at, smoothing, factor,
):  # fmt: skip
    """Class axis last, ``most`` samples at a time, each in a line of ``width`` numbers.

    ``partial`` receives the weighted value of each group of lines.
    """
    z_all, g_all, y_all = reals_at(prediction_at), reals_at(gradient_at), reals_at(target_at)
    t_all, c_all, weights_all = (
        indices_at(target_at), reals_at(class_weights_at), reals_at(weights_at)
    )  # fmt: skip
    values_all, partial = reals_at(values_at), doubles_at(partial_at)
    keep, real_factor = real(1.0 - smoothing), real(factor)
    line = 8 * LINES + 64
    borrowed = borrow(64 + 3 * line + 8 * MOST + 8 * LINE)
    at = (borrowed + 63) & -64
    z, e, y, c = reals_at(at), reals_at(at + line), reals_at(at + 2 * line), reals_at(at + 3 * line)
    at += 3 * line + 8 * MOST
    high, peak, rest = reals_at(at), int32s_at(at + LINE), reals_at(at + 2 * LINE)
    mass, at_peak = reals_at(at + 3 * LINE), reals_at(at + 4 * LINE)
    gap, finite, share = (
        reals_at(at + 5 * LINE), reals_at(at + 6 * LINE), reals_at(at + 7 * LINE),
    )  # fmt: skip
    line_blank(z, LINES, -infinity)
    if SOFT:
        line_blank(y, LINES, zero)
    if CLASSES:
        line_blank(c, width, zero)
        line_fill(c_all, c, classes, width, 1)
    for group in range(first, last):
        start = group * most
        n = most if samples - start > most else samples - start
        base = start * classes
        t, weights = past(t_all, start), past(weights_all, start)
        line_fill(past(z_all, base), z, classes, width, n)
        if SOFT:
            line_fill(past(y_all, base), y, classes, width, n)
        line_highest(z, width, high, peak, finite, n)
        if SMOOTHED:
            for i in range(n):
                share[i] = real(smoothing / (finite[i] if finite[i] > one else one))
        line_tally(z, y, c, e, width, high, peak, share, rest, mass, gap, keep, n)
        if DENSE:
            line_peaks(z, y, c, width, peak, share, at_peak, keep, n)
        if not SOFT:
            line_hits(z, width, classes, t, c_all, high, peak, mass, at_peak, gap, keep, n)
        partial[group] = tile_value(rest, mass, at_peak, gap, past(values_all, start), weights, n)
        if GRADIENT:
            line_finish(
                z, y, c, e, past(g_all, base), t, width, classes, peak, share, rest, mass, at_peak,
                weights, keep, real_factor, n,
            )  # fmt: skip
    give_back(borrowed)
