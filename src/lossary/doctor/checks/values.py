"""The values themselves: does each input live in the set that the loss is defined on?"""

from __future__ import annotations

import math

import numpy as np

from lossary.contract import Interval, Space
from lossary.doctor.arrays import summarize
from lossary.doctor.case import Case
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding

BATCH = 64


@check("target-range", severity="error")
def target_range(case: Case) -> Finding | None:
    """Targets of a probability-like loss lie outside [0, 1].

    Symptom: binary cross-entropy is negative and falls without end; predictions saturate.
    Cause: masks are stored as 0 and 255, labels as -1 and 1, or counts are used as labels.
    Fix: bring the targets to [0, 1].
    People type: negative loss with binary crossentropy; bce loss negative; loss goes to minus
    infinity; mask 255; all elements of target should be between 0 and 1

    Wrong::

        examine(binary_logits, binary * 255, loss="binary_cross_entropy")

    Right::

        examine(binary_logits, binary, loss="binary_cross_entropy")
    """
    space = case.contract.target if case.known.contract else None
    need(
        space is not None
        and space.name in ("binary", "probability", "multi-hot", "mask", "simplex"),
        "a loss whose targets lie in [0, 1]",
    )
    summary = case.target_summary
    need(summary.finite, "targets that count")
    if summary.low >= 0 and summary.high <= 1 + 1e-6:
        return None
    signs = summary.low == -1 and summary.high == 1
    labels = summary.labels
    if (
        labels is not None
        and 3 <= len(labels) <= 100
        and summary.low == 0
        and summary.high == len(labels) - 1
    ):
        return None  # class numbers: the check "encoding" tells
    fix = (
        "target = (target + 1) / 2"
        if signs
        else f"target = target / {summary.high:.4g}"
        if summary.low >= 0
        else "target = (target > 0) * 1.0"
    )
    count = int(summary.outside_unit)
    return Finding(
        f"{count:,} of {summary.finite:,} targets are outside [0, 1]: they run from "
        f"{summary.low:.4g} to "
        f"{summary.high:.4g}.",
        "Beyond 1 this loss has no lower bound: it goes negative and rewards ever larger outputs.",
        fix,
    )


@check("nan-target", severity="warning")
def nan_target(case: Case) -> Finding | None:
    """Missing targets are NaN and nothing masks them.

    Symptom: the loss is NaN from one batch on, and so are all parameters afterwards.
    Cause: one missing label in a batch makes the mean NaN.
    Fix: mask the missing targets.
    People type: nan in targets; nan in labels; missing labels regression; ignore nan in loss; train
    with missing targets

    Wrong::

        examine(estimate, with_gaps(truth), loss="mse")

    Right::

        examine(estimate, with_gaps(truth), loss="mse", mask=~np.isnan(with_gaps(truth)))
    """
    need(case.truth.dtype.kind == "f", "targets of a floating type")
    ignored = case.ignored
    if ignored is not None and math.isnan(ignored):
        return None
    summary = case.target_summary
    bad = summary.nan + summary.infinite
    if not bad:
        return None
    share = bad / max(1, summary.size)
    batch = case.batch_size or BATCH
    chance = 1 - (1 - share) ** (batch * max(1, case.truth[:1].size))
    what = "NaN" if summary.nan else "infinite"
    return Finding(
        f"{bad:,} of {summary.size:,} targets that count are {what} ({share:.2%}): a batch of "
        f"{batch} has a "
        f"{chance:.0%} chance of a {'NaN' if summary.nan else 'non-finite'} loss.",
        "One such batch makes the gradient, and from then on every parameter, NaN.",
        case.line(
            "loss(prediction, target, mask=~np.isnan(target))",
            torch="loss(prediction, target, mask=~torch.isnan(target))  # lossary.Loss",
            jax="loss(prediction, target, mask=~jnp.isnan(target))",
        ),
    )


_ELSEWHERE = (
    "binary",
    "probability",
    "multi-hot",
    "mask",
    "simplex",
    "classes",
    "labels",
    "weights",
)


@check("domain", severity="error")
def domain(case: Case) -> Finding | None:
    """A value on which the loss is not defined.

    Symptom: infinite or NaN loss, or an enormous one in single rows.
    Cause: a percentage error divides by zero targets; a rate, a variance or a target under a
    logarithm is 0 or negative; hinge labels are 0 and 1 instead of -1 and 1.
    Fix: change the values, or take a loss that is defined there.
    People type: mape infinity; mean absolute percentage error division by zero; poisson nll nan;
    hinge loss labels must be -1 or 1; log of negative target; msle nan

    Wrong::

        examine(binary_logits, binary, loss="hinge")

    Right::

        examine(binary_logits, 2 * binary - 1, loss="hinge")
    """
    contract = case.contract
    arrays = dict(case.inputs)
    if case.target is not None and contract.target is not None:
        arrays[str(contract.target_name)] = case.truth
    looked = False
    for name, array in arrays.items():
        space = contract.inputs.get(name)
        if space is None:
            continue
        interval = _interval(case, name, space)
        if space.name == "sign":
            finding = _signs(case, array)
        elif space.layout == "image" and _data_range(case) is not None:
            finding = None  # the loss was told the images' range
        elif space.name in _ELSEWHERE or (interval.low == -math.inf and interval.high == math.inf):
            finding = _zeros(case, name, array)
            looked = looked or finding is not None or _divides(case)
        else:
            finding = _outside(case, name, array, interval, space)
        looked = looked or space.name == "sign" or interval.low > -math.inf
        if finding:
            return finding
    need(looked, "an input with a limited domain")
    return None


def _interval(case: Case, name: str, space: Space) -> Interval:
    if name == case.contract.predictions[0] and case.known.predictions in (
        "rates",
        "variances",
    ):
        return Interval(0, math.inf, "neither")
    return space.interval


def _data_range(case: Case) -> float | None:
    """The value range of images, where the loss has a parameter for it."""
    return next(
        (
            value
            for name, value in case.known.parameters.items()
            if "range" in name and value not in (None, 1, 1.0)
        ),
        None,
    )


def _signs(case: Case, array: np.ndarray) -> Finding | None:
    summary = case.target_summary
    if summary.finite and summary.labels is not None and set(summary.labels) <= {-1.0, 1.0}:
        return None
    labels = (
        "" if summary.labels is None else f" ({', '.join(f'{v:g}' for v in summary.labels[:5])})"
    )
    zero_one = summary.labels is not None and set(summary.labels) <= {0.0, 1.0}
    return Finding(
        f"This loss takes labels -1 and 1; {summary.zeros:,} labels are 0, and labels run from "
        f"{summary.low:g} to "
        f"{summary.high:g}{labels}.",
        "A label 0 makes the margin 0 whatever is predicted: such rows cost a constant and teach "
        "nothing.",
        "target = 2 * target - 1" if zero_one else "target = np.where(target > 0, 1, -1)",
    )


def _divides(case: Case) -> bool:
    """Whether the definition is undefined at a zero target although its space allows one."""
    contract, subject = case.contract, case.known
    if (
        not subject.own
        or contract.target is None
        or contract.target.layout != "element"
        or len(contract.predictions) > 1
    ):
        return False
    with np.errstate(all="ignore"):
        value = subject.values(np.array([1.0]), np.array([0.0]))
        near = subject.values(np.array([1.0]), np.array([1.0]))
    return bool(not np.isfinite(value).all() or (value > 1e6).any()) and bool(
        np.isfinite(near).all()
    )


def _zeros(case: Case, name: str, array: np.ndarray) -> Finding | None:
    if (
        name != case.contract.target_name
        or not case.target_summary.zeros
        or len(case.inputs) > 1
        or not _divides(case)
    ):
        return None
    summary = case.target_summary
    return Finding(
        f"{summary.zeros:,} of {summary.finite:,} targets are 0, and {case.known.name} divides "
        "by the target.",
        "A handful of such rows decides the mean; the others no longer count.",
        'Loss("mae")  # or Loss("symmetric_percentage_error")',
    )


def _outside(
    case: Case, name: str, array: np.ndarray, interval: Interval, space: Space
) -> Finding | None:
    is_target = name == case.contract.target_name
    summary = case.target_summary if is_target else summarize(array)
    need(summary.finite, f"finite values of {name}")
    if summary.low in interval and summary.high in interval:
        return None
    at_zero = summary.low == 0.0 and interval.low == 0.0
    low_side = summary.low not in interval
    count = summary.zeros if at_zero else summary.negative
    what = f"{count:,} are {'0' if at_zero else 'negative'}" if low_side else "some are too large"
    return Finding(
        f"{case.known.name} takes {name} in {interval}; of {summary.finite:,} values {what} "
        "(they run from "
        f"{summary.low:.4g} to {summary.high:.4g}).",
        "Outside its domain the loss is infinite, NaN or meaningless, and one such row spoils the "
        "mean.",
        f"{name} = softplus({name}) + 1e-6  # or take a loss defined on these values"
        if not is_target
        else f"target = target.clip({interval.low:g} + 1e-6)  # or a loss defined on these values",
    )
