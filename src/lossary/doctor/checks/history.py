"""What training logged."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from lossary.doctor.case import Case
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding

NEAR = 5  # losses on either side of a logged 0 that tell how it came
SPREAD = 0.25  # their least over their median


def _series(values: Any, name: str) -> np.ndarray:
    array = np.array(
        [math.nan if value is None else float(value) for value in values], dtype=np.float64
    )
    need(array.size, name)
    return array


@check("hidden-nan", severity="warning")
def hidden_nan(case: Case) -> Finding | None:
    """The log hides losses that were NaN.

    Symptom: a clean curve, and a model that is broken.
    Cause: trainers filter NaN and log 0, the last value or nothing instead.
    Fix: log the number of steps that were not finite, and stop at the first.
    People type: loss is 0.0 trainer; loss suddenly zero; logging_nan_inf_filter; loss 0 learning
    rate huggingface; loss stays exactly the same; training loss is 0.0 and evaluation loss is nan

    Wrong::

        examine(history=[2.1, 1.7, 1.5, 0.0, 0.0, 0.0, 1.4, 0.0])

    Right::

        examine(history=[2.1, 1.7, 1.5, 1.3, 1.2, 1.1, 1.0, 0.9])
    """
    need(case.history is not None, "history=")
    history = _series(case.history, "a history")
    need(len(history) >= 4, "four or more logged losses")
    missing = int((~np.isfinite(history)).sum())
    if missing:
        first = int(np.argmax(~np.isfinite(history)))
        return Finding(
            f"{missing} of {len(history)} logged losses are not finite, the first at entry "
            f"{first}.",
            "From the first NaN gradient on, parameters are NaN or steps are skipped.",
            "assert math.isfinite(loss)  # stop there and examine that batch",
            severity="error",
        )
    zeros = history == 0
    positive = history[~zeros]
    falls = len(positive) > 0 and float(np.median(positive)) > 1e-3
    if zeros.any() and falls and not (_has_margin(case) or _comes_near_zero(history)):
        return Finding(
            f"{int(zeros.sum())} of {len(history)} logged losses are exactly 0 while the others "
            f"are about {np.median(positive):.3g}: usually a filtered NaN, unless the loss has a "
            "margin.",
            "A mean over nothing, or a NaN that the trainer replaced, looks like success.",
            "TrainingArguments(logging_nan_inf_filter=False)  # and log how many labels counted",
        )
    run, start = _longest_repeat(history)
    if run >= 5 and run >= 0.1 * len(history) and np.ptp(history) > 0:
        return Finding(
            f"The logged loss repeats {history[start]:.6g} exactly {run} times in a row.",
            "Real losses of different batches differ: values are cached, filtered or the step is "
            "skipped.",
            "losses.append(float(loss))  # of this step, not the last finite one",
        )
    return None


def _has_margin(case: Case) -> bool:
    """Whether right predictions cost exactly 0 beyond the margin of the loss in use."""
    contract = case.subject.contract if case.subject else None
    return contract is not None and "margin" in contract.parameters


def _comes_near_zero(history: np.ndarray) -> bool:
    """Whether the losses beside the zeros are spread down to 0, as means of hinges are.

    A NaN is replaced whatever the losses about it were. In training linear models in batches of 8
    and more, 99 % of the logs with replaced values have neighbours that are farther from 0; of the
    logs of hinges that reach 0, one in three.
    """
    positive = np.flatnonzero(history)
    ratios = []
    for place in np.searchsorted(positive, np.flatnonzero(history == 0)):
        beside = history[positive[max(0, place - NEAR) : place + NEAR]]
        if beside.min() < 1e-3:
            ratios.append(0.0)
        else:
            ratios.append(float(beside.min() / np.median(beside)))
    return float(np.mean(ratios)) < SPREAD


def _longest_repeat(history: np.ndarray) -> tuple[int, int]:
    """How often one value other than 0 stands in a row at most, and where that begins."""
    longest = start = place = 0
    for value, group in itertools.groupby(history.tolist()):
        count = len(list(group))
        if count > longest and value != 0:
            longest, start = count, place
        place += count
    return longest, start


@check("metric-mismatch", severity="warning")
def metric_mismatch(case: Case) -> Finding | None:
    """The loss and the metric rank checkpoints differently.

    Symptom: the loss falls and the metric does not improve, or the reverse.
    Cause: the metric measures something else: a threshold, another average, other labels, or it is
    fed logits.
    Fix: choose checkpoints by the metric, and a loss that is closer to it.
    People type: validation loss increases but accuracy improves; loss decreases but f1 does not;
    loss and metric disagree; best loss not best accuracy

    Wrong::

        examine(history=[0.9, 0.7, 0.6, 0.5, 0.45, 0.4], metric_history=[0.8, 0.81, 0.78, 0.75,
                0.71, 0.70])

    Right::

        examine(history=[0.9, 0.7, 0.6, 0.5, 0.45, 0.4], metric_history=[0.5, 0.61, 0.68, 0.75,
                0.76, 0.80])
    """
    need(
        case.metric_history is not None
        and (case.history is not None or case.validation_history is not None),
        "history= and metric_history=",
    )
    losses = _series(
        case.validation_history if case.validation_history is not None else case.history,
        "a history",
    )
    metric = _series(case.metric_history, "a metric history")
    need(len(losses) == len(metric) and len(losses) >= 5, "five or more pairs of loss and metric")
    keep = np.isfinite(losses) & np.isfinite(metric)
    losses, metric = losses[keep], metric[keep]
    better = metric if case.metric_goal == "max" else -metric
    if len(better) < 5 or np.ptp(better) == 0 or np.ptp(losses) == 0:
        return None
    rank = float(np.corrcoef(np.argsort(np.argsort(-losses)), np.argsort(np.argsort(better)))[0, 1])
    steps = np.sign(-np.diff(losses)) * np.sign(np.diff(better))
    against = int((steps < 0).sum())
    if rank > 0.2:
        return None
    return Finding(
        f"Lower loss did not mean a better metric in {against} of {len(steps)} steps (rank "
        f"correlation {rank:.2f}); the best loss is at "
        f"entry {int(np.argmin(losses))}, the best metric at {int(np.argmax(better))}.",
        "Stopping by the loss picks another model than stopping by the metric.",
        'EarlyStopping(monitor="val_metric", mode="max")  # and check that the metric is fed what '
        "it expects",
    )


@check("train-validation-gap", severity="note")
def train_validation_gap(case: Case) -> Finding | None:
    """Training and validation losses are not the same quantity.

    Symptom: validation is better than training, or evaluate() disagrees with fit().
    Cause: the training number holds regularisers, dropout noise, augmentation, label smoothing, or
    is a running average over the epoch while the model improved.
    Fix: evaluate both sets in evaluation mode with the same terms.
    People type: validation loss lower than training loss; evaluate gives different loss than fit;
    training loss higher than validation loss

    Wrong::

        examine(history=[1.1, 0.8, 0.62], validation_history=[0.8, 0.6, 0.51], regularization=0.11)

    Right::

        examine(history=[1.0, 0.7, 0.51], validation_history=[1.1, 0.8, 0.62])
    """
    need(
        case.history is not None and case.validation_history is not None,
        "history= and validation_history=",
    )
    train, held = (
        _series(case.history, "a history"),
        _series(case.validation_history, "a validation history"),
    )
    need(len(train) == len(held), "histories of equal length")
    gap = float(train[-1] - held[-1])
    if not math.isfinite(gap):
        return None
    if case.regularization:
        share = min(1.0, case.regularization / abs(gap)) if gap else 1.0
        return Finding(
            f"The last training loss is {train[-1]:.4g}, validation {held[-1]:.4g}; "
            f"{case.regularization:.3g} of the training number is a "
            f"penalty that validation does not have ({share:.0%} of the gap of {gap:+.3g}).",
            "The two numbers cannot be compared, nor used to judge overfitting.",
            "losses.append(float(loss - penalty))  # the data term alone, for both",
        )
    lower = held < train
    if (
        len(train) >= 3
        and float(lower[-max(3, len(lower) // 2) :].mean()) > 0.8
        and gap > 0.05 * abs(train[-1])
    ):
        return Finding(
            f"Validation loss is below training loss in {int(lower.sum())} of {len(train)} epochs "
            f"(last {held[-1]:.4g} against {train[-1]:.4g}).",
            "Dropout, augmentation, smoothing or the running average over an improving epoch raise "
            "the training number; or the sets overlap.",
            "model.eval(); train_loss = evaluate(train_set)  # the same mode for both before "
            "comparing",
        )
    return None
