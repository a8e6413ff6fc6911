"""The words of contracts: intervals, spaces, units, properties, and annotations made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

Array = Any  # An array of any supported library: to a type checker, anything.


@dataclass(frozen=True)
class Interval:
    """The numbers from ``low`` to ``high``; ``closed`` is both, left, right or neither."""

    low: float = -math.inf
    high: float = math.inf
    closed: Literal["both", "left", "right", "neither"] = "both"

    def __contains__(self, number: float) -> bool:
        above = number >= self.low if self.closed in ("both", "left") else number > self.low
        below = number <= self.high if self.closed in ("both", "right") else number < self.high
        return above and below

    def __str__(self) -> str:
        left = "[" if self.closed in ("both", "left") and self.low > -math.inf else "("
        right = "]" if self.closed in ("both", "right") and self.high < math.inf else ")"
        return f"{left}{self.low:g}, {self.high:g}{right}"


Layout = Literal[
    "element", "class axis", "class", "row", "label", "image", "tensor", "steps", "sequence"
]


@dataclass(frozen=True)
class Space:
    """A set that an input lives in.

    ``layout`` says how the array is arranged: one number per *element*; scores along a *class
    axis*; a *class* as an index, one-hot or a distribution; one vector per *row*; one *label* per
    row; an *image* with channels; a whole *tensor*; class scores at the *steps* of a sequence; a
    *sequence* of class indices. ``activation`` maps a linear layer into the space; ``example`` is a
    harmless member, used where an input is masked.
    """

    name: str
    interval: Interval = Interval()
    layout: Layout = "element"
    activation: str = "linear"
    example: float = 0.0
    integral: bool = False


@dataclass(frozen=True)
class Unit:
    """What one returned number stands for: element, sample, anchor, region or tensor."""

    name: Literal["element", "sample", "anchor", "region", "tensor"]


@dataclass(frozen=True)
class Property:
    """A mathematical fact about a loss, valid for every parameter value unless ``when`` says so."""

    name: str
    value: Any = None
    when: tuple[tuple[str, Any], ...] = ()

    def at(self, **parameters: Any) -> Property:
        """The same fact, claimed only for these parameter values."""
        return Property(self.name, self.value, tuple(sorted(parameters.items())))

    def __str__(self) -> str:
        text = self.name if self.value is None else f"{self.name}: {self.value}"
        return text + "".join(f", at {key}={value}" for key, value in self.when)


CONVEX = Property("convex")
SMOOTH = Property("smooth")  # the derivative is continuous
NONNEGATIVE = Property("nonnegative")
ZERO_AT_TARGET = Property("zero at target")
EVEN = Property("even")  # in the residual
SYMMETRIC = Property("symmetric")  # the arguments may be exchanged
SHIFT_INVARIANT = Property("shift invariant")  # a constant added to every logit changes nothing
SCALE_FREE = Property("scale free")  # a positive factor on the predictions changes nothing
ORDER_FREE = Property("order free")  # reordering the batch reorders the values
MONOTONE = Property("monotone")  # in the margin
PROPER = Property("proper")
STRICTLY_PROPER = Property("strictly proper")


def lipschitz(constant: float | str) -> Property:
    """No slope is steeper than ``constant``: a number or an expression of parameters' names."""
    return Property("lipschitz", constant)


def bounded(high: float | str) -> Property:
    """No value exceeds ``high``: a number or an expression of parameters' names."""
    return Property("bounded", high)


def elicits(statistic: str) -> Property:
    """The constant prediction of the least mean loss is this statistic of the targets."""
    return Property("elicits", statistic)


_positive = Interval(0, math.inf, "neither")
_nonnegative = Interval(0, math.inf, "left")
_unit = Interval(0, 1)

ANYTHING = Space("anything")  # what an unannotated argument is taken for

# Inputs.
Real = Annotated[Array, Space("real")]
PositiveReal = Annotated[Array, Space("positive", _positive, activation="softplus", example=1.0)]
NonnegativeReal = Annotated[Array, Space("nonnegative", _nonnegative, activation="softplus")]
Counts = Annotated[Array, Space("count", _nonnegative, activation="exponential", integral=True)]
LogRate = Annotated[Array, Space("log rate")]
LogVariance = Annotated[Array, Space("log variance")]
Probability = Annotated[Array, Space("probability", _unit, activation="sigmoid", example=0.5)]
Binary = Annotated[Array, Space("binary", _unit, activation="sigmoid")]
Signs = Annotated[Array, Space("sign", Interval(-1, 1), activation="tanh", example=1.0)]
Logit = Annotated[Array, Space("logit")]
Margin = Annotated[Array, Space("margin")]
ClassLogits = Annotated[Array, Space("class logits", layout="class axis")]
Simplex = Annotated[Array, Space("simplex", _unit, "class axis", "softmax", 1.0)]
Classes = Annotated[Array, Space("classes", _unit, "class", "softmax", integral=True)]
MultiHot = Annotated[Array, Space("multi-hot", _unit, "class axis", "sigmoid")]
Embeddings = Annotated[Array, Space("embeddings", layout="row", example=1.0)]
Labels = Annotated[Array, Space("labels", layout="label", integral=True)]
PairLabels = Annotated[Array, Space("pair labels", _unit, "label")]
PairSigns = Annotated[Array, Space("sign", Interval(-1, 1), "label", example=1.0)]
StepLogits = Annotated[Array, Space("class logits", layout="steps")]
ClassSequence = Annotated[Array, Space("class sequence", _nonnegative, "sequence", integral=True)]
Lengths = Annotated[Array, Space("length", _nonnegative, "label", integral=True)]
Image = Annotated[Array, Space("image", _unit, "image", "sigmoid", 0.5)]
Mask = Annotated[Array, Space("mask", _unit, activation="sigmoid")]
Weights = Annotated[Array, Space("weights", layout="tensor")]

# Parameters.
Number = Annotated[float, Interval()]
Positive = Annotated[float, _positive]
Nonnegative = Annotated[float, _nonnegative]
Fraction = Annotated[float, Interval(0, 1, "left")]
UnitInterval = Annotated[float, _unit]
OpenFraction = Annotated[float, Interval(0, 1, "neither")]
PositiveInteger = Annotated[int, Interval(1)]
PositiveNumbers = Annotated[Any, _positive]  # a number, or a (nested) sequence of numbers
NonnegativeNumbers = Annotated[Any, _nonnegative]

# Results.
PerElement = Annotated[Array, Unit("element")]
PerSample = Annotated[Array, Unit("sample")]
PerAnchor = Annotated[Array, Unit("anchor")]
PerRegion = Annotated[Array, Unit("region")]
PerTensor = Annotated[Array, Unit("tensor")]
