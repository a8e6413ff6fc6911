"""Masks, ignored labels and other flags: do they do what they say?"""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.case import Case
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding
from lossary.doctor.trace import culprit

BATCH = 64
RARE = 1e-5  # of batches that would hold nothing
PADDING = 10
_NOT_FLAGS = (
    "reduction",
    "axis",
    "dim",
    "name",
    "dtype",
    "ignore_index",
    "ignore",
    "blank",
    "training",
    "size_average",
    "reduce",
    "inplace",
    "keepdims",
)
_SMALL = ("eps", "epsilon", "smooth", "tiny")


def _over_prediction(case: Case, keep: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """What counts, with the class axis of the prediction put back."""
    if keep.shape == prediction.shape:
        return keep
    if case.index_target and keep.ndim == prediction.ndim - 1:
        return np.broadcast_to(np.expand_dims(keep, case.class_axis), prediction.shape)
    need(keep.shape == prediction.shape[: keep.ndim], "a mask that fits the predictions")
    return np.broadcast_to(
        keep.reshape(keep.shape + (1,) * (prediction.ndim - keep.ndim)), prediction.shape
    )


def _counting(case: Case, batch: dict[str, Any]) -> Any:
    """What counts in the batch, by mask and ignored label; not applicable when everything does."""
    keep = batch["mask"]
    if case.ignored is not None and batch["target"] is not None:
        here = batch["target"] != case.ignored
        keep = here if keep is None else keep & here
    need(keep is not None, "a mask or an ignored label")
    return keep


def _masks_reach(case: Case) -> None:
    subject = case.foreign
    need(
        case.mask is None or subject.takes_mask,
        "a loss callable that takes the mask (an argument mask=)",
    )


@check("mask-leak", severity="error")
def mask_leak(case: Case) -> Finding | None:
    """Ignored positions still move the loss or receive gradient.

    Symptom: ignore_index or a mask seems to work, but padding or unlabelled pixels are learnt.
    Cause: the mask is applied to the value and not to a denominator or softmax, or not at all; NaN
    under the mask is multiplied by 0, which is NaN.
    Fix: select before computing (where), not multiply after.
    People type: ignore_index not working; ignore index has no effect dice loss; masked loss
    gradient; nan times zero mask; padding tokens receive gradient

    Wrong::

        examine(estimate, truth, loss=masked_wrongly, mask=observed)

    Right::

        examine(estimate, truth, loss=masked_rightly, mask=observed)
    """
    _masks_reach(case)
    subject, batch = case.foreign, case.batch
    keep = _counting(case, batch)
    prediction = batch["prediction"]
    need(isinstance(prediction, np.ndarray), "one prediction")
    over = _over_prediction(case, keep, prediction)
    need(not over.all() and over.any(), "something ignored and something that counts")
    before = case.value
    moved = np.where(over, prediction, prediction[::-1] * 0.5 + 0.25)
    after = subject(moved, batch["target"], **case.options)
    gradient = subject.gradient(prediction, batch["target"], **case.options)
    if gradient is not None and not over.all():
        at_ignored = np.abs(gradient[~over])
        if np.isnan(at_ignored).any() or float(at_ignored.max()) > 0:
            worst = "NaN" if np.isnan(at_ignored).any() else f"{float(at_ignored.max()):.3g}"
            return Finding(
                f"Ignored positions still receive gradient (largest {worst}, at "
                f"{int((at_ignored != 0).sum()):,} of "
                f"{at_ignored.size:,} ignored entries).",
                "The network learns from padding or from labels that you excluded.",
                "value = loss(prediction[mask], target[mask]).mean()  # only what counts goes in",
            )
    if math.isfinite(before) and not math.isclose(before, after, rel_tol=1e-6, abs_tol=1e-9):
        return Finding(
            f"Changing predictions at ignored positions moved the loss from {before:.6g} to "
            f"{after:.6g}.",
            "The mask does not take these positions out.",
            "values = where(mask, loss_of(where(mask, prediction, safe)), 0)",
        )
    return None


@check("padding-invariance", severity="error")
def padding_invariance(case: Case) -> Finding | None:
    """More padding changes the loss.

    Symptom: the loss depends on the longest sequence of the batch.
    Cause: the denominator counts padded positions, or padding takes part.
    Fix: divide by the number of valid positions.
    People type: loss depends on padding; padded sequences loss; mask padding in loss; loss changes
    with max length

    Wrong::

        examine(estimate, truth, loss=masked_mean_over_all, mask=observed)

    Right::

        examine(estimate, truth, loss=masked_rightly, mask=observed)
    """
    _masks_reach(case)
    subject, batch = case.foreign, case.batch
    keep, target = _counting(case, batch), batch["target"]
    prediction = batch["prediction"]
    need(isinstance(prediction, np.ndarray) and target is not None, "one prediction and a target")
    need(keep.shape == target.shape, "a mask of the target's shape")
    axis = 1 if target.ndim > 1 else 0
    predicted_axis = axis
    if prediction.ndim == target.ndim + 1 and case.class_axis <= axis:
        predicted_axis += 1
    need(prediction.ndim > predicted_axis, "predictions with the target's axes")
    padding = np.random.default_rng(0)

    def pad(array: np.ndarray, along: int, fill: Any) -> np.ndarray:
        shape = list(array.shape)
        shape[along] = PADDING
        return np.concatenate([array, np.broadcast_to(fill, shape).astype(array.dtype)], axis=along)

    shape = list(prediction.shape)
    shape[predicted_axis] = PADDING
    pads = padding.permutation(prediction.reshape(-1))[: math.prod(shape)]
    noise = np.resize(pads, shape)
    longer = np.concatenate([prediction, noise.astype(prediction.dtype)], axis=predicted_axis)
    more: dict[str, Any] = {
        "target": pad(target, axis, target.reshape(-1)[0] if case.ignored is None else case.ignored)
    }
    options = {}
    if batch["mask"] is not None:
        options["mask"] = pad(batch["mask"], axis, False)
    if batch["weights"] is not None and batch["weights"].ndim > axis:
        options["weights"] = pad(batch["weights"], axis, 1)
    before = case.value
    after = subject(longer, more["target"], **options)
    if not math.isfinite(before) or math.isclose(before, after, rel_tol=1e-4, abs_tol=1e-7):
        return None
    change = abs(after - before) / max(abs(before), 1e-12)
    return Finding(
        f"Adding {PADDING} padded positions changed the loss by {change:.2g} of itself "
        f"({before:.5g} to {after:.5g}).",
        "Batches with longer padding then weigh less or more; the same data gives another "
        "training.",
        "value = (values * mask).sum() / mask.sum()  # divide by what counts",
    )


@check("all-ignored", severity="error")
def all_ignored(case: Case) -> Finding | None:
    """Batches without any valid label.

    Symptom: NaN in single batches, or a loss of exactly 0; "most labels are -100".
    Cause: the mean over nothing is 0/0; prompts longer than the context leave no label.
    Fix: drop such rows, or define the mean over nothing as 0.
    People type: loss nan ignore_index; all labels are -100; CrossEntropyLoss nan when all targets
    ignored; empty mask dice nan

    Wrong::

        examine(token_logits, np.full((16, 12), -100), loss="cross_entropy", ignore=-100)

    Right::

        examine(token_logits, uneven_tokens, loss="cross_entropy", ignore=-100)
    """
    keep = case.counted
    need(
        keep is not None or (case.ignored is not None and case.target is not None),
        "a mask or an ignored label",
    )
    if keep is None or keep.ndim == 0:
        return None
    share = float(keep.mean())
    marker = f"labels are {case.ignored:g}" if case.ignored is not None else "positions are masked"
    if share == 0:
        return Finding(
            f"All {keep.size:,} {marker}: nothing counts.",
            "The loss is 0/0 or a false 0; nothing is learnt.",
            "print((target != ignore).sum())  # find where the labels are lost",
        )
    batch = case.batch_size or BATCH
    rows = keep.reshape(len(keep), -1).any(axis=1)
    starts = np.arange(0, len(rows), batch)
    empty = [int(start // batch) for start in starts if not rows[start : start + batch].any()]
    if empty:
        listed = ", ".join(map(str, empty[:5])) + (" ..." if len(empty) > 5 else "")
        value = _over_nothing(case)[0]
        return Finding(
            f"{len(empty)} of {len(starts)} batches of {batch} have no valid label (batches "
            f"{listed}); the loss is {_spelled(value)} there.",
            "One NaN ruins every parameter; a false 0 hides that nothing was learnt.",
            _mean_of_nothing(case),
            severity="error" if value is None or math.isnan(value) else "warning",
        )
    if share < 0.05:
        return Finding(
            f"{1 - share:.1%} of the {marker}.",
            "Little is left to learn from, and single batches may hold nothing.",
            "keep = (target != ignore).any(axis=1)  # drop rows without a label",
            severity="warning",
        )
    return _could_be_empty(case, float((~rows).mean()) ** min(batch, len(rows)))


def _could_be_empty(case: Case, chance: float) -> Finding | None:
    """No batch here is empty; but will one be, and what does the loss say then?"""
    value, where = _over_nothing(case) if chance > RARE else (0.0, "")
    if value is None or math.isfinite(value):
        return None
    return Finding(
        f"About one in {1 / chance:,.0f} batches will have no valid label, and the loss is "
        f"{_spelled(value)} there{where}.",
        "One NaN ruins every parameter.",
        _mean_of_nothing(case),
        severity="warning",
    )


def _over_nothing(case: Case) -> tuple[float | None, str]:
    """What the loss is where nothing counts, None where it refuses; the operation to blame."""
    subject = case.subject
    if subject is None or subject.own:
        return 0.0, ""
    prediction, target, options = case.batch["prediction"], case.batch["target"], case.options
    if "mask" in options:
        options["mask"] = np.zeros_like(options["mask"])
    elif case.ignored is not None:
        target = np.full_like(target, case.ignored)
    try:
        value = subject(prediction, target, **options)
        cause = None if math.isfinite(value) else culprit(subject, prediction, target, options)
    except LossError:
        return None, ""
    return value, f" (from {cause})" if cause else ""


def _spelled(value: float | None) -> str:
    return "refused" if value is None else "NaN" if math.isnan(value) else f"{value:.4g}"


def _mean_of_nothing(case: Case) -> str:
    return case.line(
        "value = values[mask].sum() / max(1, mask.sum())  # 0 where nothing counts",
        torch="value = values[mask].sum() / mask.sum().clamp(min=1)  # 0 over nothing",
        jax="value = (values * mask).sum() / jnp.maximum(1, mask.sum())",
    )


@check("dead-flag", severity="error")
def dead_flag(case: Case) -> Finding | None:
    """A parameter of the loss has no effect.

    Symptom: tuning alpha, gamma, weights or smoothing changes nothing at all.
    Cause: the parameter is stored and never used, or only used when another flag is set.
    Fix: use it, or set the flag that switches it on.
    People type: focal loss alpha no effect; class weight no effect; label smoothing not working;
    gamma has no effect; weight ignored

    Wrong::

        examine(estimate, truth, loss=forgets_delta)

    Right::

        examine(estimate, truth, loss=uses_delta)
    """
    subject, batch = case.foreign, case.batch
    flags = {name: value for name, value in _deliberate(case).items() if name not in _NOT_FLAGS}
    need(flags, "parameters to change")
    base = case.value
    need(math.isfinite(base), "a finite loss")
    dead = []
    for name, value in flags.items():
        tried = [_changes(case, batch, name, other) for other in _others(name, value)]
        ran = [moved for moved in tried if moved is not None]
        if ran and not any(ran):
            dead.append(name)
    if not dead:
        return None
    name = dead[0]
    others = ", ".join(
        f"{other:g}" if isinstance(other, float) else str(other)
        for other in _others(name, flags[name])[:3]
    )
    return Finding(
        f"Changing {name} from {flags[name]} to {others} leaves the loss identical ({base:.6g})"
        + (f"; so do {', '.join(dead[1:])}." if len(dead) > 1 else "."),
        "The parameter is ignored: what you tune with it does not exist.",
        f"value = {name} * value  # or wherever {subject.name} forgets {name}; or the flag that "
        "switches it on",
    )


def _deliberate(case: Case) -> dict[str, Any]:
    """Parameters to test: all of your own code; of a framework's loss those you changed."""
    subject = case.foreign
    if inspect.isroutine(subject.callable) or isinstance(subject.callable, functools.partial):
        return {} if subject.framework else subject.parameters
    defaults = {
        item.name: item.default
        for item in inspect.signature(type(subject.callable)).parameters.values()
    }
    return {
        key: value
        for key, value in subject.parameters.items()
        if key in defaults and (defaults[key] != value or subject.framework is None)
    }


def _others(name: str, value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value + 2]
    if any(word in name.lower() for word in _SMALL):
        return [0.01, 0.5]
    return [item for item in (0.75, 0.3, 2.0 * value + 0.5, 0.1 * value) if item != value]


def _changes(case: Case, batch: dict[str, Any], name: str, value: Any) -> bool | None:
    """Whether this value moves the loss, on these or on wider data; None: cannot be had."""
    try:
        changed = case.foreign.with_parameters(**{name: value})
        for factor in (1.0, 30.0, 0.03, -1.0):
            prediction = batch["prediction"]
            if isinstance(prediction, tuple):
                factor = 1.0
            elif factor != 1.0 and case.reads in ("simplex", "probability"):
                break
            moved = (
                prediction if factor == 1.0 else prediction * np.asarray(factor, prediction.dtype)
            )
            options = case.options
            one, other = (
                case.foreign(moved, batch["target"], **options),
                changed(moved, batch["target"], **options),
            )
            if one != other and not (math.isnan(one) and math.isnan(other)):
                return True
    except LossError:
        return None
    return False
