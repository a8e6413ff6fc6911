# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Value and slope as plain operations of torch, for its compiler to fuse.

The same formulas as the kernels', and softmax cross-entropy of class indices: both tails are right,
where the framework's own losses lose them.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import exp, inf, int64, log1p, where

from lossary.kernels import elementary, formulas, pointwise

Tensor = torch.Tensor
Arrays = tuple[Tensor, ...]
Formula = Callable[..., Arrays]  # of the inputs: values, and slopes by each prediction


def formula(loss: str, parameters: Mapping[str, Any], weights: Tensor | None = None) -> Formula:
    """A loss of ``formulas``, of single-precision tensors.

    ``weights`` are numbers, of which 0 means absent, or whether a unit counts.
    """
    given = {
        name: _Repeated(value) if isinstance(value, Tensor) else value
        for name, value in parameters.items()
    }
    compute, numbers = _in_torch(loss), pointwise.numbers(loss, given)
    axis = parameters.get("axis")

    def found(*arrays: Tensor) -> Arrays:
        values, *slopes = (_weighed(each, weights) for each in compute(*arrays, *numbers))
        return (values if axis is None else values.sum(axis, keepdim=True)), *slopes

    return found


class _Repeated:
    """A parameter with one number for each index of the last axis: like no single number."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    def __rmul__(self, other: Tensor) -> Tensor:
        return other * self.numbers


def total(arrays: Arrays, formula: Formula, places: tuple[int, ...]) -> Tensor:
    """The sum of the values, differentiable by the predictions, which stand at these places."""
    return _Total.apply(formula, places, *arrays)


def values(arrays: Arrays, formula: Formula, places: tuple[int, ...], shape: Any) -> Tensor:
    """The values, one per unit, differentiable by the predictions."""
    return _Values.apply(formula, places, shape, *arrays)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, formula: Formula, places: tuple[int, ...], *arrays: Tensor) -> Tensor:
        values, *slopes = formula(*arrays)
        ctx.places, ctx.inputs = places, len(arrays)
        ctx.save_for_backward(*slopes)
        return values.sum() if values.ndim else values  # a kernel has summed them

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return None, None, *_by_place(ctx, upstream)


class _Values(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, formula: Formula, places: tuple[int, ...], shape: Any, *arrays: Tensor
    ) -> Tensor:
        values, *slopes = formula(*arrays)
        ctx.shape, ctx.places, ctx.inputs = values.shape, places, len(arrays)
        ctx.save_for_backward(*slopes)
        return values.reshape(shape)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return None, None, None, *_by_place(ctx, upstream.reshape(ctx.shape))


class _Picked(torch.autograd.Function):
    """Of log-probabilities, one value per unit; slopes, 0 but at the target, when asked for."""

    @staticmethod
    def forward(
        ctx: Any, prediction: Tensor, target: Tensor, weights: Tensor | None, axis: int
    ) -> Tensor:
        hit = target.to(int64).unsqueeze(axis)
        ctx.axis, ctx.shape, ctx.weighted = axis, prediction.shape, weights is not None
        ctx.save_for_backward(hit, *([weights] if ctx.weighted else []))
        return _weighed(-prediction.gather(axis, hit).squeeze(axis), weights)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        hit, *weights = ctx.saved_tensors
        own = _weighed(-upstream, weights[0] if ctx.weighted else None).unsqueeze(ctx.axis)
        slopes = upstream.new_zeros(ctx.shape).scatter(ctx.axis, hit, own)
        return slopes, None, None, None


class _CrossEntropy(torch.autograd.Function):
    """Of logits, one value per unit; see ``numba.softmax`` for the form.

    Slopes are made from the logits again: to keep them would take as much memory twice. Smoothing
    is over the classes that are possible at all.
    """

    @staticmethod
    def forward(
        ctx: Any, smoothing: float, logits: Tensor, target: Tensor, weights: Tensor | None,
        axis: int,
    ) -> Tensor:  # fmt: skip
        high, below, rest = _softmax(logits, axis)
        hit = target.unsqueeze(axis).to(int64)
        own_below, share, moved = below.gather(axis, hit), 1.0 / (1.0 + rest), None
        if smoothing:
            possible = logits > -inf
            count = where(possible, 1.0, 0.0).sum(axis, keepdim=True)
            moved = smoothing / where(count < 1.0, 1.0, count)
            spread = where(possible, -below, 0.0).sum(axis, keepdim=True)
            values = log1p(rest) + (moved * spread - (1.0 - smoothing) * own_below)
            kept = 1.0 - smoothing + where(own_below > -inf, moved, 0.0)
            own = exp(own_below) * share - kept
        else:
            values = log1p(rest) - own_below
            own = where(own_below >= 0.0, -rest, exp(own_below) - (1.0 + rest)) * share
        ctx.axis, ctx.weighted = axis, weights is not None
        weights = None if weights is None else weights.unsqueeze(axis)
        slopes = (each if each is None else _weighed(each, weights) for each in (share, own, moved))
        ctx.save_for_backward(logits, hit, high, *slopes)
        return _weighed(values, weights).squeeze(axis)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        logits, hit, high, share, own, moved = ctx.saved_tensors
        upstream = upstream.unsqueeze(ctx.axis)
        slopes = exp(logits - high) * (share * upstream)
        if moved is not None:
            slopes = slopes - where(logits > -inf, moved * upstream, 0.0)
        if ctx.weighted:  # absent logits may be NaN
            slopes = where(share != 0.0, slopes, 0.0)
        return None, slopes.scatter(ctx.axis, hit, own * upstream), None, None, None


class _OfDistributions(torch.autograd.Function):
    """The same of distributions."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, weights: Tensor | None, axis: int
    ) -> Tensor:
        high, below, rest = _softmax(logits, axis)
        mass = target.sum(axis, keepdim=True)
        spread = where(target == 0.0, 0.0, target * below).sum(axis, keepdim=True)
        lean = where(below >= 0.0, 0.0, target).sum(axis, keepdim=True)
        ctx.axis, ctx.weighted = axis, weights is not None
        given = () if weights is None else (weights.unsqueeze(axis),)
        ctx.save_for_backward(logits, target, high, rest, mass, lean, *given)
        return _weighed((mass * log1p(rest) - spread).squeeze(axis), weights)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        logits, target, high, rest, mass, lean, *weights = ctx.saved_tensors
        below, share = logits - high, 1.0 / (1.0 + rest)
        alone = (below >= 0.0) & (rest < 1.0)
        slopes = exp(below) * (mass * share) - target
        slopes = where(alone, (lean - target * rest) * share, slopes)
        slopes = _weighed(slopes, weights[0] if ctx.weighted else None)
        return slopes * upstream.unsqueeze(ctx.axis), None, None, None


def of_classes(loss: str, smoothing: float, *, soft: bool) -> Callable[..., Tensor]:
    """A loss of class indices, or of ``soft`` targets: differentiable values, one per unit.

    The function takes (prediction, target, weights, axis).
    """
    if loss == "cross_entropy_of_log_probabilities":
        return _Picked.apply
    if soft:
        return _OfDistributions.apply
    return functools.partial(_CrossEntropy.apply, smoothing)


def _by_place(ctx: Any, upstream: Tensor) -> list[Tensor | None]:
    """One gradient for each input, None for those that have none."""
    found: list[Tensor | None] = [None] * ctx.inputs
    for place, slope in zip(ctx.places, ctx.saved_tensors, strict=True):
        found[place] = slope * upstream
    return found


def _softmax(logits: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Highest logit, how far each is below, and the sum of powers but for the highest one's."""
    high = logits.amax(axis, keepdim=True)
    below = logits - high
    # What shares the highest logit counts 1 each, and one of these is left out: counted apart from
    # the others, and in their dtype, for a loop over two widths takes no vectors.
    top = logits >= high
    others = where(top, 0.0, exp(below)).sum(axis, keepdim=True)
    return high, below, others + (where(top, 1.0, 0.0).sum(axis, keepdim=True) - 1.0)


def _weighed(numbers: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return numbers
    if weights.dtype == torch.bool:
        return where(weights, numbers, 0.0)
    return where(weights != 0.0, weights * numbers, 0.0)


def _where(condition, yes, no):
    if isinstance(condition, bool):  # it asks about parameters alone
        return yes if condition else no
    return where(condition, yes, no)


def _power_of(x, rest, exponent):
    return torch.pow(x, exponent) * exp(exponent * rest / x)


def _horner(coefficients, x):
    total = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = coefficient + x * total
    return total


_NUMBERS = elementary.constants(elementary.SINGLE)[0]
_POLYNOMIALS = {
    name: functools.partial(_horner, getattr(elementary.SINGLE, name))
    for name in elementary.POLYNOMIALS
}
# Words that are made of others; "lift" and "log_lift" are words of these.
_COMPOSED = (
    "sign", "log1p_gap", "exp_gap", "log_ratio", "relative_entropy", "surprise_at_best",
    "surprise_of_logit",
)  # fmt: skip
_WORDS: dict[str, Any] = {
    "where": _where, "absolute": torch.abs, "sqrt": torch.sqrt, "ratio": torch.div,
    "exp": torch.exp, "exp_below": torch.exp, "expm1": torch.expm1, "log": torch.log,
    "log_any": torch.log, "log1p": torch.log1p, "log1p_unit": torch.log1p,
    "power_of": _power_of, **_POLYNOMIALS,
    **{name: _NUMBERS[name] for name in (*elementary.LIMITS, "lift", "log_lift")},
}  # fmt: skip


@functools.cache
def _in_torch(loss: str) -> Formula:
    """The formula, whose words are torch's functions."""
    words: dict[str, Any] = {"__builtins__": builtins, **_WORDS}
    for name in _COMPOSED:
        words[name] = FunctionType(getattr(elementary, name).__code__, words)
    return FunctionType(getattr(formulas, loss).__code__, words)
