# mypy: disable-error-code="no-untyped-call"
"""Contrastive losses in torch with memory linear in the batch.

Scores of all pairs are products of rows; a slice of rows at a time is scored, turned into slopes in
place, and multiplied into the gradients. One pass is three products of matrices, as with the whole
matrix. The symmetric loss needs every column's sum before any slope: within the budget it keeps the
one matrix, beyond it scores each slice twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from lossary.contract import LossError
from lossary.kernels.chunked.on_torch import BUDGET, _rows, linear_cross_entropy
from lossary.numerics import unit_rows

Tensor = torch.Tensor
Slopes = Callable[[Tensor, slice], Tensor]


def info_nce(
    queries: Tensor,
    keys: Tensor,
    *,
    temperature: float = 0.05,
    symmetric: bool = False,
    reduction: str = "mean",
    budget: int = BUDGET,
) -> Tensor:
    """``lossary.losses.contrastive.info_nce`` without the matrix of all scores.

    Shapes (pairs, features); ``symmetric`` is CLIP's loss. ``reduction``: mean or sum. ``budget``:
    bytes of scores at a time. Errors: ``LossError``.
    """
    _check("info_nce", queries, keys, reduction)
    left, right = unit_rows(queries) / temperature, unit_rows(keys)
    n = len(queries)
    if not symmetric:
        own = torch.arange(n, device=queries.device)
        return linear_cross_entropy(
            left, right, own, ignore=None, reduction=reduction, budget=budget
        )
    return _Symmetric.apply(left, right, budget) / (n if reduction == "mean" else 1)


def siglip(
    queries: Tensor,
    keys: Tensor,
    *,
    scale: Tensor | float = 10.0,
    bias: Tensor | float = -10.0,
    reduction: str = "mean",
    budget: int = BUDGET,
) -> Tensor:
    """Binary cross-entropy of every pair, ``scale * cosine + bias`` against own or not (Zhai 2023).

    Summed over a query's pairs; ``reduction`` over queries: mean or sum. ``scale`` and ``bias`` may
    be learned. Shapes (pairs, features). Errors: ``LossError``.
    """
    _check("siglip", queries, keys, reduction)
    left, right = unit_rows(queries) * scale, unit_rows(keys)
    # The bias rides along as one more feature, so its gradient needs no code of its own.
    offset = torch.as_tensor(bias, dtype=left.dtype, device=left.device)
    left = torch.cat([left, offset.expand(len(left), 1)], 1)
    right = torch.cat([right, torch.ones_like(right[:, :1])], 1)
    return _Pairs.apply(left, right, _siglip_slopes, budget) / (
        len(left) if reduction == "mean" else 1
    )


def _siglip_slopes(scores: Tensor, part: slice) -> Tensor:
    own = torch.arange(len(scores), device=scores.device)
    column = own + part.start
    # Own pairs turned round: then every value is softplus and every slope a sigmoid.
    scores[own, column] *= -1
    values = functional.softplus(scores, threshold=80).sum(1, dtype=torch.float64)
    scores.sigmoid_()
    scores[own, column] *= -1
    return values


def supervised_contrastive(
    prediction: Tensor,
    target: Tensor,
    *,
    temperature: float = 0.07,
    reduction: str = "mean",
    budget: int = BUDGET,
) -> Tensor:
    """``lossary.losses.contrastive.supervised_contrastive`` without the matrix of all scores.

    Shapes (samples, features) and (samples,); the mean is over samples that share their label with
    another. Errors: ``LossError``.
    """
    _check("supervised_contrastive", prediction, prediction, reduction)
    if target.shape != prediction.shape[:1]:
        raise LossError(
            f"supervised_contrastive: target has shape {tuple(target.shape)}, expected "
            f"({len(prediction)},)"
        )
    rows = unit_rows(prediction)
    _, label, sizes = torch.unique(target, return_inverse=True, return_counts=True)
    partners = sizes[label] - 1

    def slopes(scores: Tensor, part: slice) -> Tensor:
        own = torch.arange(len(scores), device=scores.device)
        scores[own, own + part.start] = -math.inf
        high = scores.amax(1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)
        same = label[part].unsqueeze(1) == label
        same[own, own + part.start] = False
        many = partners[part].unsqueeze(1)
        share = 1.0 / torch.where(many == 0, 1, many).to(scores.dtype)
        distance = torch.where(same, high - scores, 0.0).sum(1, dtype=torch.float64)
        scores.sub_(high).exp_()
        total = scores.sum(1, keepdim=True)
        scores.div_(torch.where(total == 0, 1.0, total))
        scores.sub_(same * share)
        alone = (many == 0).squeeze(1)
        scores[alone] = 0
        values = distance * share.squeeze(1) + total.squeeze(1).log()
        return torch.where(alone, 0.0, values)

    whole = _Pairs.apply(rows / temperature, rows, slopes, budget)
    count = int((partners > 0).sum()) or 1
    return whole / (count if reduction == "mean" else 1)


def _check(name: str, left: Tensor, right: Tensor, reduction: str) -> None:
    if left.ndim != 2 or left.shape != right.shape:
        raise LossError(
            f"{name}: queries {tuple(left.shape)} and keys {tuple(right.shape)} must both be "
            "(pairs, features)"
        )
    if reduction not in ("mean", "sum"):
        raise LossError(f"{name}: reduction={reduction!r}; it can be mean or sum")
    if not left.is_floating_point() or torch.finfo(left.dtype).bits < 32:
        raise LossError(f"{name}: {left.dtype} embeddings; give float32 (scores need it)")


class _Pairs(torch.autograd.Function):
    """The sum over rows of what ``slopes(scores, part)`` returns; it turns scores into slopes."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, slopes: Slopes, budget: int) -> Tensor:
        needs = any(ctx.needs_input_grad[:2])
        step = _rows(len(right), left.itemsize, budget)
        scores = left.new_empty(min(step, len(left)), len(right))
        by_left, by_right = torch.empty_like(left), torch.zeros_like(right)
        total = torch.zeros((), dtype=torch.float64, device=left.device)
        for low in range(0, len(left), step):
            part = slice(low, min(low + step, len(left)))
            rows = torch.mm(left[part], right.t(), out=scores[: part.stop - low])
            total += slopes(rows, part).sum()
            if needs:
                torch.mm(rows, right, out=by_left[part])
                by_right.addmm_(rows.t(), left[part])
        ctx.save_for_backward(by_left, by_right)
        return total.to(left.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        by_left, by_right = ctx.saved_tensors
        return upstream * by_left, upstream * by_right, None, None


class _Symmetric(torch.autograd.Function):
    """Half the surprises of the diagonal along rows and along columns, summed."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, budget: int) -> Tensor:
        n = len(left)
        keep = n * n * left.itemsize <= budget
        step = _rows(n, left.itemsize, min(budget, BUDGET))
        scores = left.new_empty(n if keep else min(step, n), n)
        by_row = left.new_empty(n)
        by_column = left.new_full((n,), -math.inf)
        spare = left.new_empty(min(step, n), n)
        for low in range(0, n, step):
            part = slice(low, min(low + step, n))
            rows = scores[part] if keep else scores[: part.stop - low]
            torch.mm(left[part], right.t(), out=rows)
            # The largest score of a slice serves rows and columns: one exponential for both would
            # underflow for unlike columns, so each has its own.
            scratch = spare[: part.stop - low]
            high = rows.amax(1, keepdim=True)
            torch.sub(rows, high, out=scratch).exp_()
            by_row[part] = scratch.sum(1).log_() + high.squeeze(1)
            top = rows.amax(0, keepdim=True)
            torch.sub(rows, top, out=scratch).exp_()
            by_column = torch.logaddexp(by_column, scratch.sum(0).log_() + top.squeeze(0))
        own = (left * right).sum(1)
        total = 0.5 * ((by_row - own) + (by_column - own)).sum(dtype=torch.float64)
        by_left, by_right = torch.empty_like(left), torch.zeros_like(right)
        if any(ctx.needs_input_grad[:2]):
            for low in range(0, n, step):
                part = slice(low, min(low + step, n))
                rows = scores[part] if keep else scores[: part.stop - low]
                if not keep:
                    torch.mm(left[part], right.t(), out=rows)
                scratch = torch.sub(rows, by_column, out=spare[: part.stop - low]).exp_()
                rows.sub_(by_row[part].unsqueeze(1)).exp_().add_(scratch).mul_(0.5)
                diagonal = torch.arange(low, part.stop, device=left.device)
                rows[diagonal - low, diagonal] -= 1
                torch.mm(rows, right, out=by_left[part])
                by_right.addmm_(rows.t(), left[part])
        ctx.save_for_backward(by_left, by_right)
        return total.to(left.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        by_left, by_right = ctx.saved_tensors
        return upstream * by_left, upstream * by_right, None
