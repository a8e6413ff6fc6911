# mypy: disable-error-code="no-untyped-call"
"""Contrastive losses in torch with memory linear in the batch.

Cosines of all pairs are products of unit rows; a slice of queries at a time is scored against all
keys as (keys, queries), turned into slopes in place, and multiplied into the gradients. One sweep
is three products of matrices, as with the whole matrix. Scores over a temperature are bounded, so
their exponentials need no largest score before. The symmetric loss needs every key's sum before any
slope: within the budget it keeps the one matrix, beyond it scores each slice twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from lossary.contract import LossError, contract_of
from lossary.kernels.chunked import products_torch as products
from lossary.kernels.chunked.sliced_torch import (
    BUDGET,
    Found,
    Sliced,
    Tensor,
    Wanted,
    blocks_of,
    slices,
)

_SHARPEST = 40.0  # scores whose exponentials, and sums of them, float32 holds with all digits
_SHARPEST_DOUBLE = 340.0


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

    Shapes (pairs, features); ``symmetric`` is CLIP's loss. ``reduction``: none, mean or sum.
    ``budget``: bytes of scores at a time. Errors: ``LossError``.
    """
    _check("info_nce", queries, keys, reduction, temperature)
    given = {"temperature": temperature, "symmetric": symmetric, "budget": budget}
    return _reduced(INFO_NCE, (queries, keys), reduction, given)


def siglip(
    queries: Tensor,
    keys: Tensor,
    *,
    scale: Tensor | float = 10.0,
    bias: Tensor | float = -10.0,
    reduction: str = "mean",
    budget: int = BUDGET,
) -> Tensor:
    """``lossary.losses.contrastive.siglip`` without the matrix of all scores.

    ``scale`` and ``bias`` may be learned: tensors of one number. Shapes (pairs, features);
    ``reduction`` over queries: none, mean or sum. Errors: ``LossError``.
    """
    _check("siglip", queries, keys, reduction)
    learned = tuple(torch.as_tensor(x, dtype=queries.dtype) for x in (scale, bias))
    return _reduced(SIGLIP, (queries, keys, *learned), reduction, {"budget": budget})


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
    _check("supervised_contrastive", prediction, prediction, reduction, temperature)
    if target.shape != prediction.shape[:1]:
        raise LossError(
            f"supervised_contrastive: target has shape {tuple(target.shape)}, expected "
            f"({len(prediction)},)"
        )
    given = {"temperature": temperature, "budget": budget}
    count = int((_others_of_class(target)[1] > 0).sum()) if reduction == "mean" else 1
    return _reduced(SUPERVISED, (prediction, target), reduction, given, count)


def _reduced(
    loss: Sliced, arrays: tuple[Tensor, ...], reduction: str, given: Any, count: int | None = None
) -> Tensor:
    if reduction == "none":
        return loss.values(*arrays, **given)
    units = len(arrays[0]) if count is None else count
    factor = 1.0 / max(units, 1) if reduction == "mean" else 1.0
    return loss.scaled_sum(*arrays, factor=factor, **given)


def _check(
    name: str, left: Tensor, right: Tensor, reduction: str, temperature: float = 1.0
) -> None:
    if left.ndim != 2 or left.shape != right.shape:
        raise LossError(
            f"{name}: queries {tuple(left.shape)} and keys {tuple(right.shape)} must both be "
            "(pairs, features)"
        )
    if reduction not in ("none", "mean", "sum"):
        raise LossError(f"{name}: reduction={reduction!r}; it can be none, mean or sum")
    if not left.is_floating_point() or torch.finfo(left.dtype).bits < 32:
        raise LossError(f"{name}: {left.dtype} embeddings; give float32 (scores need it)")
    if not temperature > 1 / _SHARPEST_DOUBLE:
        raise LossError(
            f"{name}: temperature={temperature}; give {1 / _SHARPEST_DOUBLE:.4f} or more"
        )


class _Rows:
    """Rows scaled to length 1, and the way back for gradients."""

    def __init__(self, x: Tensor, dtype: torch.dtype) -> None:
        high = torch.maximum(x.amax(1, keepdim=True), -x.amin(1, keepdim=True))
        usable = (high > 0) & torch.isfinite(high)
        self.high = torch.where(usable, high, 1.0)
        self.unit = (x / self.high).to(dtype)
        self.length = torch.linalg.vecdot(self.unit, self.unit).sqrt_().unsqueeze(1)
        # A zero row stays zero, with derivative 0.
        self.length = torch.where(self.length == 0, math.inf, self.length)
        self.unit /= self.length

    def back(self, gradient: Tensor) -> Tensor:
        """The gradient by the rows as they came; ``gradient`` is used up."""
        along = torch.linalg.vecdot(self.unit, gradient).unsqueeze(1)
        return gradient.addcmul_(self.unit, along, value=-1).div_(self.length).div_(self.high)


class _Sweep:
    """Queries against keys, slice by slice: scores in one buffer, gradients as they come."""

    def __init__(self, left: Tensor, right: Tensor, budget: int, gradients: bool) -> None:
        self.left, self.right, self.gradients = left, right, gradients
        self.parts = slices(len(left), len(right), left.itemsize, budget)
        most = self.parts[0].stop if self.parts else 0
        self.scores = left.new_empty(most * len(right))
        self.by_left = torch.empty_like(left) if gradients else None
        self.by_right = torch.zeros_like(right) if gradients else None
        self.turned = products.turned(right) if gradients else None

    def scored(self, part: slice) -> tuple[Tensor, Tensor]:
        """(scores of a slice, those of the queries with their own keys: a view)."""
        shape = (len(self.right), part.stop - part.start)
        scores = self.scores[: shape[0] * shape[1]].view(shape)
        products.score(self.right, self.left[part], scores)
        return scores, scores[part].diagonal()

    def add(self, part: slice, slopes: Tensor, ratio: Tensor | None = None) -> None:
        """Multiply slopes (times a factor per query) into the gradients."""
        if self.by_left is None or self.by_right is None:
            return
        rows = self.left[part]
        products.gather(slopes, self.right, self.by_left[part], self.turned)
        if ratio is not None:
            self.by_left[part] *= ratio.unsqueeze(1)
            rows = rows * ratio.unsqueeze(1)
        products.add(self.by_right, slopes, rows)


def _exponentials(scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Scores become their exponentials, 0 at own pairs; (exp(own), sums of the others)."""
    power = own.exp()
    own.fill_(-math.inf)
    others = torch.zeros_like(power)
    for block in blocks_of(scores):
        others += block.exp_().sum(0)
    return power, others


class _Contrast(Sliced):
    """Arrays of which the first two are rows that meet each other, or the first with itself."""

    def scores(self, *arrays: Any) -> int:
        return len(arrays[0]) ** 2

    def decline(self, arrays: tuple[Tensor, ...], parameters: Mapping[str, Any]) -> str | None:
        if arrays[0].ndim != 2:
            return f"the {arrays[0].ndim} dimensions are not (rows, features)"
        if not parameters.get("temperature", 1.0) > 1 / _SHARPEST_DOUBLE:
            return "the temperature is so low that exponentials of scores overflow"
        return None

    def definition(self, arrays: tuple[Any, ...], parameters: Mapping[str, Any]) -> Tensor:
        given = {key: value for key, value in parameters.items() if key != "budget"}
        names = ("scale", "bias")
        given |= dict(zip(names, arrays[2:], strict=False))
        return contract_of(self.loss).compute(*arrays[:2], **given)  # type: ignore[no-any-return]


def _precision(x: Tensor, temperature: float) -> torch.dtype:
    return x.dtype if temperature > 1 / _SHARPEST else torch.float64


def _pull(weights: Tensor | None, factor: float, like: Tensor) -> Tensor:
    if weights is None:
        return like.new_full((len(like),), factor)
    return weights.to(like.dtype) * factor


def _found(values: Tensor, pull: Tensor, gradients: Any, first: Tensor, wanted: Wanted) -> Found:
    total = torch.where(pull == 0, 0.0, values * pull).sum(dtype=torch.float64)
    kept = values.to(first.dtype) if wanted.values else None
    found = tuple(
        None if x is None or not needed else x.to(first.dtype)
        for x, needed in zip(gradients, wanted.gradients, strict=True)
    )
    return Found(total.to(first.dtype), found, kept)


class _InfoNCE(_Contrast):
    loss = "info_nce"

    def run(
        self, arrays: tuple[Any, ...], weights: Tensor | None, factor: float, wanted: Wanted,
        parameters: Mapping[str, Any],
    ) -> Found:  # fmt: skip
        temperature = parameters["temperature"]
        dtype = _precision(arrays[0], temperature)
        queries, keys = (_Rows(x, dtype) for x in arrays)
        pull = _pull(weights, factor, queries.unit)
        sweep = _Sweep(
            queries.unit / temperature, keys.unit, parameters.get("budget", BUDGET),
            any(wanted.gradients),
        )  # fmt: skip
        values = (
            _both_ways(sweep, pull, parameters)
            if parameters["symmetric"]
            else _one_way(sweep, pull)
        )
        gradients: Any = (None, None)
        if sweep.by_left is not None and sweep.by_right is not None:
            gradients = (queries.back(sweep.by_left.div_(temperature)), keys.back(sweep.by_right))
        return _found(values, pull, gradients, arrays[0], wanted)


def _one_way(sweep: _Sweep, pull: Tensor) -> Tensor:
    values = torch.empty_like(pull)
    for part in sweep.parts:
        scores, own = sweep.scored(part)
        power, others = _exponentials(scores, own)
        values[part] = torch.log1p(others / power)
        own.copy_(-others)  # p - 1, as the others' share
        sweep.add(part, scores, pull[part] / (others + power))
    return values


def _both_ways(sweep: _Sweep, pull: Tensor, parameters: Mapping[str, Any]) -> Tensor:
    n = len(pull)
    keep = n * n * pull.itemsize <= parameters.get("budget", BUDGET)
    kept = []
    power, by_query = torch.empty_like(pull), torch.empty_like(pull)
    by_key = torch.zeros_like(pull)
    for part in sweep.parts:
        if keep:
            sweep.scores = pull.new_empty(n * (part.stop - part.start))
        scores, own = sweep.scored(part)
        power[part], by_query[part] = _exponentials(scores, own)
        by_key += scores.sum(1)
        if keep:
            kept.append(scores)
    if sweep.gradients:
        row, column = (0.5 * pull / (sums + power) for sums in (by_query, by_key))
        at_own = -(row * by_query + column * by_key)
        for place, part in enumerate(sweep.parts):
            if keep:
                scores = kept[place]
            else:
                scores, own = sweep.scored(part)
                scores.exp_()
            blocks = blocks_of(scores)
            columns = column.unsqueeze(1).split(len(blocks[0]))
            for block, factor in zip(blocks, columns, strict=True):
                block.mul_(factor + row[part])
            scores[part].diagonal().copy_(at_own[part])
            sweep.add(part, scores)
    return 0.5 * (torch.log1p(by_query / power) + torch.log1p(by_key / power))


class _SigLIP(_Contrast):
    """Arrays: queries, keys and perhaps scale and bias."""

    loss = "siglip"

    def run(
        self, arrays: tuple[Any, ...], weights: Tensor | None, factor: float, wanted: Wanted,
        parameters: Mapping[str, Any],
    ) -> Found:  # fmt: skip
        scale, bias = (*arrays[2:], *map(parameters.get, ("scale", "bias")))[:2]
        scale, bias = float(scale), float(bias)
        queries, keys = (_Rows(x, arrays[0].dtype) for x in arrays[:2])
        pull = _pull(weights, factor, queries.unit)
        budget = parameters.get("budget", BUDGET)
        sweep = _Sweep(scale * queries.unit, keys.unit, budget, any(wanted.gradients))
        values = torch.zeros_like(pull)
        by_bias = torch.zeros((), dtype=torch.float64, device=pull.device)
        for part in sweep.parts:
            scores, own = sweep.scored(part)
            scores += bias
            # Own pairs turned round: then every value is softplus and every slope a sigmoid.
            own.neg_()
            for block in blocks_of(scores):
                values[part] += functional.softplus(block, threshold=80).sum(0)
                block.sigmoid_()
            own.neg_()
            by_bias += (scores.sum(0) * pull[part]).sum(dtype=torch.float64)
            sweep.add(part, scores, pull[part])
        gradients: Any = (None,) * len(arrays)
        if sweep.by_left is not None and sweep.by_right is not None:
            by_scale = torch.linalg.vecdot(sweep.by_left, queries.unit).sum()
            rows = (queries.back(sweep.by_left.mul_(scale)), keys.back(sweep.by_right))
            learned = (
                x.reshape(y.shape) for x, y in zip((by_scale, by_bias), arrays[2:], strict=False)
            )
            gradients = (*rows, *learned)
        return _found(values, pull, gradients, arrays[0], wanted)


def _others_of_class(target: Tensor) -> tuple[Tensor, Tensor]:
    """(labels as numbers from 0, how many others have the label of each)."""
    _, label, sizes = torch.unique(target, return_inverse=True, return_counts=True)
    return label, sizes[label] - 1


class _Supervised(_Contrast):
    loss = "supervised_contrastive"

    def run(
        self, arrays: tuple[Any, ...], weights: Tensor | None, factor: float, wanted: Wanted,
        parameters: Mapping[str, Any],
    ) -> Found:  # fmt: skip
        prediction, target = arrays
        temperature = parameters["temperature"]
        label, partners = _others_of_class(target)
        rows = _Rows(prediction, _precision(prediction, temperature))
        alone = partners == 0
        pull = torch.where(alone, 0.0, _pull(weights, factor, rows.unit))
        share = 1.0 / torch.where(alone, 1, partners).to(pull.dtype)
        values = torch.empty_like(pull)
        budget = parameters.get("budget", BUDGET)
        sweep = _Sweep(rows.unit / temperature, rows.unit, budget, any(wanted.gradients))
        for part in sweep.parts:
            scores, own = sweep.scored(part)
            own.fill_(0.0)
            blocks, near = blocks_of(scores), torch.zeros_like(pull[part])
            here = label.unsqueeze(1).split(len(blocks[0]))
            for block, labels in zip(blocks, here, strict=True):
                near += torch.where(labels == label[part], block, 0.0).sum(0)
            _, others = _exponentials(scores, own)
            strangers = torch.zeros_like(near)
            for block, labels in zip(blocks, here, strict=True):
                strangers += torch.where(labels == label[part], 0.0, block).sum(0)
            # The only value and slope that can vanish are those of a single partner, p - 1.
            single, missed = partners[part] == 1, -strangers / others
            spread = others.log() - near * share[part]
            spread = torch.where(single, torch.log1p(strangers / near.exp()), spread)
            values[part] = torch.where(alone[part], 0.0, spread)
            for block, labels in zip(blocks, here, strict=True):
                block.div_(others)
                slopes = torch.where(single, missed, block - share[part])
                block.copy_(torch.where(labels == label[part], slopes, block))
            own.fill_(0.0)
            if bool(alone[part].any()):  # without others at all, 0 / 0
                scores[:, alone[part]] = 0.0
            sweep.add(part, scores, pull[part])
        gradient = None
        if sweep.by_left is not None and sweep.by_right is not None:
            gradient = rows.back(sweep.by_left.div_(temperature).add_(sweep.by_right))
        return _found(values, pull, (gradient, None), prediction, wanted)


INFO_NCE, SIGLIP, SUPERVISED = _InfoNCE(), _SigLIP(), _Supervised()
