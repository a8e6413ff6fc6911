"""A linear layer with softmax cross-entropy, slice by slice in torch.

Scores of a slice stand as (classes, rows), the way in which all three products of matrices are
quick. Passes over a slice go block by block of classes, so that a block stays in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from lossary.contract import LossError, contract_of
from lossary.kernels.chunked import products_torch as products
from lossary.kernels.chunked.sliced_torch import (
    BUDGET,
    Found,
    Sliced,
    Tensor,
    Wanted,
    blocks_of,
    fresh,
    slices,
)

# With 512 MKL's three products took 4 to 10 % more time, with 256 another 10 %; oneDNN's are made
# in blocks.
_ROWS, _ROWS_IN_BLOCKS = 1024, 512


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore: int | None = -100,
    class_weights: Tensor | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
    budget: int | None = None,
) -> Tensor:
    """``cross_entropy(hidden @ weight.T + bias, target)`` without ever holding all logits.

    Shapes: ``hidden`` (..., features), ``weight`` (classes, features), ``target`` (...) class
    indices, ``bias`` and ``class_weights`` (classes,). ``z_loss`` adds its multiple of
    log(sum(exp(logits)))^2 (Chowdhery 2022), ``softcap`` c replaces logits z by c tanh(z / c)
    (Gemma 2). ``reduction``: none, sum or mean (over the class weights of the targets that are not
    ``ignore``; 0 if there is none). ``budget``: bytes of logits at a time; by default as many as
    the weight's gradient takes, or 64 MiB if that is more. Statistics and the sum of that gradient
    are kept in float32 (or float64), so the result does not depend on the budget beyond rounding.
    Unless the reduction is none, the gradients are computed along with the value, if one is asked
    for; second derivatives hold all logits. Errors: ``LossError``.
    """
    if reduction not in ("none", "sum", "mean"):
        raise LossError(f"linear_cross_entropy: reduction={reduction!r}; it can be none, sum, mean")
    _check(hidden, weight, target, bias=bias, class_weights=class_weights)
    counts = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
    _check_indices(target, counts.reshape(-1), len(weight), f" (ignore={ignore})")
    safe = torch.where(counts, target, 0)
    unit = counts.to(_wide(hidden))
    parameters: dict[str, Any] = {
        "label_smoothing": label_smoothing, "z_loss": z_loss, "softcap": softcap, "budget": budget,
        "class_weights": None if class_weights is None else class_weights.detach().to(unit.dtype),
    }  # fmt: skip
    given = (hidden, weight, safe, bias)
    if reduction == "none":
        parameters["counts"] = unit.reshape(-1)
        return LINEAR.values(*given, **parameters)  # type: ignore[arg-type]
    factor = 1.0
    if reduction == "mean":
        measure = unit if class_weights is None else unit * class_weights[safe]
        whole = float(measure.sum())
        factor = 1.0 / whole if whole else 0.0
    return LINEAR.scaled_sum(*given, factor=factor, weights=unit, **parameters)  # type: ignore[arg-type]


def _check(hidden: Tensor, weight: Tensor, target: Tensor, **vectors: Tensor | None) -> None:
    features = hidden.shape[-1]
    if weight.ndim != 2 or weight.shape[1] != features or target.shape != hidden.shape[:-1]:
        raise LossError(
            f"linear_cross_entropy: hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and "
            f"target {tuple(target.shape)} do not fit; expected (..., features), "
            "(classes, features), (...)"
        )
    for name, vector in vectors.items():
        if vector is not None and tuple(vector.shape) != (len(weight),):
            raise LossError(
                f"linear_cross_entropy: {name} has shape {tuple(vector.shape)}, "
                f"expected ({len(weight)},)"
            )


def _check_indices(target: Tensor, counts: Tensor | None, classes: int, hint: str = "") -> None:
    """Raise before any memory is touched by an index outside."""
    labels = target.reshape(-1)
    wrong = (labels < 0) | (labels >= classes)
    if counts is not None:
        wrong &= counts
    if bool(wrong.any()):
        raise LossError(
            f"linear_cross_entropy: target {int(labels[wrong][0])} is not a class of "
            f"0..{classes - 1}{hint}"
        )


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


class Linear(Sliced):
    """Arrays: hidden, weight, target and perhaps a bias.

    Parameters beside the definition's: ``class_weights``, and ``counts`` for unreduced values.
    """

    loss = "linear_cross_entropy"

    def scores(self, *arrays: Any) -> int:
        return math.prod(arrays[0].shape[:-1]) * len(arrays[1])

    def decline(self, arrays: tuple[Tensor, ...], parameters: Mapping[str, Any]) -> str | None:
        return "there are no classes" if 0 in arrays[1].shape else None

    def definition(self, arrays: tuple[Any, ...], parameters: Mapping[str, Any]) -> Tensor:
        hidden, weight, target, bias = (*arrays, None)[:4]
        softcap, z_loss = parameters["softcap"], parameters["z_loss"]
        logits = torch.nn.functional.linear(hidden, weight, bias)
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        more = {"class_weights": parameters.get("class_weights")}
        more["label_smoothing"] = parameters["label_smoothing"]
        values = contract_of("cross_entropy").compute(logits, target, **more)
        if z_loss:
            values = values + z_loss * torch.logsumexp(logits, -1) ** 2
        counts = parameters.get("counts")
        return values if counts is None else torch.where(counts.view(values.shape) == 0, 0, values)

    def run(
        self, arrays: tuple[Any, ...], weights: Tensor | None, factor: float, wanted: Wanted,
        parameters: Mapping[str, Any],
    ) -> Found:  # fmt: skip
        hidden, weight, target, bias = (*arrays, None)[:4]
        flat, labels = hidden.reshape(-1, hidden.shape[-1]), target.reshape(-1).long()
        counts = parameters.get("counts")
        if counts is not None:
            weights = counts if weights is None else torch.where(counts == 0, 0, weights)
        present = None if weights is None else weights != 0
        _check_indices(labels, present, len(weight))
        if present is not None:
            labels = torch.where(present, labels, 0)
        wide, (rows, classes) = _wide(hidden), (len(flat), len(weight))
        budget = parameters.get("budget")
        if budget is None:
            budget = max(BUDGET, weight.numel() * wide.itemsize)
        most = _ROWS_IN_BLOCKS if products.by_onednn(hidden, weight) else _ROWS
        parts = slices(rows, classes, wide.itemsize, budget, most)
        out = fresh((classes * max((_length(part) for part in parts), default=0),), hidden, wide)
        wants = (*wanted.gradients, False)
        by_hidden = torch.empty_like(flat) if wants[0] else None
        by_weight = fresh(tuple(weight.shape), hidden, wide) if wants[1] else None
        by_bias = torch.zeros_like(bias, dtype=wide) if wants[3] else None
        values = torch.empty(rows, dtype=wide, device=hidden.device) if wanted.values else None
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        for part in parts:
            inputs = flat[part]
            pull = torch.full((len(inputs),), factor, dtype=wide, device=hidden.device)
            if present is not None and weights is not None:
                pull *= weights[part]
                # What stands in an absent row must meet neither value nor gradient.
                inputs = torch.where(present[part].unsqueeze(1), inputs, 0)
            logits = out[: classes * len(inputs)].view(classes, len(inputs))
            slope = _score(inputs, weight, bias, parameters["softcap"], logits)
            found, ratio = _surprise(logits, labels[part], pull, any(wants), parameters)
            total += torch.where(pull == 0, 0.0, found * pull).sum(dtype=torch.float64)
            if values is not None:
                values[part] = found if present is None else torch.where(present[part], found, 0.0)
            if slope is not None:
                logits *= slope
            narrow, column = logits.to(hidden.dtype), ratio.unsqueeze(1).to(hidden.dtype)
            if by_hidden is not None:
                products.gather(narrow, weight, by_hidden[part])
                by_hidden[part] *= column
            if by_weight is not None:
                _add_product(by_weight, narrow, inputs * column, first=part.start == 0)
            if by_bias is not None:
                by_bias += logits @ ratio
        if by_weight is not None and not parts:
            by_weight.zero_()
        if by_hidden is not None:
            by_hidden = by_hidden.view(hidden.shape)
        if values is not None:
            values = values.to(hidden.dtype).view(target.shape)
        gradients = (by_hidden, by_weight, None, by_bias)[: len(arrays)]
        return Found(total.to(hidden.dtype), gradients, values)


LINEAR = Linear()


def _length(part: slice) -> int:
    return int(part.stop - part.start)


def _add_product(total: Tensor, one: Tensor, other: Tensor, *, first: bool) -> None:
    """``total`` plus ``one @ other``, summed in the precision of ``total``."""
    if total.dtype == one.dtype:
        products.add(total, one, other, first=first)
    elif first:
        total.copy_(torch.mm(one, other))
    else:
        total += torch.mm(one, other)


def _score(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None, out: Tensor
) -> Tensor | None:
    """Logits of a slice into ``out``; the derivative of the soft cap (None without one)."""
    if out.dtype == inputs.dtype:
        products.score(weight, inputs, out)
    else:
        out.copy_(torch.mm(weight, inputs.t()))
    if bias is not None:
        out += bias.unsqueeze(1)
    if softcap is None:
        return None
    out.div_(softcap).tanh_()
    slope = 1 - out * out
    out.mul_(softcap)
    return slope


def _surprise(
    logits: Tensor, target: Tensor, pull: Tensor, slopes: bool, parameters: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """Values of a slice of shape (classes, rows), and the rows' factors of its slopes.

    The logits become slopes. With S the sum of exp(z - high), and ``others`` that sum without the
    own class, the surprise is log1p(others) where the own class is the likeliest, else
    high - z_y + log(S); the own class's slope is -others / S. Nothing cancels.
    """
    smoothing, z_loss = parameters["label_smoothing"], parameters["z_loss"]
    class_weights = parameters.get("class_weights")
    blocks = blocks_of(logits)
    high = blocks[0].amax(0)
    for block in blocks[1:]:
        torch.maximum(high, block.amax(0), out=high)
    limit = torch.finfo(high.dtype).max
    high.clamp_(-limit, limit)
    index = target.unsqueeze(0)
    own = logits.gather(0, index).squeeze(0)
    shares: Any = [None] * len(blocks)
    if class_weights is not None:
        shares = class_weights.split(len(blocks[0]))
    if not smoothing:
        logits.scatter_(0, index, -math.inf)  # exp makes 0 of it
    spread, others = torch.zeros_like(high), torch.zeros_like(high)
    for block, weights in zip(blocks, shares, strict=True):
        block.sub_(high)
        if smoothing:
            spread -= block.sum(0) if weights is None else weights @ block
        block.exp_()
        if not smoothing:
            others += block.sum(0)
    if smoothing:
        logits.scatter_(0, index, 0.0)
        for block in blocks:
            others += block.sum(0)
    power = torch.exp(own - high)
    total = others + power
    log_total = torch.where(own == high, torch.log1p(others), torch.log(total))
    hit: Any = (1 - smoothing) * (1.0 if class_weights is None else class_weights[target])
    value = hit * ((high - own) + log_total)
    if not (smoothing or z_loss):
        logits.scatter_(0, index, -others.unsqueeze(0))
        return value, pull * hit / total
    share = smoothing / len(logits)
    whole = len(logits) if class_weights is None else class_weights.sum()
    log_sum = high + log_total
    value = value + share * (spread + whole * log_total) + z_loss * log_sum * log_sum
    if slopes:
        extra = share * whole + 2 * z_loss * log_sum
        ratio = (hit + extra) / total
        for block, weights in zip(blocks, shares, strict=True):
            block.mul_(ratio)
            if smoothing:
                block.sub_(share if weights is None else share * weights.unsqueeze(1))
        at_own = (extra * power - hit * others) / total
        at_own = at_own - share * (1.0 if class_weights is None else class_weights[target])
        logits.scatter_(0, index, at_own.unsqueeze(0))
    return value, pull
