"""Losses aggregated: totals that add exactly, reductions, and objectives of several terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lossary.contract import Array, LossError
from lossary.xp import namespace, visible

REDUCTIONS = ("none", "sum", "mean", "mean_over_batch", "batch_mean")
EMPTY = ("zero", "nan", "error")


class Total(NamedTuple):
    """A weighted sum of losses and the weight behind it; totals of any split add to the whole."""

    sum: Array
    weight: Array

    def __add__(self, other: Any) -> Total:  # type: ignore[override]
        if other == 0:  # so that sum(totals) works
            return self
        return Total(self.sum + other.sum, self.weight + other.weight)

    def __radd__(self, other: Any) -> Total:
        return self + other

    @property
    def mean(self) -> Array:
        """sum / weight; 0 with derivative 0 where nothing counts."""
        return divide(self.sum, self.weight)


def divide(total: Array, weight: Array | int, empty: str = "zero") -> Array:
    """``total / weight``; where the weight is 0: 0, NaN or an error, as ``empty`` says."""
    xp = namespace(total)
    if isinstance(weight, int):  # known without looking at values
        weight = xp.zeros_like(total) + weight
    nothing = weight == 0
    if empty == "error" and visible(nothing) and bool(nothing):
        raise LossError("nothing counts: every unit is masked, ignored or of weight 0")
    result = total / xp.where(nothing, 1.0, weight)
    return xp.where(nothing, float("nan"), result) if empty == "nan" else result


def spread(weights: Array, values: Array, what: str, name: str) -> Array:
    """Weights of the leading dimensions of ``values``, shaped to multiply them."""
    shape, wanted = tuple(weights.shape), tuple(values.shape)
    if shape != wanted[: len(shape)]:
        raise LossError(
            f"{name}: {what} have shape {shape}, the loss returns one value for each of {wanted}; "
            f"give {what} of shape {wanted} or of its leading dimensions"
        )
    xp = namespace(weights, values)
    return xp.reshape(weights, shape + (1,) * (len(wanted) - len(shape)))


def weighed(
    values: Array, weights: Array | None, counts: Array | None, measure: Array | None
) -> tuple[Array, Array | None]:
    """(values x weights, weights x measure), both 0 where a unit does not count; None: all 1."""
    xp = namespace(values)
    weight = weights
    if measure is not None:
        weight = measure if weights is None else weights * measure
    if counts is not None:
        values = xp.where(counts, values, 0.0)
        weight = xp.where(counts, xp.ones_like(values) if weight is None else weight, 0.0)
    if weight is not None:
        weight = xp.broadcast_to(weight, values.shape)
    return (values if weights is None else values * weights), weight


def size(values: Array) -> Any:
    """The number of units."""
    if None in values.shape:  # in a graph, the number of rows may not be known yet
        xp = namespace(values)
        return xp.sum(xp.ones_like(values))
    return math.prod(values.shape)


def total(
    values: Array,
    *,
    weights: Array | None = None,
    counts: Array | None = None,
    measure: Array | None = None,
) -> Total:
    """The weighted sum of values and the weight behind it."""
    xp = namespace(values)
    product, weight = weighed(values, weights, counts, measure)
    whole = xp.sum(product)
    return Total(whole, xp.zeros_like(whole) + size(values) if weight is None else xp.sum(weight))


def reduce(
    values: Array,
    reduction: str = "mean",
    *,
    weights: Array | None = None,
    counts: Array | None = None,
    measure: Array | None = None,
    empty: str = "zero",
) -> Array:
    """Unreduced values to what the optimiser sees.

    ``none`` keeps the shape; ``sum``; ``mean`` is the weighted sum over the sum of the weights of
    the units that count; ``mean_over_batch`` divides by their number instead (Keras);
    ``batch_mean`` divides the sum by the size of the first dimension. ``counts`` is True where a
    unit counts.
    ``measure`` enters the mean's denominator only: for values that are weighted already.
    """
    xp = namespace(values)
    if reduction == "mean":
        whole = total(values, weights=weights, counts=counts, measure=measure)
        return divide(whole.sum, whole.weight, empty)
    product, _ = weighed(values, weights, counts, measure)
    if reduction == "none":
        return product
    if reduction == "sum":
        return xp.sum(product)
    if reduction == "batch_mean":
        number = values.shape[0] if values.ndim else 1
    elif counts is None:
        number = size(values)
    else:
        number = xp.sum(xp.where(counts, xp.ones_like(values), 0.0))
    return divide(xp.sum(product), number, empty)


class Objective:
    """What the optimiser minimises: a weighted sum of costs, each term visible.

    >>> objective = Objective(rain=(1.0, Loss("binary_cross_entropy")), warmth=(0.1, Loss("huber")))
    >>> objective(rain=(logit, rained), warmth=(degrees, measured))
    """

    def __init__(self, **terms: tuple[float, Callable[..., Array]]) -> None:
        if not terms:
            raise LossError("Objective: give at least one term, name=(factor, loss)")
        for name, term in terms.items():
            if not (isinstance(term, tuple) and len(term) == 2 and callable(term[1])):
                raise LossError(f"Objective: {name} must be a pair (factor, loss), got {term!r}")
        self.terms: Mapping[str, tuple[float, Callable[..., Array]]] = dict(terms)

    def __repr__(self) -> str:
        return f"Objective({', '.join(f'{name}={term!r}' for name, term in self.terms.items())})"

    def values(self, **inputs: Any) -> dict[str, Array]:
        """Each term's contribution, factor included. ``inputs``: arguments of each term's loss."""
        if inputs.keys() != self.terms.keys():
            raise LossError(
                f"Objective: inputs came for {', '.join(inputs) or 'nothing'}; "
                f"its terms are {', '.join(self.terms)}"
            )
        contributions = {}
        for name, (factor, loss) in self.terms.items():
            given = inputs[name]
            arguments = given if isinstance(given, tuple) else (given,)
            contributions[name] = factor * loss(*arguments)
        return contributions

    def __call__(self, **inputs: Any) -> Array:
        return sum(self.values(**inputs).values())
