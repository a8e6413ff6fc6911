"""Values that are not finite, and gradients that are wrong, dead or point the other way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.arrays import blocks, dtype_name
from lossary.doctor.case import Case
from lossary.doctor.derivative import slope_at
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding
from lossary.doctor.trace import culprit

POINTS = 20


def _options(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: batch[key] for key in ("weights", "mask") if batch[key] is not None}


def _shown(value: Any) -> str:
    flat = np.asarray(value).reshape(-1)
    text = ", ".join(f"{number:.4g}" for number in flat[:4].tolist())
    return f"[{text}{', ...' if len(flat) > 4 else ''}]" if len(flat) > 1 else text


def _first_bad_value(case: Case) -> tuple[int, float] | None:
    """The first row whose loss is not finite: of all rows for Lossary's losses, else of the batch."""
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
            rows = (
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
    Cause: a logarithm or division of 0, an overflowing exponential, a root at 0, NaN in the inputs.
    Fix: change the operation that is named, or mask the row.
    People type: loss is nan; loss becomes nan after some steps; why is my loss nan; gradient nan; loss inf; nan loss debug

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
            "The network made them before the loss saw them: look at its inputs, learning rate and normalisation.",
            case.line(
                "np.isfinite(inputs).all()",
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
    slope = subject.gradient(prediction, batch["target"], **_options(batch))
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
                torch="torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # or a smaller learning rate",
                keras="optimizer = keras.optimizers.Adam(1e-4, clipnorm=1.0)",
            ),
        )
    return Finding(
        f"Row {row}: {what} at prediction {_shown(prediction)} and target {_shown(target)}{where}.",
        "One such row makes the mean, the gradient and then every parameter NaN.",
        cause.remedy
        if cause
        else "mask = np.isfinite(values)  # find out what these rows are, then mask or repair them",
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
        key: value[rows] if len(value) >= 4 else value for key, value in _options(batch).items()
    }
    low, high = case.prediction_summary.low, case.prediction_summary.high
    unit = low >= 0 and high <= 1
    if target is not None and target.shape == prediction.shape:
        yield "prediction equal to target", target.astype(np.float32), target, options
    if case.reads in (None, "real", "logit", "class logits", "embeddings") or unit:
        if low <= 0:
            yield "prediction all 0", np.zeros_like(prediction), target, options
    if case.reads in ("probability", "simplex") or (
        case.reads is None
        and unit
        and high > 0.9
        and case.batch["target"] is not None
        and target.dtype.kind in "iub"
    ):
        pass  # exactly 0 and 1 against labels: the value itself may be infinite there
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
    if "mask" in options:
        yield (
            "an empty mask",
            prediction,
            target,
            options | {"mask": np.zeros_like(options["mask"])},
        )


@check("edge-gradients", severity="error")
def edge_gradients(case: Case) -> Finding | None:
    """The gradient is not finite at an ordinary edge: a perfect prediction, zeros, large logits.

    Symptom: training is fine for long, then one step turns everything NaN.
    Cause: square roots, norms, logarithms and powers have infinite slopes at 0; exp overflows.
    Fix: a formula that is smooth there, or where() on the inside.
    People type: sqrt gradient nan; norm gradient nan at zero; rmse loss nan; torch.where nan gradient; gradient nan when prediction equals target

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
    case.value  # not applicable when the loss does not run at all
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
                "an empty",
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
            f"At {name} the value is {kind} and the gradient has {int((~np.isfinite(slope)).sum())} non-finite entries"
            + (f" (from {cause})." if cause else "."),
            "Training meets this point sooner or later, and one step there destroys every parameter.",
            cause.remedy
            if cause
            else "where(x > 0, sqrt(where(x > 0, x, 1)), 0)  # safe inside and outside",
        )
    return None


@check("gradient-check", severity="error")
def gradient_check(case: Case) -> Finding | None:
    """A hand-written gradient or Hessian disagrees with the loss.

    Symptom: a custom loss trains poorly or diverges; boosting stops after one round.
    Cause: a wrong sign, a missing factor, the derivative by another variable, a negative Hessian.
    Fix: correct the formula; keep the Hessian positive.
    People type: custom objective gradient hessian; xgboost custom loss wrong; custom autograd function gradient wrong; gradcheck;
    hessian negative

    Wrong::

        examine(estimate, truth, loss="mse", gradient=truth - estimate)

    Right::

        examine(estimate, truth, loss="mse", gradient=2 * (estimate - truth) / len(truth))
    """
    if case.hessian is not None:
        finding = _hessian(np.asarray(case.hessian, np.float64))
        if finding or case.gradient is None:
            return finding
    subject = case.known
    need(
        case.gradient is not None or (not subject.own and subject.library != "numpy"),
        "gradient=, or a differentiable loss",
    )
    need(
        len(case.arrays) == 1 and case.target is not None and case.ranks is None,
        "one prediction and a target",
    )
    prediction, target = case.predicted, case.truth
    options: dict[str, Any]
    if case.gradient is not None:
        given = np.asarray(case.gradient, np.float64)
        need(given.shape == prediction.shape, "a gradient of the prediction's shape")
        options = {
            key: value
            for key, value in (("weights", case.weights_array), ("mask", case.mask_array))
            if value is not None
        }
    else:
        batch = case.batch
        prediction, target, options = batch["prediction"], batch["target"], _options(batch)
        rows = slice(0, 32)
        prediction, target = prediction[rows], target[rows]
        options = {key: value[rows] for key, value in options.items()}
        slope = subject.gradient(prediction, target, dtype="float64", **options)
        need(slope is not None, "a gradient")
        given = slope
    wide = prediction.astype(np.float64)
    chosen = np.random.default_rng(0).permutation(wide.size)[:POINTS]
    pairs = []
    for index in chosen:
        analytic = float(given.reshape(-1)[index])
        # A loss that rounds to float32 inside needs the wide step, a clamped one the narrow step.
        found = [
            slope_at(subject, wide, target, np.unravel_index(index, wide.shape), options, step)
            for step in (1e-5, 1e-3, 1e-1)
        ]
        pairs.append((analytic, min(found, key=lambda slope: abs(slope - analytic))))
    return _compare(pairs, rounds=_rounds(case, prediction, target, options))


def _rounds(case: Case, prediction: np.ndarray, target: Any, options: dict[str, Any]) -> bool:
    """Whether the loss computes in float32 although float64 comes: then differences are coarse."""
    if case.known.own:
        return False
    result = case.known.raw(prediction.astype(np.float64), target, dtype="float64", **options)
    return dtype_name(result) != "float64"


def _hessian(hessian: np.ndarray) -> Finding | None:
    negative, zero = float((hessian < 0).mean()), float((hessian == 0).mean())
    if negative == 0 and zero < 0.05:
        return None
    return Finding(
        f"The Hessian is negative for {negative:.0%} and 0 for {zero:.0%} of {hessian.size:,} rows (least {hessian.min():.3g}).",
        "Boosting divides by the sum of Hessians: steps go the wrong way or become enormous.",
        "hessian = np.maximum(hessian, 1e-6)",
    )


def _compare(pairs: list[tuple[float, float]], rounds: bool) -> Finding | None:
    given, true = np.array(pairs).T
    scale = float(np.abs(true).max())
    if scale == 0:
        return None
    wrong = (
        ~np.isclose(given, true, rtol=0.1, atol=0.02 * scale)
        if rounds
        else ~np.isclose(given, true, rtol=2e-3, atol=1e-4 * scale)
    )
    # A kink near one of the points is no fault of the gradient.
    if wrong.sum() < 3:
        return None
    matters = np.abs(true) > 1e-3 * scale
    flipped = int((np.sign(given) == -np.sign(true))[matters].sum())
    ratios = given[matters] / true[matters]
    if np.allclose(ratios, ratios[0], rtol=1e-2):
        tell = f"it is {ratios[0]:.4g} times the derivative at every point"
        fix = (
            f"gradient = gradient / {ratios[0]:.4g}" if ratios[0] != -1 else "gradient = -gradient"
        )
    else:
        tell = f"for example {given[wrong][0]:.4g} where differences give {true[wrong][0]:.4g}"
        fix = "derive it again, or let the framework differentiate the loss"
    sign = f"; the sign is wrong at {flipped}" if flipped else ""
    return Finding(
        f"The gradient disagrees with the loss at {int(wrong.sum())} of {len(pairs)} points{sign}: {tell}.",
        "The optimiser follows this gradient, not the loss that you watch.",
        fix,
    )


@check("direction", severity="error")
def direction(case: Case) -> Finding | None:
    """Better predictions make the loss larger.

    Symptom: the loss goes down and the metric goes down too; training converges to nonsense.
    Cause: a missing minus sign (a similarity or an accuracy used as a loss), exchanged arguments.
    Fix: turn the sign.
    People type: loss decreases but accuracy decreases; custom loss wrong sign; cosine similarity loss sign; maximize instead of minimize

    Wrong::

        examine(estimate, truth, loss=lambda prediction, target: -((prediction - target) ** 2).mean())

    Right::

        examine(estimate, truth, loss=lambda prediction, target: ((prediction - target) ** 2).mean())
    """
    subject, batch = case.foreign, case.batch
    prediction, target = batch["prediction"], batch["target"]
    need(
        isinstance(prediction, np.ndarray) and target is not None and len(target) >= 4,
        "four or more predictions and targets",
    )
    start = case.value
    need(math.isfinite(start), "a finite loss")
    better, worse = _moved(case, prediction, target)
    options = _options(batch)
    good, bad = subject(better, target, **options), subject(worse, target, **options)
    if (
        not (math.isfinite(good) and math.isfinite(bad))
        or good < bad
        or math.isclose(good, bad, rel_tol=1e-4, abs_tol=1e-7)
    ):
        return None
    return Finding(
        f"Predictions moved towards their targets give {good:.5g}; moved towards shuffled targets {bad:.5g} (as they are: "
        f"{start:.5g}).",
        "The optimiser will make predictions worse. A sign is missing, or the arguments are exchanged.",
        "return -value  # turn the sign of the loss, or exchange its arguments",
    )


def _moved(case: Case, prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions half way to their targets, and half way to other rows' targets."""
    other = target[np.random.default_rng(0).permutation(len(target))]
    kind = prediction.dtype if prediction.dtype.kind == "f" else np.float32
    if target.shape == prediction.shape:
        summary = case.prediction_summary
        binary = set(np.unique(target).tolist()) <= {0, 1, -1}
        if binary and (summary.low < 0 or summary.high > 1):
            sign = np.where(target > 0, 1.0, -1.0), np.where(other > 0, 1.0, -1.0)
            return tuple((prediction + 2.0 * part).astype(kind) for part in sign)
        return tuple(
            (prediction + 0.5 * (part - prediction)).astype(kind) for part in (target, other)
        )
    axis = (
        case.class_axis
        if case.class_scores or case.axis is not None
        else (1 if case.known.library == "torch" else -1) % prediction.ndim
    )
    shape = prediction.shape[:axis] + prediction.shape[axis + 1 :]
    need(
        shape == target.shape and target.dtype.kind in "iu",
        "targets of the predictions' shape or class numbers",
    )
    moved = []
    for labels in (target, other):
        hot = np.arange(prediction.shape[axis]) == labels[..., None]
        hot = np.moveaxis(hot, -1, axis)
        if case.reads in ("simplex", "log simplex"):
            logs = case.reads == "log simplex"
            share = 0.5 * (np.exp(prediction) if logs else prediction) + 0.5 * hot
            moved.append((np.log(share) if logs else share).astype(kind))
        else:
            moved.append((prediction + 2.0 * hot).astype(kind))
    return moved[0], moved[1]


@check("dead-gradient", severity="warning")
def dead_gradient(case: Case) -> Finding | None:
    """Predictions are wrong and get no gradient.

    Symptom: the loss stands still, or some rows are never learnt; "does not require grad".
    Cause: clamping predictions before the logarithm, argmax or round in the loss, detached tensors, dead ReLUs.
    Fix: a loss on logits; a differentiable surrogate.
    People type: element 0 of tensors does not require grad; no gradients provided for any variable; loss not differentiable argmax;
    clip gradient zero; custom f1 loss not learning

    Wrong::

        examine(np.where(binary > 0, 1e-9, 0.3), binary, loss=torch_clamped)

    Right::

        examine(np.where(binary > 0, 1e-3, 0.3), binary, loss=torch_clamped)
    """
    need(
        case.target is not None and len(case.arrays) == 1 and case.ranks is None,
        "one prediction and a target",
    )
    if case.gradient is not None:
        slope = np.asarray(case.gradient, np.float64)
        prediction, target = case.predicted, case.truth
        need(slope.shape == prediction.shape, "a gradient of the prediction's shape")
        options: dict[str, Any] = {}
    else:
        subject, batch = case.foreign, case.batch
        need(subject.library != "numpy", "a differentiable loss, or gradient=")
        need(math.isfinite(case.value), "a finite loss")
        prediction, target, options = batch["prediction"], batch["target"], _options(batch)
        found = subject.gradient(prediction, target, **options)
        if found is None:
            return Finding(
                f"No gradient flows from {subject.name} to the predictions.",
                "argmax, round, comparisons, .detach(), .item() and NumPy calls cut it: nothing is learnt.",
                'Loss("...")  # a smooth surrogate of your metric: soft Dice for F1 and IoU, cross-entropy for accuracy',
                severity="error",
            )
        slope = found
    wrong = _wrong(case, prediction, target, options)
    if wrong is None or not wrong.any():
        return None
    dead = wrong & (slope == 0)
    share = float(dead.sum() / wrong.sum())
    if share < 0.05:
        return None
    stuck = prediction[dead]
    return Finding(
        f"{share:.0%} of the predictions that are clearly wrong ({int(dead.sum()):,} of {int(wrong.sum()):,}) get a gradient of exactly 0; "
        f"they lie between {stuck.min():.4g} and {stuck.max():.4g}.",
        "The rows that need it most are never learnt: clamping, saturation or a step cuts the slope.",
        case.line(
            'Loss("binary_cross_entropy")  # on logits, where nothing is clipped',
            torch="loss = nn.BCEWithLogitsLoss()  # on logits: no clamp before the logarithm",
            keras="keras.losses.BinaryCrossentropy(from_logits=True)",
        ),
    )


def _wrong(
    case: Case, prediction: np.ndarray, target: np.ndarray, options: dict[str, Any]
) -> np.ndarray | None:
    """Where a prediction is clearly on the wrong side and the loss says so; None when unknown."""
    need(prediction.shape == target.shape, "targets of the predictions' shape")
    counted = np.ones(prediction.shape, bool)
    for extra in options.values():
        extra = (
            extra
            if extra.ndim == prediction.ndim
            else extra.reshape(extra.shape + (1,) * (prediction.ndim - extra.ndim))
        )
        counted &= np.broadcast_to(extra, prediction.shape) != 0
    if case.ignored is not None:
        counted &= target != case.ignored
    if set(np.unique(target[:10_000]).tolist()) <= {0, 1, -1}:
        inside = case.prediction_summary.low >= 0 and case.prediction_summary.high <= 1
        threshold = 0.5 if inside and case.reads != "logit" else 0.0
        side = (prediction > threshold) != (target > 0)
    else:
        spread = float(np.std(target)) or 1.0
        side = np.abs(prediction - target) > 0.1 * spread
    if case.gradient is None and case.foreign.unit in (None, "element"):
        values = case.foreign.values(prediction, target, **options)
        if values.shape == prediction.shape:
            side &= values > values.min() + 1e-6 * float(np.ptp(values))
    return side & counted
