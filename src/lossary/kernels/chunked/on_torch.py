# mypy: disable-error-code="no-untyped-call"
"""A linear layer with softmax cross-entropy, and contrastive losses, slice by slice in torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch

from lossary.contract import LossError
from lossary.kernels.numba import available

Tensor = torch.Tensor
BUDGET = 64 * 2**20  # bytes of logits that exist at a time, unless told otherwise


def _rows(columns: int, width: int, budget: int) -> int:
    """How many rows of logits fit: 128 to 512, where products are fast and slices small."""
    return max(128, min(512, budget // max(1, columns * width)))


@dataclass(frozen=True)
class _Options:
    label_smoothing: float
    ignore: int | None
    z_loss: float
    softcap: float | None
    rows: int


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
    budget: int = BUDGET,
) -> Tensor:
    """``cross_entropy(hidden @ weight.T + bias, target)`` without ever holding all logits.

    Shapes: ``hidden`` (..., features), ``weight`` (classes, features), ``target`` (...) class
    indices, ``bias`` and ``class_weights`` (classes,). ``z_loss`` adds its multiple of
    log(sum(exp(logits)))^2 (Chowdhery 2022), ``softcap`` c replaces logits z by c tanh(z / c)
    (Gemma 2). ``reduction``: none, sum or mean (over the class weights of the targets that are not
    ``ignore``; 0 if there is none). ``budget``: bytes of logits at a time. Statistics and the sum
    of the weight's gradient are kept in float32 (or float64), so the result does not depend on the
    budget beyond rounding. Unless the reduction is none, the gradients are computed along with the
    value, if one is asked for. Errors: ``LossError``.
    """
    features = hidden.shape[-1]
    if weight.ndim != 2 or weight.shape[1] != features or target.shape != hidden.shape[:-1]:
        raise LossError(
            f"linear_cross_entropy: hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and "
            f"target {tuple(target.shape)} do not fit; expected (..., features), "
            "(classes, features), (...)"
        )
    if reduction not in ("none", "sum", "mean"):
        raise LossError(f"linear_cross_entropy: reduction={reduction!r}; it can be none, sum, mean")
    classes = weight.shape[0]
    for name, vector in (("bias", bias), ("class_weights", class_weights)):
        if vector is not None and tuple(vector.shape) != (classes,):
            raise LossError(
                f"linear_cross_entropy: {name} has shape {tuple(vector.shape)}, "
                f"expected ({classes},)"
            )
    flat, labels = hidden.reshape(-1, features), target.reshape(-1)
    counts = torch.ones_like(labels, dtype=torch.bool) if ignore is None else labels != ignore
    wrong = counts & ((labels < 0) | (labels >= classes))
    if not torch.compiler.is_compiling() and bool(wrong.any()):
        raise LossError(
            f"linear_cross_entropy: target {int(labels[wrong][0])} is not a class of "
            f"0..{classes - 1}"
            f" (ignore={ignore})"
        )
    options = _Options(
        label_smoothing, ignore, z_loss, softcap, _rows(classes, _wide(hidden).itemsize, budget)
    )
    safe = torch.where(counts, labels, 0).long()
    unit = counts.to(_wide(hidden))
    if class_weights is not None:
        class_weights = class_weights.detach().to(unit.dtype)
    if reduction == "none":
        values = _PerRow.apply(flat, weight, bias, safe, unit, class_weights, options)
        return values.to(hidden.dtype).reshape(target.shape)
    factor = unit
    if reduction == "mean":
        measure = unit if class_weights is None else unit * class_weights[safe]
        whole = measure.sum()
        factor = unit / torch.where(whole == 0, 1.0, whole)
    return _Sum.apply(flat, weight, bias, safe, factor, class_weights, options).to(hidden.dtype)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _logits(
    rows: Tensor, weight: Tensor, bias: Tensor | None, options: _Options, out: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Logits of a slice, and the derivative of the soft cap (None without one)."""
    if out is not None and out.dtype == rows.dtype:
        logits = torch.mm(rows, weight.t(), out=out[: len(rows)])
    else:
        logits = torch.mm(rows, weight.t()).to(_wide(rows))
    if bias is not None:
        logits += bias
    if options.softcap is None:
        return logits, None
    logits.div_(options.softcap).tanh_()
    slope = 1 - logits * logits
    return logits.mul_(options.softcap), slope


def _slice(
    logits: Tensor, target: Tensor, class_weights: Tensor | None, options: _Options
) -> tuple[Tensor, Tensor]:
    """Values of a slice, and the log of each row's sum; its logits become the slopes in place."""
    smoothing, classes = options.label_smoothing, logits.shape[1]
    index = target.unsqueeze(1)
    high, likeliest = logits.max(dim=1, keepdim=True)
    own = logits.gather(1, index)
    spread = None
    if smoothing:
        below = high - logits
        spread = below.mean(1) if class_weights is None else (below @ class_weights) / classes
    logits.sub_(high).exp_()
    # The sum without the likeliest class: log1p of it keeps the digits of a sure prediction.
    logits.scatter_(1, likeliest, 0.0)
    rest = logits.sum(1, keepdim=True)
    lack = torch.log1p(rest).squeeze(1)
    hit_weight = 1.0 if class_weights is None else class_weights[target]
    distance = (high - own).squeeze(1)
    mass = (1 - smoothing) * hit_weight
    value = mass * (distance + lack)
    hit = likeliest == index
    shared: Any = 0.0
    if spread is not None:
        shared = smoothing / classes
        share = smoothing if class_weights is None else smoothing * class_weights.mean()
        value = value + smoothing * spread + share * lack
        mass = mass + share
    log_sum = high.squeeze(1) + lack
    # Slopes: p (Q + 2 z log_sum) - q; at the likeliest class 1 - p = rest / (1 + rest).
    total = 1 + rest
    mass_column = mass.unsqueeze(1) if isinstance(mass, Tensor) else mass
    pull = mass_column
    if options.z_loss:
        value = value + options.z_loss * log_sum * log_sum
        pull = pull + (2 * options.z_loss) * log_sum.unsqueeze(1)
    weight_column = hit_weight.unsqueeze(1) if isinstance(hit_weight, Tensor) else hit_weight
    at_target = (1 - smoothing) * weight_column
    logits.mul_(pull / total)
    if spread is not None:
        logits.sub_(shared if class_weights is None else shared * class_weights)
    logits.scatter_add_(1, index, torch.where(hit, 0.0, -at_target * torch.ones_like(own)))
    at_peak = torch.where(hit, at_target * torch.ones_like(own), 0.0)
    peak_shared = shared if class_weights is None else shared * class_weights[likeliest]
    top = ((pull - at_peak - peak_shared) - (at_peak + peak_shared) * rest) / total
    if options.z_loss:  # its pull is not part of Q: p, not p - 1
        extra = pull - mass_column
        top = (
            (mass_column - at_peak - peak_shared) - (at_peak + peak_shared) * rest + extra
        ) / total
    logits.scatter_(1, likeliest, top)
    return value, log_sum


def _fused(hidden: Tensor, options: _Options, class_weights: Tensor | None) -> Any:
    """The compiled cross-entropy of a slice in one pass, where there is one; else None.

    It takes (logits, classes, factors of rows, where their slopes go) and returns the sum.
    """
    plain = not options.z_loss and options.softcap is None and hidden.is_cpu
    if not plain or torch.compiler.is_compiling() or available.why_not() is not None:
        return None
    program = importlib.import_module("lossary.kernels.numba.program").program("cross_entropy")
    parameters = {"label_smoothing": options.label_smoothing, "class_weights": class_weights}

    def run(logits: Tensor, target: Tensor, factor: Tensor, slopes: Tensor | None) -> float:
        dtypes = (str(x.dtype).removeprefix("torch.") for x in (logits, target))
        purpose = (True, slopes is not None, False)
        launch = program.prepare(tuple(logits.shape), *dtypes, purpose, parameters)
        places = (logits, target, factor, slopes)
        return launch(*(0 if x is None else x.data_ptr() for x in places), 0, 1.0)

    return run


class _Sum(torch.autograd.Function):
    """sum(factor x values); the gradients are made while the logits of a slice are at hand."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor,
        factor: Tensor, class_weights: Tensor | None, options: _Options,
    ) -> Tensor:  # fmt: skip
        needs = ctx.needs_input_grad[:3]
        wide = _wide(hidden)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        by_hidden = torch.empty_like(hidden) if needs[0] else None
        by_weight = torch.zeros_like(weight, dtype=wide) if needs[1] else None
        by_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and needs[2] else None
        rows = min(options.rows, len(hidden))
        fused = _fused(hidden, options, class_weights)
        if fused is not None and any(needs):
            rows = max(min(128, rows), rows // 2)  # for two matrices of a slice
        out = torch.empty(rows, len(weight), dtype=wide, device=hidden.device)
        spare = torch.empty_like(out) if fused is not None and any(needs) else None
        for low in range(0, len(hidden), max(rows, 1)):
            part = slice(low, low + rows)
            logits, slope = _logits(hidden[part], weight, bias, options, out)
            if fused is not None:
                slopes = None if spare is None else spare[: len(logits)]
                total += fused(logits, target[part], factor[part], slopes)
                if slopes is not None:
                    _accumulate(slopes, hidden[part], weight, by_hidden, by_weight, by_bias, part)
                continue
            value, _ = _slice(logits, target[part], class_weights, options)
            # Where nothing counts, whatever stands there stays out of the sum.
            absent = factor[part] == 0
            total += torch.where(absent, 0.0, value * factor[part]).sum(dtype=torch.float64)
            if not any(needs):
                continue
            if slope is not None:
                logits *= slope
            logits *= factor[part].unsqueeze(1)
            if bool(absent.any()):
                logits[absent] = 0
            _accumulate(logits, hidden[part], weight, by_hidden, by_weight, by_bias, part)
        ctx.gradients = (by_hidden, by_weight, by_bias)
        ctx.dtypes = tuple(None if x is None else x.dtype for x in (hidden, weight, bias))
        return total.to(wide)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        found = []
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise LossError(
                "linear_cross_entropy: its gradients were handed out by the first backward; "
                "call the loss again"
            )
        one = bool(upstream == 1)
        for gradient, dtype in zip(gradients, ctx.dtypes, strict=True):
            if gradient is not None and not one:
                gradient.mul_(upstream)
            found.append(None if gradient is None else gradient.to(dtype))
        return (*found, None, None, None, None)


def _accumulate(
    slopes: Tensor, hidden: Tensor, weight: Tensor, by_hidden: Tensor | None,
    by_weight: Tensor | None, by_bias: Tensor | None, part: slice,
) -> None:  # fmt: skip
    narrow = slopes if slopes.dtype == hidden.dtype else slopes.to(hidden.dtype)
    if by_hidden is not None:
        torch.mm(narrow, weight, out=by_hidden[part])
    if by_weight is not None:
        if by_weight.dtype == hidden.dtype:
            by_weight.addmm_(narrow.t(), hidden)
        else:
            by_weight += torch.mm(narrow.t(), hidden)
    if by_bias is not None:
        by_bias += slopes.sum(0)


class _PerRow(torch.autograd.Function):
    """Unreduced values; the logits are computed again when the upstream gradient is known."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor,
        counts: Tensor, class_weights: Tensor | None, options: _Options,
    ) -> Tensor:  # fmt: skip
        values = torch.empty(len(hidden), dtype=_wide(hidden), device=hidden.device)
        for low in range(0, len(hidden), options.rows):
            part = slice(low, low + options.rows)
            logits, _ = _logits(hidden[part], weight, bias, options, None)
            values[part] = _slice(logits, target[part], class_weights, options)[0]
        ctx.save_for_backward(hidden, weight, bias, target, counts, class_weights)
        ctx.options = options
        return torch.where(counts == 0, 0.0, values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        hidden, weight, bias, target, counts, class_weights = ctx.saved_tensors
        sums = _Sum.forward
        fake = _Context(ctx.needs_input_grad)
        sums(fake, hidden, weight, bias, target, upstream * counts, class_weights, ctx.options)
        found = [
            None if g is None else g.to(d) for g, d in zip(fake.gradients, fake.dtypes, strict=True)
        ]
        return (*found, None, None, None, None)


class _Context:
    """What ``_Sum.forward`` writes to, outside of autograd."""

    gradients: tuple[Tensor | None, ...]
    dtypes: tuple[torch.dtype | None, ...]

    def __init__(self, needs: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs
