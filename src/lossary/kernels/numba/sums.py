# ruff: noqa: F821  (names bound when a variant is compiled)
# mypy: disable-error-code="no-untyped-def,name-defined"
"""Sums that keep what each addition loses. Compiled exactly: reordered, they would lose it."""


def add(whole, lost, term):
    """(whole + term, and what all such additions have lost)."""
    always_inline()
    grown = whole + term  # Knuth's sum of two, whichever is larger
    back = grown - whole
    return grown, lost + ((whole - (grown - back)) + (term - back))


def added(whole, lost):
    """The sum; of infinities nothing is lost, though their difference is none."""
    always_inline()
    total = whole + lost
    return total if total == total else whole
