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
Formula = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def formula(loss: str, parameters: Mapping[str, Any]) -> Formula | None:
    """(values, slopes) of single-precision tensors; None where there is no such form."""
    if loss == "cross_entropy":
        smoothing = float(parameters.get("label_smoothing", 0.0))
        return functools.partial(smoothed, smoothing=smoothing) if smoothing else cross_entropy
    if not hasattr(formulas, loss):
        return None
    compute, numbers = _in_torch(loss), pointwise.numbers(loss, parameters)
    return lambda prediction, target: compute(prediction, target, *numbers)


def total(
    prediction: Tensor, target: Tensor, formula: Formula, weights: Tensor | None = None
) -> Tensor:
    """The weighted sum of the values, differentiable by the prediction; 0 means absent."""
    return _Total.apply(prediction, target, weights, formula)


def values(
    prediction: Tensor, target: Tensor, formula: Formula, weights: Tensor | None = None
) -> Tensor:
    """The weighted values, one per number of the target, differentiable by the prediction."""
    return _Values.apply(prediction, target, weights, formula)


def _weighted(
    prediction: Tensor, target: Tensor, weights: Tensor | None, formula: Formula
) -> tuple[Tensor, Tensor]:
    values, slopes = formula(prediction, target)
    if weights is None:
        return values, slopes
    weights = weights.reshape(values.shape)
    present = weights != 0.0
    return where(present, weights * values, 0.0), where(present, weights * slopes, 0.0)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, prediction: Tensor, target: Tensor, weights: Tensor | None, formula: Formula
    ) -> Tensor:
        values, slopes = _weighted(prediction, target, weights, formula)
        ctx.save_for_backward(slopes)
        return values.sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return ctx.saved_tensors[0] * upstream, None, None, None


class _Values(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, prediction: Tensor, target: Tensor, weights: Tensor | None, formula: Formula
    ) -> Tensor:
        values, slopes = _weighted(prediction, target, weights, formula)
        ctx.shape = values.shape
        ctx.save_for_backward(slopes)
        return values.reshape(target.shape)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return ctx.saved_tensors[0] * upstream.reshape(ctx.shape), None, None, None


def _softmax(logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """Highest logit, powers, their sum but for the highest one's, and what is sought of classes."""
    high = logits.amax(-1, keepdim=True)
    powers = exp(logits - high)
    # What shares the highest logit counts 1 each, and one of these is left out: counted apart from
    # the others, and in their dtype, for a loop over two widths takes no vectors.
    top = logits >= high
    others = where(top, 0.0, powers).sum(-1, keepdim=True)
    rest = others + (where(top, 1.0, 0.0).sum(-1, keepdim=True) - 1.0)
    hit = target.unsqueeze(-1).to(int64)
    return high, powers, rest, hit, logits.gather(-1, hit) - high


def cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Of class indices, class axis last; see ``numba.softmax`` for the form."""
    _, powers, rest, hit, below = _softmax(logits, target)
    share = 1.0 / (1.0 + rest)
    own = where(below >= 0.0, -rest, exp(below) - (1.0 + rest)) * share
    return log1p(rest) - below, (powers * share).scatter(-1, hit, own)


def smoothed(logits: Tensor, target: Tensor, *, smoothing: float) -> tuple[Tensor, Tensor]:
    """The same with label smoothing over the classes that are possible at all."""
    high, powers, rest, hit, below = _softmax(logits, target)
    possible = logits > -inf
    count = where(possible, 1.0, 0.0).sum(-1, keepdim=True)
    moved = smoothing / where(count < 1.0, 1.0, count)
    spread = where(possible, high - logits, 0.0).sum(-1, keepdim=True)
    values = log1p(rest) + (moved * spread - (1.0 - smoothing) * below)
    slopes = powers * (1.0 / (1.0 + rest)) - where(possible, moved, 0.0)
    own = slopes.gather(-1, hit) - (1.0 - smoothing)
    return values, slopes.scatter(-1, hit, own)


def _where(condition, yes, no):
    if isinstance(condition, bool):  # it asks about parameters alone
        return yes if condition else no
    return where(condition, yes, no)


_WORDS: dict[str, Any] = {
    "where": _where, "absolute": torch.abs, "sqrt": torch.sqrt, "ratio": torch.div,
    "exp": torch.exp, "exp_below": torch.exp, "expm1": torch.expm1, "log": torch.log,
    "log1p": torch.log1p, "log1p_unit": torch.log1p,
    **{name: elementary.constants(elementary.SINGLE)[0][name] for name in elementary.LIMITS},
}  # fmt: skip


@functools.cache
def _in_torch(loss: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The formula, whose words are torch's functions."""
    words: dict[str, Any] = {"__builtins__": builtins, **_WORDS}
    words["sign"] = FunctionType(elementary.sign.__code__, words)
    return FunctionType(getattr(formulas, loss).__code__, words)
