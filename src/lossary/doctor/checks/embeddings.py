"""Metric learning and contrastive losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.arrays import like
from lossary.doctor.case import Case
from lossary.doctor.registry import NotApplicable, check, need, present
from lossary.doctor.report import Finding

ROWS = 64


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum() / norms) if norms > 0 else math.nan


def _full_gradient(case: Case, weights: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """The gradient of the loss by every embedding, in float64."""
    arrays = tuple(array[:ROWS].astype(np.float64) for array in case.arrays)
    target = None if case.target is None else case.truth[:ROWS]
    subject = case.known
    options = {} if weights is None else {"weights": weights}
    if subject.own:
        slopes = subject.loss.value_and_grad(**subject.bound(arrays, target), **options)[1]
        return slopes if isinstance(slopes, tuple) else (slopes,)
    return _foreign_gradients(case, arrays, target)


def _foreign_gradients(
    case: Case, arrays: tuple[np.ndarray, ...], target: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    """One gradient per embedding array, the others held."""
    return tuple(
        _gradient_by_one(case, arrays, position, target) for position in range(len(arrays))
    )


def _gradient_by_one(
    case: Case, arrays: tuple[np.ndarray, ...], position: int, target: np.ndarray | None
) -> np.ndarray:
    subject = case.known
    live = [like(array, subject.library, "float64") for array in arrays]

    def one(leaf: Any, *rest: Any) -> Any:
        return subject.callable(*live[:position], leaf, *live[position + 1 :], *rest)

    alone = subject.replaced(callable=one)
    alone.__dict__["keywords"] = subject.keywords
    slope = alone.gradient(arrays[position], target, dtype="float64")
    if slope is None:
        raise NotApplicable("a gradient")
    return slope


@check("contrastive-scale", severity="error")
def contrastive_scale(case: Case) -> Finding | None:
    """An in-batch contrastive loss has the wrong gradient on several GPUs.

    Symptom: the loss equals the one on one GPU; learning is slower by the number of GPUs, or worse.
    Cause: gathered embeddings of other ranks carry no gradient, then gradients are averaged over
    ranks.
    Fix: gather with gradient; or scale by the number of ranks where only the scale is wrong.
    People type: infonce multi gpu; simclr all_gather gradient; contrastive loss ddp gradient scale;
    all_gather no gradient; clip loss local loss gather_with_grad

    Wrong::

        examine((anchors, positives), loss=torch_info_nce, ranks=4, gather="detached")

    Right::

        examine((anchors, positives), loss=torch_info_nce, ranks=4, gather="gradient")
    """
    need(case.ranks is not None and case.ranks > 1, "ranks=, two or more")
    need(case.loss is not None and case.arrays, "embeddings and a loss")
    embedded = all(array.ndim == 2 for array in case.arrays)
    need(embedded and (not case.known.own or case.reads == "embeddings"), "a loss of embeddings")
    try:
        whole = np.concatenate([np.asarray(part) for part in _full_gradient(case)])
    except LossError as problem:
        need(False, f"a gradient ({problem})")
    ranks = case.ranks
    if case.gradient is not None:
        given = case.gradient if isinstance(case.gradient, (tuple, list)) else (case.gradient,)
        seen = np.concatenate([np.asarray(part, np.float64)[:ROWS] for part in given])
        need(seen.shape == whole.shape, "gradients of the embeddings' shapes")
    else:
        seen = _simulated(case, whole)
    cosine, ratio = _cosine(seen, whole), float(np.linalg.norm(seen) / np.linalg.norm(whole))
    if not math.isfinite(cosine):
        return None
    if cosine > 0.999:
        if math.isclose(ratio, 1.0, rel_tol=0.02):
            return None
        fix = (
            f"loss = loss * {ranks}  # or gather with gradient"
            if ratio < 1
            else f"loss = loss / {ratio:.3g}  # it is corrected twice"
        )
        tell = "only the scale is wrong"
    else:
        fix = (
            "embeddings = torch.distributed.nn.functional.all_gather(embeddings)  # carries "
            "gradient"
        )
        tell = (
            "the direction is wrong: other ranks' negatives lack gradient, scaling will not fix it"
        )
    return Finding(
        f"The loss is equal, but with {ranks} ranks the gradient is {ratio:.3g}× that of the full "
        "batch, cosine "
        f"{cosine:.3f}: {tell}.",
        "The learning rate is silently another one, or negatives are never pushed away.",
        fix,
    )


def _simulated(case: Case, whole: np.ndarray) -> np.ndarray:
    """Gradients as ranks make them: each differentiates its own rows, then they are averaged."""
    ranks, gather = present(case.ranks, "ranks="), case.gather
    rows = min(ROWS, len(case.predicted))
    need(rows >= 2 * ranks, "two or more rows for each rank")
    owner = np.arange(rows) * ranks // rows
    if gather in ("detached", "scaled", "gradient", "gradient scaled"):
        # Every rank computes the whole loss; what differs is which rows carry its gradient back.
        owners = np.concatenate([owner] * (len(whole) // rows))
        seen = np.zeros_like(whole)
        for rank in range(ranks):
            carries = (
                np.ones_like(owners, bool) if gather.startswith("gradient") else owners == rank
            )
            seen += np.where(carries.reshape(-1, *(1,) * (whole.ndim - 1)), whole, 0.0) / ranks
        return seen * (ranks if gather.endswith("scaled") else 1)
    need(
        gather == "rows" and case.known.own,
        'gather="detached", "gradient", "scaled", "gradient scaled" or "rows"',
    )
    seen = np.zeros_like(whole)
    for rank in range(ranks):
        mine = (owner == rank).astype(np.float64)
        parts = _full_gradient(case, weights=mine)
        seen += np.concatenate([part * mine[:, None] for part in parts]) / ranks
    return seen


@check("collapse", severity="warning")
def collapse(case: Case) -> Finding | None:
    """All embeddings are equal, or the batch holds no pair to learn from.

    Symptom: triplet loss stands still at its margin; contrastive loss stands at log of the batch.
    Cause: everything is mapped to one point (too high a learning rate, hard mining from the start),
    no two rows of the batch share a label, or a large temperature makes all scores alike.
    Fix: lower the learning rate, mine semi-hard; sample several rows per class; a temperature near
    0.1.
    People type: triplet loss stuck at margin; triplet loss not decreasing 0.2; embeddings all the
    same; siamese network embeddings identical; embedding collapse; contrastive loss log batch size

    Wrong::

        examine(collapsed, pair_classes, margin=0.2)

    Right::

        examine(spread_out, pair_classes, margin=0.2)
    """
    embedding = case.reads == "embeddings" or case.margin is not None
    need(
        embedding and case.predicted.ndim == 2 and len(case.predicted) >= 4,
        "embeddings of four or more rows",
    )
    rows = np.concatenate(
        [
            array[:512].astype(np.float64)
            for array in case.arrays
            if array.shape[1:] == case.predicted.shape[1:]
        ]
    )
    norms = np.linalg.norm(rows, axis=1)
    center = rows.mean(axis=0)
    spread = float(np.sqrt(((rows - center) ** 2).sum(axis=1).mean()))
    size = float(norms.mean())
    at = (
        ""
        if case.subject is None or case.attempt[0] is None
        else f"; the loss is {case.attempt[0]:.4g}"
    )
    if spread < 1e-3 * max(size, 1e-12):
        margin = f" and the margin {case.margin:g}" if case.margin is not None else ""
        return Finding(
            f"All {len(rows)} embeddings are equal (spread {spread:.2g} at length "
            f"{size:.2g}){at}{margin}.",
            "Every distance is 0, so the loss stands at its margin and its gradient vanishes.",
            case.line(
                "learning_rate = learning_rate / 10  # and semi-hard triplets, not the hardest",
                torch="optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)  # and semi-hard "
                "triplets, not the hardest",
                keras="optimizer = keras.optimizers.Adam(1e-5)  # and semi-hard triplets",
                jax="optimizer = optax.adam(1e-5)  # and semi-hard triplets, not the hardest",
            ),
        )
    if case.target is not None and case.truth.ndim == 1 and case.target_summary.integral:
        labels, counts = np.unique(case.truth, return_counts=True)
        if len(labels) > 1 and counts.max() == 1:
            return Finding(
                f"No two of {len(case.truth)} rows share a label: there is no positive pair.",
                "The loss is 0 or undefined; nothing is pulled together.",
                _batch_of_classes(),
            )
        if len(labels) == 1 and len(case.inputs) == 1:
            return Finding(
                f"All {len(case.truth)} rows share one label: there is no negative pair.",
                "Pulling alone collapses every embedding to one point.",
                _batch_of_classes(),
            )
    return _no_room(case)


def _no_room(case: Case) -> Finding | None:
    """Whether an in-batch loss of perfect pairs is that of equal embeddings: nothing to gain."""
    anchors = case.batch["prediction"]
    pairs = isinstance(anchors, tuple) and len(anchors) == 2 and case.target is None
    if not pairs or case.subject is None or case.known.unit not in (None, "anchor"):
        return None
    first, second = anchors
    if first.shape != second.shape:
        return None
    flat = case.known((np.ones_like(first), np.ones_like(second)), None)
    best = case.known((first, first), None)
    if not 0 <= flat - best < 0.02 * abs(flat):
        return None
    return Finding(
        f"Perfect pairs give {best:.4g} and equal embeddings {flat:.4g}: the loss can hardly tell "
        "them apart.",
        "Scores divided by a large temperature are all alike; the gradient is as small as that "
        "difference.",
        'loss = Loss("info_nce", temperature=0.1)  # a tenth of the range of the cosine or less',
    )


def _batch_of_classes() -> str:
    return "rows = [i for k in range(8) for i in np.flatnonzero(labels == k)[:4]]  # 8 classes of 4"
