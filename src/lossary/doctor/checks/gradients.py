"""Values that are not finite, and gradients that are wrong, dead or point the other way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lossary.doctor.arrays import dtype_name, to_numpy
from lossary.doctor.case import Case
from lossary.doctor.derivative import slope_at, step_of
from lossary.doctor.registry import check, need, present
from lossary.doctor.report import Finding

POINTS = 20
AGREES = 1e-4  # a difference as near as this to the gradient needs no other step beside it


@check("gradient-check", severity="error")
def gradient_check(case: Case) -> Finding | None:
    """A hand-written gradient or Hessian disagrees with the loss.

    Symptom: a custom loss trains poorly or diverges; boosting stops after one round.
    Cause: a wrong sign, a missing factor, the derivative by another variable, a negative Hessian.
    Fix: correct the formula; keep the Hessian positive.
    People type: custom objective gradient hessian; xgboost custom loss wrong; custom autograd
    function gradient wrong; gradcheck; hessian negative

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
    need(case.attempt[0] is not None, "a loss that runs on these arrays")
    prediction, target = case.predicted, case.truth
    options: dict[str, Any]
    if case.gradient is not None:
        slopes = np.asarray(case.gradient, np.float64)
        need(slopes.shape == prediction.shape, "a gradient of the prediction's shape")
        options = {
            key: value
            for key, value in (("weights", case.weights_array), ("mask", case.mask_array))
            if value is not None
        }
    else:
        batch = case.batch
        prediction, target, options = batch["prediction"], batch["target"], case.options
        rows = slice(0, 32)
        prediction, target = prediction[rows], target[rows]
        options = {key: value[rows] for key, value in options.items()}
        slopes = present(
            subject.gradient(prediction, target, dtype="float64", **options), "a gradient"
        )
    wide = prediction.astype(np.float64)
    rounds = _rounding(case, wide, target, options)
    chosen = np.random.default_rng(0).permutation(wide.size)[:POINTS]
    pairs = []
    for index in chosen:
        analytic = float(slopes.reshape(-1)[index])
        place = np.unravel_index(index, wide.shape)
        # A loss that rounds to float32 inside needs the wide step, a clamped one the narrow step.
        found = []
        for relative in (1e-5, 1e-3, 1e-1):
            noise = rounds / step_of(float(wide[place]), relative)
            found.append((slope_at(subject, wide, target, place, options, relative), noise))
            if abs(found[-1][0] - analytic) <= noise + AGREES * abs(analytic):
                break
        slope, noise = min(found, key=lambda item: max(0.0, abs(item[0] - analytic) - item[1]))
        pairs.append((analytic, slope, noise))
    return _compare(pairs)


def _rounding(case: Case, wide: np.ndarray, target: Any, options: dict[str, Any]) -> float:
    """How far two values of a loss may differ by rounding alone: some compute in float32 inside."""
    if case.known.own:
        return 0.0
    result = case.known.raw(wide, target, dtype="float64", **options)
    name = dtype_name(result)
    if name == "float64":
        return 0.0
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(name, 2.0**-24)
    return 4 * unit * float(np.abs(to_numpy(result, "the value")).mean())


def _hessian(hessian: np.ndarray) -> Finding | None:
    negative, zero = float((hessian < 0).mean()), float((hessian == 0).mean())
    if negative == 0 and zero < 0.05:
        return None
    return Finding(
        f"The Hessian is negative for {negative:.0%} and 0 for {zero:.0%} of {hessian.size:,} rows "
        f"(least {hessian.min():.3g}).",
        "Boosting divides by the sum of Hessians: steps go the wrong way or become enormous.",
        "hessian = np.maximum(hessian, 1e-6)",
    )


def _compare(pairs: list[tuple[float, float, float]]) -> Finding | None:
    """From (gradient, difference, its rounding error) at some points."""
    given, true, noise = np.array(pairs).T
    scale = float(np.abs(true).max())
    if scale == 0:
        return None
    # Where a difference is rounded it is also taken wide, and the curve bends in between.
    relative, absolute = np.where(noise > 0, [[0.1], [0.02]], [[2e-3], [1e-4]])
    wrong = np.abs(given - true) > relative * np.abs(true) + absolute * scale + noise
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
        fix = "value, gradient = Loss(loss).value_and_grad(prediction, target)"
    sign = f"; the sign is wrong at {flipped}" if flipped else ""
    return Finding(
        f"The gradient disagrees with the loss at {int(wrong.sum())} of {len(pairs)} points{sign}: "
        f"{tell}.",
        "The optimiser follows this gradient, not the loss that you watch.",
        fix,
    )


@check("direction", severity="error")
def direction(case: Case) -> Finding | None:
    """Better predictions make the loss larger.

    Symptom: the loss goes down and the metric goes down too; training converges to nonsense.
    Cause: a missing minus sign (a similarity or an accuracy used as a loss), exchanged arguments.
    Fix: turn the sign.
    People type: loss decreases but accuracy decreases; custom loss wrong sign; cosine similarity
    loss sign; maximize instead of minimize

    Wrong::

        examine(estimate, truth, loss=lambda prediction,
                target: -((prediction - target) ** 2).mean())

    Right::

        examine(estimate, truth, loss=lambda prediction,
                target: ((prediction - target) ** 2).mean())
    """
    subject, batch = case.foreign, case.batch
    prediction, target = batch["prediction"], batch["target"]
    need(
        isinstance(prediction, np.ndarray) and target is not None and len(target) >= 4,
        "four or more predictions and targets",
    )
    need(subject.framework is None or subject.contract is not None, "a loss that is known")
    start = case.value
    need(math.isfinite(start), "a finite loss")
    options = case.options
    for better, worse in _moved(case, prediction, target):
        good, bad = subject(better, target, **options), subject(worse, target, **options)
        if (
            not (math.isfinite(good) and math.isfinite(bad))
            or good < bad
            or math.isclose(good, bad, rel_tol=1e-4, abs_tol=1e-7)
        ):
            return None
    return Finding(
        f"Predictions moved towards their targets give {good:.5g}; moved towards shuffled targets "
        f"{bad:.5g} (as they are: "
        f"{start:.5g}).",
        "The optimiser will make predictions worse. A sign is missing, or the arguments are "
        "exchanged.",
        "return -value  # turn the sign of the loss, or exchange its arguments",
        # Labels -1 and 1 may also tell near from far, where a small prediction is right.
        severity="warning" if subject.contract is None and float(target.min()) == -1 else None,
    )


def _moved(case: Case, prediction: np.ndarray, target: np.ndarray) -> list[tuple[Any, Any]]:
    """Predictions moved to their targets and to other rows' targets, in each way that may be meant.

    Targets of 0 and 1 may be values to come near to, or sides that a logit should take.
    """
    other = target[np.random.default_rng(0).permutation(len(target))]
    kind = prediction.dtype if prediction.dtype.kind == "f" else np.float32
    if target.shape == prediction.shape:
        summary = case.prediction_summary
        binary = set(np.unique(target).tolist()) <= {0, 1, -1}
        sides = binary and (summary.low < 0 or summary.high > 1)
        near = [(0.1 * prediction + 0.9 * part).astype(kind) for part in (target, other)]
        far = [
            (prediction + np.where(part > 0, 2.0, -2.0)).astype(kind) for part in (target, other)
        ]
        by_value = case.reads is None or not case.binary_scores
        need(
            binary or case.reads is not None or target.dtype.kind == "f", "targets that are values"
        )
        need(case.reads not in ("log rate", "log variance"), "predictions that are like targets")
        ways = [near] * (by_value or not sides) + [far] * (sides and case.reads != "real")
        return [(toward, away) for toward, away in ways]
    axis = case.class_axis
    shape = prediction.shape[:axis] + prediction.shape[axis + 1 :]
    need(
        shape == target.shape and target.dtype.kind in "iu",
        "targets of the predictions' shape or class numbers",
    )
    if case.known.contract is None:
        need(_scores_of_classes(case, prediction, target, axis), "one score for each class")
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
    return [(moved[0], moved[1])]


def _scores_of_classes(case: Case, prediction: np.ndarray, target: np.ndarray, axis: int) -> bool:
    """Whether a row's own label pulls at that column, always one way: embeddings have no such."""
    rows = slice(0, 32)
    slope = case.known.gradient(prediction[rows], target[rows])
    count = prediction.shape[axis]
    if slope is None or bool(((target[rows] < 0) | (target[rows] >= count)).any()):
        return False
    place = np.expand_dims(target[rows], axis)
    signs = np.sign(np.take_along_axis(slope, place, axis))
    pulls = signs[signs != 0]
    return len(pulls) > 0 and abs(float(pulls.mean())) > 0.8


@check("dead-gradient", severity="warning")
def dead_gradient(case: Case) -> Finding | None:
    """Predictions are wrong and get no gradient.

    Symptom: the loss stands still, or some rows are never learnt; "does not require grad".
    Cause: clamping predictions before the logarithm, argmax or round in the loss, detached tensors,
    dead ReLUs.
    Fix: a loss on logits; a differentiable surrogate.
    People type: element 0 of tensors does not require grad; no gradients provided for any variable;
    loss not differentiable argmax; clip gradient zero; custom f1 loss not learning

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
        prediction, target, options = batch["prediction"], batch["target"], case.options
        found = subject.gradient(prediction, target, **options)
        if found is None:
            return Finding(
                f"No gradient flows from {subject.name} to the predictions.",
                "argmax, round, comparisons, .detach(), .item() and NumPy calls cut it: nothing is "
                "learnt.",
                'Loss("dice")  # smooth, as F1 and IoU are not; cross_entropy for accuracy',
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
        f"{share:.0%} of the predictions that are clearly wrong ({int(dead.sum()):,} of "
        f"{int(wrong.sum()):,}) get a gradient of exactly 0; "
        f"they lie between {stuck.min():.4g} and {stuck.max():.4g}.",
        "The rows that need it most are never learnt: clamping, saturation or a step cuts the "
        "slope.",
        "value, gradient = Loss(loss).value_and_grad(prediction, target)"
        if case.gradient is not None
        else case.line(
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
        need(target.dtype.kind == "f" or case.reads is not None, "targets that are values")
        spread = float(np.std(target)) or 1.0
        side = np.abs(prediction - target) > 0.1 * spread
    if case.gradient is None and case.foreign.unit in (None, "element"):
        values = case.foreign.values(prediction, target, **options)
        if values.shape == prediction.shape:
            side &= values > values.min() + 1e-6 * float(np.ptp(values))
    return np.asarray(side & counted)
