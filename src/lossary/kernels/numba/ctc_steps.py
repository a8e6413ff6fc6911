# ruff: noqa: F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined,no-untyped-call"
"""What CTC reads of each step: its probabilities, and its slopes.

Classes of the target and the blank have their probabilities in double precision, all others as
little as the array has: what these hold is lost to every reading of the target, so the value is
at least their sum, and so is their error small beside it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

FEW = 256  # classes up to which several steps are looked at together
CHUNK = 4096  # numbers in these
GROUP = 512  # classes summed in the array's precision before the sum goes on in double


class Room(NamedTuple):
    """Scratch memory, reused by row after row.

    First what has a number for the blank and each label behind it, then what has one for each
    step, then what has one for each class. So many pointers take time to hand over: what is called
    at each step is part of its caller.
    """

    x: Any  # distance from the step's largest logit
    m: Any  # probability, as a fraction
    e: Any  # and the exponent of 2
    q: Any  # the same as a plain number
    bar: Any  # 0 where a label may follow the one before at once, else -inf
    may: Any  # 1 there, else 0
    firsts: Any  # 1 where the class has not occurred before, else 0
    held: Any  # how likely the readings are in the class at this step, where it occurs first
    in_b: Any  # how likely they are in each state
    in_y: Any
    out: Any  # what is lost from each state
    labels: Any  # classes
    same: Any  # where the class occurs first
    unique: Any  # the places of those that occur first
    back: Any  # states of this step and the next
    alpha: Any  # states before and after each step; without a gradient of two steps
    high: Any  # the largest logit
    others: Any  # sum of the powers of classes outside the target
    normalizers: Any  # sum of all powers
    table: Any  # where a class occurs first
    spare: Any  # powers of some steps that no gradient has room for


class Row(NamedTuple):
    """A sample: its logits and their slopes, steps, labels, and numbers in a line of ``Room``."""

    z: Any
    g: Any
    running: Any
    count: Any
    distinct: Any
    classes: Any
    stride: Any
    width: Any  # what is used of these, whole vectors


def two(power):
    """2 to an integral power up to 1023; 0 below -1022, and of NaN (nothing less nothing)."""
    always_inline()
    power = where(power > -1023.0, power, -1023.0)
    return from_bits(bits(power + lifter) << 52)


def split(x):
    """exp(x), x <= 0, as a fraction near 1 and the exponent of 2."""
    always_inline()
    y = x * log2e
    far = x < -1e15  # nothing is left of the fraction
    n = where(far, (y - 9007199254740992.0) + 9007199254740992.0, (y + shifter) - shifter)
    r = where(far, 0.0, (x - n * ln2_high) - n * ln2_low)
    return fraction(r), n


def heights(z, d, high, steps, classes):
    """The largest logit of each step, and the distances from it."""
    full_width()
    for t in range(steps):
        key = lowest_key
        for k in range(classes):
            pattern = bits(z[t * classes + k])
            # Ordered as the numbers are, NaN on top.
            mirrored = integer(pattern ^ integer(integer(pattern >> sign_bit) & no_sign))
            key = mirrored if mirrored > key else key
        top = from_bits(integer(key ^ integer(integer(key >> sign_bit) & no_sign)))
        high[t] = float64(top)
        for k in range(classes):
            at = t * classes + k
            d[at] = zero if z[at] == top else z[at] - top


def powers(d, n):
    """exp of numbers that are not above 0, in place."""
    full_width()
    for i in range(n):
        d[i] = exp_below(d[i])


def sums(e, others, steps, classes):
    """The sum of each step."""
    full_width()
    for t in range(steps):
        total = zero
        for k in range(classes):
            total += e[t * classes + k]
        others[t] = float64(total)


def sum_of_powers(d, n):
    """The sum of ``powers``, which stay where they are."""
    full_width()
    total = 0.0
    for low in range(0, n, GROUP):
        part = zero
        for i in range(low, low + GROUP if n - low > GROUP else n):
            part += exp_below(d[i])
        total += float64(part)
    return total


def shares(x, first, m, e, q, others, width):
    """Probabilities of the target's classes, as fraction and exponent and plain; the normalizer."""
    full_width()
    total = 0.0
    for i in range(width):
        part, power = split(x[i])
        m[i] = part
        e[i] = power
        total += first[i] * (part * two(power))
    total = others + total
    for i in range(width):
        share = m[i] / total
        m[i] = share
        q[i] = share * two(e[i])
    return total


def slopes(z, g, high, scale, n):
    """Slopes of classes outside the target, from their logits."""
    full_width()
    for i in range(n):
        g[i] = exp_below(zero if z[i] == high else z[i] - high) * scale


def scale_steps(e, normalizers, portion, steps, classes):
    """The same from their powers, in place."""
    full_width()
    for t in range(steps):
        scale = real(portion / normalizers[t])
        for k in range(classes):
            e[t * classes + k] *= scale


def fill(x, number, n):
    """The same number everywhere."""
    for i in range(n):
        x[i] = number


def look_up(z, labels, x, top, count):
    """Distances of the target's classes from the largest logit."""
    always_inline()
    for i in range(count):
        here = float64(z[labels[i]])
        x[i] = 0.0 if here == top else here - top


def read_steps(room, row, d, t, n):
    """The largest logits of ``n`` steps from ``t`` on; ``d``: powers of the other classes."""
    z, classes = past(row.z, t * row.classes), row.classes
    heights(z, d, past(room.high, t), n, classes)
    for s in range(n):
        for j in range(row.distinct):
            d[s * classes + room.labels[room.unique[j]]] = -infinity
    if classes <= FEW:
        powers(d, n * classes)
        sums(d, past(room.others, t), n, classes)
    else:
        room.others[t] = sum_of_powers(d, classes)


def target_shares(room, row, t):
    """``shares`` of a step."""
    always_inline()
    look_up(past(row.z, t * row.classes), room.labels, room.x, room.high[t], row.count + 1)
    return shares(room.x, room.firsts, room.m, room.e, room.q, room.others[t], row.width)


def target_slopes(room, row, t, portion, low, end):
    """Slopes of the target's classes; that of a likely one from all others, whose sum it is."""
    always_inline()
    g, held, unique = past(row.g, t * row.classes), room.held, room.unique
    for j in range(row.distinct):
        held[unique[j]] = 0.0
    for i in range(low if low > 1 else 1, end):
        held[room.same[i]] += room.in_y[i]
    held[0] += total_of(room.in_b, low, end)
    peak, apart = -1, room.others[t] / room.normalizers[t]
    for j in range(row.distinct):
        i = unique[j]
        if room.x[i] == 0.0 and room.q[i] > 0.5:
            peak = i
        else:
            slope = room.q[i] - (1.0 if held[i] > 1.0 else held[i])
            apart += slope
            g[room.labels[i]] = real(slope * portion)
    if peak >= 0:
        g[room.labels[peak]] = real(-apart * portion)


def total_of(x, low, high):
    """The sum from ``low`` to ``high``."""
    full_width()
    total = 0.0
    for i in range(low, high):
        total += x[i]
    return total
