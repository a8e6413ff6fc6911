"""Averages of averages: does the loss of the whole equal what its parts are combined to?"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from lossary.doctor.case import Case
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding

RELATIVE = 1e-3  # far above rounding of float32 means, far below what hurts


def _differ(one: float, other: float) -> bool:
    return not math.isclose(one, other, rel_tol=RELATIVE, abs_tol=1e-6)


def _cut(batch: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    rows = len(batch["target"])

    def piece(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(piece(item) for item in value)
        return value[start:stop] if value is not None and len(value) == rows else value

    return {key: piece(value) for key, value in batch.items()}


def _call(case: Case, batch: dict[str, Any]) -> float:
    options = {
        key: value
        for key, value in batch.items()
        if key in ("weights", "mask") and value is not None
    }
    return case.known(batch["prediction"], batch["target"], **options)


def _valid(case: Case, batch: dict[str, Any]) -> float:
    """How much counts in a part: units under the mask and not ignored, by their weights."""
    target = batch["target"]
    keep = np.ones(target.shape, bool)
    if case.ignored is not None:
        keep &= target != case.ignored
    for name in ("mask", "weights"):
        extra = batch[name]
        if extra is not None:
            extra = (
                extra.reshape(extra.shape + (1,) * (target.ndim - extra.ndim))
                if extra.ndim <= target.ndim
                else extra.any(axis=tuple(range(target.ndim, extra.ndim)))
            )
            fits = all(a in (b, 1) for a, b in zip(extra.shape, keep.shape, strict=True))
            need(fits, f"{name} of the target's shape")
            keep = keep * extra
    weights = case.class_weights_array
    if weights is not None and target.dtype.kind in "iu":
        keep = keep * np.where(keep > 0, weights[np.clip(target, 0, len(weights) - 1)], 0.0)
    return float(keep.sum())


def _parts(rows: int, accumulation: int | None) -> list[tuple[int, int]]:
    if accumulation:
        edges = np.linspace(0, rows, accumulation + 1).astype(int)
    else:
        edges = np.array([0, max(1, rows // 5), max(2, rows // 2), rows])
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges) if b > a]


@check("split-invariance", severity="error")
def split_invariance(case: Case) -> Finding | None:
    """The averages of parts do not combine to the average of the whole.

    Symptom: gradient accumulation, several GPUs or padding change the training; nothing fails.
    Cause: each micro-batch is averaged over its own valid entries and these averages are averaged
    again, so an entry of a short sequence weighs more; or the denominator counts the wrong things.
    Fix: add up sums and counts, divide once.
    People type: gradient accumulation loss different; loss changes with batch size; average of
    averages; gradient accumulation bug; num_items_in_batch; ddp loss differs from single gpu

    Wrong::

        examine(token_logits, uneven_tokens, loss="cross_entropy", ignore=-100, accumulation=8)

    Right::

        examine(token_logits, uneven_tokens, loss="cross_entropy", ignore=-100, accumulation=8,
                combine="count")
    """
    subject = case.known
    need(
        case.target is not None and len(case.truth) >= 4 and case.truth.ndim >= 1,
        "four or more rows",
    )
    need(not subject.own or case.accumulation, "a callable of your own, or accumulation=")
    need(subject.unit in (None, "element", "sample"), "a loss of independent units")
    batch = case.batch
    need(batch["target"] is not None and len(batch["target"]) >= 4, "four or more rows")
    whole = case.value
    need(math.isfinite(whole), "a finite loss")
    if case.accumulation and case.combine == "mean":
        return _accumulated(case, batch, whole)
    parts = [_cut(batch, *edges) for edges in _parts(len(batch["target"]), None)]
    values = np.array([_call(case, part) for part in parts])
    sizes = np.array([len(part["target"]) for part in parts], float)
    valid = np.array([_valid(case, part) for part in parts])
    if not np.isfinite(values).all() or valid.sum() == 0:
        return None  # the check "all-ignored" tells
    ways = {
        "sum": values.sum(),
        "rows": values @ sizes / sizes.sum(),
        "counted": values @ valid / valid.sum(),
    }
    if any(not _differ(whole, number) for number in ways.values()):
        return None
    if subject.contract is None and _same_when_doubled(case, batch, whole):
        return None  # the check "batch-dependence" tells
    return Finding(
        f"The loss of all {len(batch['target'])} rows is {whole:.6g}; its parts of "
        f"{', '.join(f'{s:.0f}' for s in sizes)} "
        f"rows combine to {ways['rows']:.6g} (by rows), {ways['counted']:.6g} (by what counts), "
        f"{ways['sum']:.6g} "
        "(added).",
        "The denominator counts something else than what is summed, so the batch size changes the "
        "training.",
        "value = values[mask].sum() / mask.sum()  # or Loss.total: totals add, divide once",
    )


def _same_when_doubled(case: Case, batch: dict[str, Any], whole: float) -> bool:
    """Whether doubling the batch changes nothing: the denominator is right, rows interact."""

    def twice(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(twice(item) for item in value)
        return (
            np.concatenate([value, value])
            if isinstance(value, np.ndarray) and value.ndim
            else value
        )

    return not _differ(_call(case, {key: twice(value) for key, value in batch.items()}), whole)


def _accumulated(case: Case, batch: dict[str, Any], whole: float) -> Finding | None:
    edges = _parts(len(batch["target"]), case.accumulation)
    parts = [_cut(batch, *pair) for pair in edges]
    valid = np.array([_valid(case, part) for part in parts])
    values = np.array([_call(case, part) for part in parts])
    if not np.isfinite(values).all():
        return None
    mean = float(values.mean())
    if case.known.reduction == "sum" or not _differ(whole, mean):
        return None
    return Finding(
        f"Loss of the whole batch {whole:.4g}; average of {len(parts)} micro-batches {mean:.4g}. "
        "They hold "
        f"{valid.min():.0f} to {valid.max():.0f} entries that count.",
        "Entries of the emptiest micro-batch get the most say; the optimum moves, and nothing "
        "fails.",
        case.line(
            "value = sum(loss.total(p, t) for p, t in micro_batches).mean",
            torch='loss = nn.CrossEntropyLoss(reduction="sum")  # then divide by the count of the '
            "whole step",
        ),
    )


@check("accumulation-plan", severity="error")
def accumulation_plan(case: Case) -> Finding | None:
    """With this plan of micro-batches or ranks, some entries weigh many times others.

    Symptom: as split-invariance, known before anything runs.
    Cause: K micro-batches of unequal counts, each averaged, then averaged.
    Fix: weigh each by its count, or sum and divide once.
    People type: gradient accumulation variable length sequences; effective batch weights; ddp
    unequal batch sizes

    Wrong::

        examine(counts=[900, 40, 700, 860])

    Right::

        examine(counts=[900, 40, 700, 860], combine="count")
    """
    if case.counts is None:
        need(
            case.accumulation and case.counted is not None, "counts=, or accumulation= with a mask"
        )
        need(case.subject is None or case.known.reduction != "sum", "a mean")
        keep = case.counted
        counts = np.array([keep[a:b].sum() for a, b in _parts(len(keep), case.accumulation)], float)
    else:
        counts = np.asarray(case.counts, float).reshape(-1)
    need(len(counts) > 1, "two or more micro-batches")
    if case.combine == "count":
        return None
    used = counts[counts > 0]
    need(len(used) > 0, "micro-batches that count")
    ratio = float(used.max() / used.min())
    empty = int((counts == 0).sum())
    if ratio < 1.05 and not empty:
        return None
    also = f" {empty} of them hold nothing and dilute the average." if empty else ""
    return Finding(
        f"With {len(counts)} micro-batches of {used.min():.0f} to {used.max():.0f} entries, an "
        "entry of the emptiest "
        f"weighs {ratio:.3g} times one of the fullest.{also}",
        "The mean of means is not the mean: short sequences or the last batch dominate.",
        "value = sum(sums) / sum(counts)  # of the micro-batches; sum(totals).mean with Lossary",
    )


@check("batch-dependence", severity="warning")
def batch_dependence(case: Case) -> Finding | None:
    """The loss of a batch is not the mean of its samples' losses.

    Symptom: the value changes with the batch size; validation with other batches is not comparable.
    Cause: Dice, Jaccard and kin computed over the whole batch at once.
    Fix: say which is meant: one region per image (then average), or one over the batch.
    People type: dice loss batch size; batch dice vs sample dice; dice per image or per batch; iou
    loss batch

    Wrong::

        examine(mask_scores, masks, loss=batch_dice)

    Right::

        examine(mask_scores, masks, loss=image_dice)
    """
    subject = case.foreign
    need(subject.unit in (None, "region"), "a loss over regions")
    batch = case.batch
    need(batch["target"] is not None and len(batch["target"]) >= 2, "two or more samples")
    need(case.mask is None and case.weights is None and case.ignored is None, "unmasked samples")
    whole = case.value
    rows = min(len(batch["target"]), 32)
    together = _call(case, _cut(batch, 0, rows))
    each = np.array([_call(case, _cut(batch, i, i + 1)) for i in range(rows)])
    if not np.isfinite(each).all() or not math.isfinite(whole):
        return None
    mean = float(each.mean())
    if math.isclose(together, mean, rel_tol=0.02, abs_tol=1e-4) or not _differ(
        together, float(each.sum())
    ):
        return None
    return Finding(
        f"On {rows} samples at once the loss is {together:.4g}; the mean over single samples is "
        f"{mean:.4g}.",
        "Small samples count little in the one and fully in the other; the batch size becomes a "
        "parameter.",
        "values = [loss(p[None], t[None]) for p, t in zip(prediction, target)]  # then the mean",
    )


@check("reduction-mismatch", severity="warning")
def reduction_mismatch(case: Case) -> Finding | None:
    """Sums and means are mixed, or "mean" divides by something else than the samples.

    Symptom: one term of a combined loss has no effect; a KL term is many times too small.
    Cause: reconstruction is summed and KL averaged; KLDivLoss(reduction="mean") divides by classes
    too.
    Fix: one reduction for all terms; "batchmean" for KLDivLoss.
    People type: vae kl weight; KLDivLoss batchmean or mean; reconstruction loss sum or mean; vae
    posterior collapse; beta vae reduction

    Wrong::

        examine(terms={"reconstruction": Term(9000.0, "sum", 128 * 784), "kl": Term(0.02, "mean",
                128 * 20)})

    Right::

        examine(terms={"reconstruction": Term(0.09, "mean", 128 * 784), "kl": Term(0.02, "mean",
                128 * 20)})
    """
    if case.terms is None:
        kl = (
            case.subject is not None
            and case.subject.contract is not None
            and not case.known.own
            and case.known.library == "torch"
            and "kl" in case.contract.name.split("_")
        )
        need(kl or case.terms is not None, "terms=, or a KL divergence of PyTorch")
        if case.known.reduction != "mean":
            return None
        shape = case.predicted.shape
        per_row = int(np.prod(shape[1:]))
        return Finding(
            f'reduction="mean" divides by all {int(np.prod(shape)):,} entries of {shape}: '
            f"{per_row}× less than the "
            "divergence per sample.",
            "A KL divergence sums over the classes; its mean over them is weaker the more classes "
            "there are.",
            'nn.KLDivLoss(reduction="batchmean")',
        )
    from lossary.doctor.terms import terms_of

    terms = {name: term for name, term in terms_of(case.terms).items() if term.reduction}
    need(len(terms) > 1, "two or more terms with a reduction")
    summed = {name: term for name, term in terms.items() if term.reduction == "sum"}
    averaged = {
        name: term for name, term in terms.items() if term.reduction in ("mean", "mean_over_batch")
    }
    if not summed or not averaged:
        return None
    (one, first), (two, second) = next(iter(summed.items())), next(iter(averaged.items()))
    factor = (
        f" The effective weight of {two} is {1 / second.size:.2g} of what it seems."
        if second.size
        else ""
    )
    sizes = f" over {first.size:,} values" if first.size else ""
    return Finding(
        f"{one} is a sum{sizes}, {two} a mean"
        + (f" over {second.size:,} values." if second.size else ".")
        + factor,
        "Their balance then changes with image size, width and batch size.",
        "value = values.sum() / len(values)  # every term alike: a mean over rows",
    )
