"""Losses of sequences, from their definitions: every reading is listed."""

from functools import cache
from itertools import groupby, product

from mpmath import exp, fprod, fsum, inf, log, mpf


@cache
def _readings(steps, classes, target, blank):
    """The classes step by step of which, repeats merged and blanks dropped, the target is left."""
    found = []
    for reading in product(range(classes), repeat=steps):
        merged = [label for label, _ in groupby(reading)]
        if tuple(label for label in merged if label != blank) == target:
            found.append(reading)
    return found


def ctc(prediction, target, input_lengths, target_lengths, *, blank, zero_infinity):
    logits, labels = prediction[:input_lengths], tuple(target[:target_lengths])
    readings = _readings(len(logits), len(prediction[0]), labels, blank)
    if not readings:
        return mpf(0) if zero_infinity else inf
    # Probabilities relative to the likeliest reading's: sums keep all digits of their logarithm.
    normals = [log(fsum(exp(z - max(row)) for z in row)) + max(row) for row in logits]
    shares = [[exp(z - normal) for z in row] for row, normal in zip(logits, normals, strict=True)]
    return -log(
        fsum(fprod(row[k] for row, k in zip(shares, reading, strict=True)) for reading in readings)
    )
