# ruff: noqa: F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""The forward-backward algorithm of CTC, step by step, and the value from what is lost.

Each state is a fraction and an exponent. States of a step are four lines of ``Row.stride`` numbers:
fractions and exponents of the blanks' states, then of the labels'. What a line holds before its
first number is nothing, so that no state needs a case of its own.
"""

from __future__ import annotations

import math

LANES = 8  # states go by whole vectors: what is left over beside them would take as long
OFTEN = 8  # steps after which fractions are brought back to 1..2: less than a double's range


def forward(bm, be, ym, ye, new_bm, new_be, new_ym, new_ye, m, e, bar, low, high):
    """One step of the states from ``low`` to ``high``, whole vectors of them."""
    full_width()
    blank_m, blank_e = m[0], e[0]
    for start in range(low, high, LANES):
        for i in range(start, start + LANES):
            stay, move, skip = ye[i], be[i - 1], ye[i - 1] + bar[i]
            top = where(stay > move, stay, move)
            top = where(top > skip, top, skip)
            total = ym[i] * two(stay - top) + bm[i - 1] * two(move - top)
            total += ym[i - 1] * two(skip - top)
            new_ym[i] = total * m[i]
            new_ye[i] = top + e[i]
            rest = be[i]
            top = where(stay > rest, stay, rest)
            total = ym[i] * two(stay - top) + bm[i] * two(rest - top)
            new_bm[i] = total * blank_m
            new_be[i] = top + blank_e


def backward(
    bm, be, ym, ye, new_bm, new_be, new_ym, new_ye, m, e, bar, alpha_bm, alpha_be, alpha_ym,
    alpha_ye, in_b, in_y, total_e, share, low, high,
):  # fmt: skip
    """The same back in time, states times what they emit; ``in_b``, ``in_y``: how likely each is.

    All of it in terms of the readings of the target, whose probability is 2^total_e / share.
    """
    full_width()
    blank_m, blank_e = m[0], e[0]
    for start in range(low, high, LANES):
        for i in range(start, start + LANES):
            rest, move, stay = be[i], ye[i + 1], ye[i]
            top = where(rest > move, rest, move)
            total = bm[i] * two(rest - top) + ym[i + 1] * two(move - top)
            power = (top + alpha_be[i]) - total_e
            power = where(power < 64.0, power, 64.0)  # where exponents are too large to be exact
            in_b[i] = total * alpha_bm[i] * two(power) * share
            new_bm[i] = total * blank_m
            new_be[i] = top + blank_e
            skip = move + bar[i + 1]
            top = where(stay > rest, stay, rest)
            top = where(top > skip, top, skip)
            total = ym[i] * two(stay - top) + bm[i] * two(rest - top)
            total += ym[i + 1] * two(skip - top)
            power = (top + alpha_ye[i]) - total_e
            power = where(power < 64.0, power, 64.0)
            in_y[i] = total * alpha_ym[i] * two(power) * share
            new_ym[i] = total * m[i]
            new_ye[i] = top + e[i]


def normalize(m, e, low, high):
    """Fractions back to 1..2."""
    full_width()
    for start in range(low, high, LANES):
        for i in range(start, start + LANES):
            pattern = bits(m[i])
            e[i] += float64((pattern >> 52) - 1023)
            m[i] = from_bits((pattern & 4503599627370495) | 4607182418800017408)


def leak(b, y, new_b, new_y, q, n, top, may, out, rest, peak, width):
    """One step in plain doubles; ``out``: what leaves the target's readings from each state.

    A state's way on is blocked by all classes but two or three. ``top`` is 1 at the likeliest
    class, of probability ``peak``; ``n`` holds the others' and ``rest`` their sum.
    """
    full_width()
    for start in range(0, width, LANES):
        for i in range(start, start + LANES):
            gone = (rest - n[0]) - n[i + 1]
            gone = gone + ((1.0 - top[0]) - top[i + 1]) * peak
            gone = b[i] * where(gone > 0.0, gone, 0.0)
            gone_y = ((rest - n[0]) - n[i]) - may[i + 1] * n[i + 1]
            gone_y = gone_y + (((1.0 - top[0]) - top[i]) - may[i + 1] * top[i + 1]) * peak
            out[i] = gone + y[i] * where(gone_y > 0.0, gone_y, 0.0)
            blank = (b[i] + y[i]) * q[0]
            label = ((y[i] + b[i - 1]) + may[i] * y[i - 1]) * q[i]
            new_b[i] = where(blank > 1e-200, blank, 0.0)  # subnormal numbers take long
            new_y[i] = where(label > 1e-200, label, 0.0)


def read_labels(room, target_at, wide, start, count, blank):
    """The target's labels behind the blank, and which of them are the same.

    Then how many classes there are, and the fewest steps that the target takes.
    """
    labels, table = room.labels, room.table
    labels[0], room.same[0], room.unique[0], room.firsts[0] = blank, 0, 0, 1.0
    for i in range(1, count + 1):
        labels[i] = integer_at(target_at, start + i - 1, wide)
        table[labels[i]] = -1
    distinct, needed = 1, count
    for i in range(1, count + 1):
        label = labels[i]
        if table[label] < 0:
            table[label] = i
            room.firsts[i] = 1.0
            room.unique[distinct] = i
            distinct += 1
        room.same[i] = table[label]
        if label == labels[i - 1]:  # a blank must come between
            needed += 1
        elif i > 1:
            room.bar[i], room.may[i] = 0.0, 1.0
    return distinct, needed


def span(row, t):
    """From where to where a step's states are both reached and on a way to the end."""
    always_inline()
    low = row.count - (row.running - 1 - t)
    low = low & -LANES if low > 0 else 0
    high = (t + 1 + LANES) & -LANES
    return low, high if high < row.width else row.width


def states_before(room, row, t):
    """The states before step ``t``, of which a value alone needs two."""
    always_inline()
    return past(room.alpha, (t if GRADIENT else t & 1) * 4 * row.stride)


def go_forward(room, row, t):
    """The states after step ``t``."""
    always_inline()
    stride, (low, top) = row.stride, span(row, t)
    a, bm = states_before(room, row, t), states_before(room, row, t + 1)
    be, ym, ye = past(bm, stride), past(bm, 2 * stride), past(bm, 3 * stride)
    forward(
        a, past(a, stride), past(a, 2 * stride), past(a, 3 * stride), bm, be, ym, ye,
        room.m, room.e, room.bar, low, top,
    )  # fmt: skip
    if t % OFTEN == OFTEN - 1:
        normalize(bm, be, low, top)
        normalize(ym, ye, low, top)
    # Nothing on either side, for the next step to read.
    bm[low - 1], ym[low - 1], be[low - 1], ye[low - 1] = 0.0, 0.0, -math.inf, -math.inf
    for i in range(top, top + LANES if top < row.width else top):
        bm[i], ym[i], be[i], ye[i] = 0.0, 0.0, -math.inf, -math.inf


def all_forward(room, row, possible):
    """The target's probability as a fraction and an exponent, or that a step has no probabilities.

    Last, whether a logit is endless.
    """
    running, classes, stride = row.running, row.classes, row.stride
    fill(past(room.alpha, -LANES), 0.0, 4 * stride)
    for line in (1, 3):
        fill(past(room.alpha, line * stride - LANES), -math.inf, stride)
    room.alpha[0], room.alpha[stride] = 1.0, 0.0
    few = classes <= FEW
    most = CHUNK // classes if few else 1
    broken, infinite = False, False
    t = 0
    while t < running and not broken:
        n = most if running - t > most else running - t
        # The gradient's memory is free until then.
        read_steps(room, row, past(row.g, t * classes) if GRADIENT and few else room.spare, t, n)
        for s in range(t, t + n):
            normalizer = target_shares(room, row, s)
            room.normalizers[s] = normalizer
            endless = room.high[s] == math.inf
            infinite = infinite or endless
            broken = broken or not normalizer >= 1.0 or (endless and normalizer > 1.0)
            broken = broken or room.high[s] == -math.inf
            if possible:
                go_forward(room, row, s)
        t += n
    if broken or not possible:
        return 0.0, -math.inf, broken, infinite
    b = past(states_before(room, row, running), row.count)
    y = past(b, 2 * stride)
    total_e = b[stride] if b[stride] > y[stride] else y[stride]
    total_m = b[0] * two(b[stride] - total_e) + y[0] * two(y[stride] - total_e)
    return total_m, total_e, False, infinite


def all_backward(room, row, total_m, total_e, portion):
    """The slopes, where the target's probability is ``total_m`` 2^``total_e``."""
    classes, stride = row.classes, row.stride
    few = classes <= FEW
    if few:
        scale_steps(row.g, room.normalizers, portion, row.running, classes)
    fill(past(room.back, -LANES), 0.0, 8 * stride)
    for line in (1, 3, 5, 7):
        fill(past(room.back, line * stride - LANES), -math.inf, stride)
    a, b = room.back, past(room.back, 4 * stride)
    a[row.count], a[stride + row.count] = 1.0, 0.0
    share = 1.0 / total_m
    for t in range(row.running - 1, -1, -1):
        if not few:
            z, g = past(row.z, t * classes), past(row.g, t * classes)
            slopes(z, g, real(room.high[t]), real(portion / room.normalizers[t]), classes)
        target_shares(room, row, t)
        low, top = span(row, t)
        bm, be, ym, ye = b, past(b, stride), past(b, 2 * stride), past(b, 3 * stride)
        now = states_before(room, row, t + 1)
        backward(
            a, past(a, stride), past(a, 2 * stride), past(a, 3 * stride), bm, be, ym, ye,
            room.m, room.e, room.bar,
            now, past(now, stride), past(now, 2 * stride), past(now, 3 * stride),
            room.in_b, room.in_y, total_e, share, low, top,
        )  # fmt: skip
        if t % OFTEN == 0:
            normalize(bm, be, low, top)
            normalize(ym, ye, low, top)
        a, b = b, a
        target_slopes(room, row, t, portion, low, top if top <= row.count else row.count + 1)


def split_off(room, row, t, rest_of, likeliest):
    """Probabilities but for the likeliest class, which of them it is; their sum; its own."""
    target_shares(room, row, t)
    peak = -1
    for j in range(row.distinct):
        i = room.unique[j]
        peak = i if peak < 0 and room.x[i] == 0.0 else peak
    rest, share = 0.0, 1.0
    if peak >= 0:
        rest, share = room.others[t] / room.normalizers[t], room.q[peak]
        for j in range(row.distinct):
            rest += 0.0 if room.unique[j] == peak else room.q[room.unique[j]]
    for i in range(row.count + 1):
        rest_of[i] = 0.0 if room.same[i] == peak else room.q[i]
        likeliest[i] = 1.0 if room.same[i] == peak else 0.0
    return rest, share


def value_of_lost(room, row):
    """The value, from what each step takes from the readings that were possible until then.

    Their shares have no error in common, so none grows with the number of steps.
    """
    stride, width, count = row.stride, row.width, row.count
    rest_of, likeliest = room.in_b, room.in_y
    fill(past(room.back, -LANES), 0.0, 8 * stride)
    fill(rest_of, 0.0, stride)
    fill(likeliest, 0.0, stride)
    a, b = room.back, past(room.back, 4 * stride)
    a[0] = 1.0
    value, missed, alive = 0.0, 0.0, 1.0
    for t in range(row.running):
        rest, share = split_off(room, row, t, rest_of, likeliest)
        leak(
            a, past(a, stride), b, past(b, stride), room.q, rest_of, likeliest, room.may,
            room.out, rest, share, width,
        )  # fmt: skip
        a, b = b, a
        # Compensated, after Kahan.
        step = -math.log1p(-total_of(room.out, 0, width) / alive) - missed
        total = value + step
        missed = (total - value) - step
        value = total
        alive = total_of(a, 0, width) + total_of(past(a, stride), 0, width)
    short = total_of(a, 0, count) + total_of(past(a, stride), 0, count)
    return value - math.log1p(-short / alive)
