"""Values and slopes that are not finite: which row, which operation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.arrays import blocks
from lossary.doctor.case import Case
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding
from lossary.doctor.trace import culprit


def _shown(value: Any) -> str:
    flat = np.asarray(value).reshape(-1)
    text = ", ".join(f"{number:.4g}" for number in flat[:4].tolist())
    return f"[{text}{', ...' if len(flat) > 4 else ''}]" if len(flat) > 1 else text


def _first_bad_value(case: Case) -> tuple[int, float] | None:
    """The first row whose loss is not finite: of all rows for our losses, else of the batch."""
    subject = case.known
    if (
        subject.own
        and len(case.arrays) == 1
        and subject.unit in ("element", "sample")
        and case.target is not None
    ):
        for start, (prediction, target, mask) in blocks(
            case.predicted, case.truth, case.mask_array
        ):
            values = subject.values(prediction, target, **({} if mask is None else {"mask": mask}))
            rows: Any = (
                np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
                if values.ndim
                else []
            )
            if len(rows):
                bad = values.reshape(len(values), -1)[rows[0]]
                return start + int(rows[0]), float(bad[~np.isfinite(bad)][0])
        return None
    batch = case.batch
    if math.isfinite(case.value):
        return None
    need(isinstance(batch["prediction"], np.ndarray), "one prediction")
    values = subject.values(
        batch["prediction"],
        batch["target"],
        **({} if batch["mask"] is None else {"mask": batch["mask"]} if subject.takes_mask else {}),
    )
    rows = (
        np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if values.ndim
        else []
    )
    return (
        (int(rows[0]), float(values.reshape(len(values), -1)[rows[0]].sum()))
        if len(rows)
        else (0, case.value)
    )


@check("nan-post-mortem", severity="error")
def nan_post_mortem(case: Case) -> Finding | None:
    """The loss or its gradient is not finite: which row, which values, which operation.

    Symptom: the loss is NaN or infinite; or finite, and the next step's parameters are NaN.
    Cause: a logarithm or division of 0 (zero), an overflowing exponential, a root at 0, NaN in the
    inputs.
    Fix: change the operation that is named, or mask the row.
    People type: loss is nan; loss becomes nan after some steps; why is my loss nan; gradient nan;
    loss inf; nan loss debug; returned nan values in its 0th output; loss: nan accuracy: 0; invalid
    value (nan) encountered in jit; nan after the first epoch; nan; detect_anomaly nan

    Wrong::

        examine(with_gaps(estimate), truth, loss="mse")

    Right::

        examine(estimate, truth, loss="mse")
    """
    subject = case.known
    need(case.target is not None or case.known.contract is not None, "a target")
    summary = case.prediction_summary
    if summary.nan:
        row = summary.first_bad[0] if summary.first_bad else 0
        return Finding(
            f"{summary.nan:,} of {summary.size:,} predictions are NaN, first in row {row} "
            f"({_shown(case.predicted[row])}).",
            "The network made them before the loss saw them: look at its inputs, learning rate and "
            "normalisation.",
            case.line(
                "assert np.isfinite(inputs).all()  # the network's; then a smaller learning rate",
                torch="torch.autograd.set_detect_anomaly(True)  # for one step",
                jax='jax.config.update("jax_debug_nans", True)  # for one step',
            ),
        )
    bad = _first_bad_value(case)
    if bad is not None:
        return _tell(case, *bad)
    if subject.own:
        return None
    batch = case.batch
    prediction = batch["prediction"]
    need(isinstance(prediction, np.ndarray), "one prediction")
    slope = subject.gradient(prediction, batch["target"], **case.options)
    if slope is None or np.isfinite(slope).all():
        return None
    row = int(np.argwhere(~np.isfinite(slope))[0][0])
    return _tell(case, row, math.nan, in_gradient=True)


def _tell(case: Case, row: int, value: float, *, in_gradient: bool = False) -> Finding:
    subject = case.known
    batch = case.batch
    from_all = subject.own and len(case.arrays) == 1
    prediction = case.predicted[row : row + 1] if from_all else batch["prediction"][row : row + 1]
    truth = case.truth if from_all else batch["target"]
    target = truth[row : row + 1]
    need(len(prediction) and len(target), "as many predictions as targets")
    mask = batch["mask"][row : row + 1] if batch["mask"] is not None and not from_all else None
    options = {} if mask is None else {"mask": mask}
    cause = culprit(subject, prediction, target, options)
    what = "the loss is finite and its gradient is NaN" if in_gradient else f"the loss is {value}"
    where = f", first from {cause}" if cause else ""
    if cause is None and float(np.abs(prediction).max()) > 1e12:
        return Finding(
            f"Row {row}: {what} at prediction {_shown(prediction)}: predictions have run away.",
            "The steps are too large for this loss: each one overshoots more than the last.",
            case.line(
                "learning_rate = learning_rate / 10  # or clip the gradient's norm",
                torch="torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # or a smaller "
                "learning rate",
                keras="optimizer = keras.optimizers.Adam(1e-4, clipnorm=1.0)",
            ),
        )
    return Finding(
        f"Row {row}: {what} at prediction {_shown(prediction)} and target {_shown(target)}{where}.",
        "One such row makes the mean, the gradient and then every parameter NaN.",
        cause.remedy if cause else _mask_line(case, target),
    )


def _mask_line(case: Case, target: np.ndarray) -> str:
    missing = target.dtype.kind == "f" and not np.isfinite(target).all()
    name = "target" if missing else "values"
    then = "loss(prediction, target, mask=mask)" if missing else "find out what these rows are"
    return case.line(
        f"mask = np.isfinite({name})  # then {then}",
        torch=f"mask = {name}.isfinite()  # then {then}",
        jax=f"mask = jnp.isfinite({name})  # then {then}",
    )


def _probes(case: Case) -> Iterator[tuple[str, np.ndarray, Any, dict[str, Any]]]:
    """Points at the edges of what the loss may be given: (name, prediction, target, options)."""
    batch = case.batch
    rows = slice(0, 4)
    prediction = batch["prediction"][rows].astype(np.float32)
    target = None if batch["target"] is None else batch["target"][rows]
    if target is not None and target.dtype.kind == "f":
        target = target.astype(np.float32)
    options = {
        key: value[rows] if len(value) >= 4 else value for key, value in case.options.items()
    }
    low, high = case.prediction_summary.low, case.prediction_summary.high
    unit = low >= 0 and high <= 1
    if target is not None and target.shape == prediction.shape:
        yield "prediction equal to target", target.astype(np.float32), target, options
    if low <= 0 and (unit or case.reads in (None, "real", "logit", "class logits", "embeddings")):
        yield "prediction all 0", np.zeros_like(prediction), target, options
    if not unit and low < 0 and case.reads in (None, "real", "logit", "class logits"):
        for sign in (1.0, -1.0):
            yield (
                f"prediction {sign * 1e4:.0g} everywhere",
                np.full_like(prediction, sign * 1e4),
                target,
                options,
            )
        far = np.where(np.arange(prediction.size).reshape(prediction.shape) % 2, 1e4, -1e4).astype(
            np.float32
        )
        yield "predictions of 1e4 and -1e4", far, target, options


@check("edge-gradients", severity="error")
def edge_gradients(case: Case) -> Finding | None:
    """The gradient is not finite at an ordinary edge: a perfect prediction, zeros, large logits.

    Symptom: training is fine for long, then one step turns everything NaN.
    Cause: square roots, norms, logarithms and powers have infinite slopes at 0; exp overflows.
    Fix: a formula that is smooth there, or where() on the inside.
    People type: sqrt gradient nan; norm gradient nan at zero; rmse loss nan; torch.where nan
    gradient; gradient nan when prediction equals target; SqrtBackward0 returned nan values

    Wrong::

        examine(estimate, truth, loss=torch_root_error)

    Right::

        examine(estimate, truth, loss=torch_safe_root_error)
    """
    subject = case.foreign
    need(
        subject.library != "numpy" and isinstance(case.batch["prediction"], np.ndarray),
        "a differentiable loss of one prediction",
    )
    need(case.attempt[0] is not None, "a loss that runs on these arrays")
    for name, prediction, target, options in _probes(case):
        try:
            value = subject(prediction, target, **options)
            slope = subject.gradient(prediction, target, **options)
        except LossError:
            continue  # the loss refuses this point, which is an answer
        if slope is None or (np.isfinite(slope).all() and math.isfinite(value)):
            continue
        if not math.isfinite(value) and not name.startswith(
            (
                "prediction equal",
                "prediction all 0",
                "predictions of",
                "prediction 1e",
                "prediction -1e",
            )
        ):
            continue
        if math.isinf(value):
            continue  # a loss may be infinite at an edge; a NaN is never right
        cause = culprit(subject, prediction, target, options)
        kind = "finite" if math.isfinite(value) else "NaN"
        return Finding(
            f"At {name} the value is {kind} and the gradient has "
            f"{int((~np.isfinite(slope)).sum())} non-finite entries"
            + (f" (from {cause})." if cause else "."),
            "Training meets this point sooner or later, and one step there destroys every "
            "parameter.",
            cause.remedy
            if cause
            else case.line(
                "np.where(x > 0, np.sqrt(np.where(x > 0, x, 1)), 0)  # safe inside and outside",
                torch="torch.where(x > 0, torch.where(x > 0, x, 1).sqrt(), 0)  # in and outside",
                jax="jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)  # inside and outside",
            ),
            # Of a framework's own loss this is a property to know, not code to repair.
            severity="note" if subject.framework else None,
        )
    return None
