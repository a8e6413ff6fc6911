"""The learning signal: where the loss stands, who makes the gradient, what the target asks for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lossary.contract import LossError, contracts
from lossary.doctor.case import Case
from lossary.doctor.landmarks import best_constant, every_class_is_seen, floor_of, start_of
from lossary.doctor.registry import check, need, present
from lossary.doctor.report import Finding

TOP = 0.01
DOMINATED = 0.33


@check("initial-loss", severity="warning")
def initial_loss(case: Case) -> Finding | None:
    """The first loss is far from what an untrained network gives.

    Symptom: training starts at 147 instead of 2.3.
    Cause: a sum instead of a mean, a wrong number of classes, an output layer initialised far too
    wide, targets that are not scaled.
    Fix: the mean; small initial weights and the class prior as bias; scaled targets.
    People type: initial loss too high; expected loss at initialization; first loss ln(10); loss
    starts at 147; initial loss should be 2.3

    Wrong::

        examine(logits, classes, loss="cross_entropy", history=[147.4, 140.0, 131.0], batch_size=64)

    Right::

        examine(logits, classes, loss="cross_entropy", history=[2.31, 2.2, 2.0], batch_size=64)
    """
    history = present(case.history, "history=")
    need(len(history), "history=")
    first = float(history[0])
    need(math.isfinite(first), "a finite first loss")
    start = present(start_of(case), "a loss whose start is known")
    need(start > 0, "a loss that starts above 0")
    ratio = first / start
    scores = case.class_scores or case.binary_scores
    whole = round(ratio)
    near = whole >= 2 and abs(ratio - whole) < (0.03 * whole if scores else 0.15 * whole)
    rows = case.batch_size
    if near and rows and abs(whole - rows) <= max(1, 0.02 * rows if scores else 0.15 * rows):
        return Finding(
            f"First loss {first:.4g} = {rows} × {start:.4g}: this is a sum over the batch of "
            f"{rows}.",
            "The learning rate then depends on the batch size, and the last, smaller batch weighs "
            "less.",
            case.line(
                f'Loss("{case.known.name}", reduction="mean")',
                torch=f'loss = nn.{case.known.name}(reduction="mean")',
                keras=f'keras.losses.{case.known.name}(reduction="sum_over_batch_size")',
            ),
        )
    if ratio < (2.0 if scores else 20.0):
        return None
    what = (
        f"{case.classes} equally likely classes"
        if case.class_scores
        else "an undecided network"
        if scores
        else "predicting 0"
    )
    integer = f" It is {whole} × that." if near else ""
    return Finding(
        f"First loss {first:.4g}; {what} would give {start:.4g} ({ratio:.3g} times less).{integer}",
        "The first steps only undo a bad start: outputs are far too large, or the scale of loss or "
        "target is off.",
        case.line(
            "head.weight[:] = 0  # and its bias at the log of the class frequencies",
            torch="nn.init.zeros_(head.weight)  # and head.bias at the log of the class "
            "frequencies",
            keras='keras.layers.Dense(classes, kernel_initializer="zeros")  # the last layer',
            jax="nn.Dense(classes, kernel_init=nn.initializers.zeros)  # the last layer",
        )
        if scores
        else "target = (target - target.mean()) / target.std()  # and a small last layer",
    )


@check("constant-predictor", severity="warning")
def constant_predictor(case: Case) -> Finding | None:
    """The model is no better than one constant answer.

    Symptom: the loss stands at the logarithm of the number of classes (0.693 with 2, 1.099 with 3,
    2.303 with 10, 4.605 with 100, 6.908 with 1,000), or at the variance of the targets; the
    accuracy stands still, and every input gets the same answer.
    Cause: only the class frequencies have been learnt: features do not reach the output, labels are
    shuffled against inputs, the learning rate is far off, shapes broadcast.
    Fix: overfit one batch; if that fails, the fault is in the path from input to loss.
    People type: loss stuck at 0.693; loss stuck at 2.303; model predicts the same class; network
    predicts the mean; loss not decreasing; accuracy stuck at 50; loss stuck at 4.605; accuracy not
    improving; accuracy stuck at 0.5; outputs the same value for every input; model predicts all one
    class; loss does not change; network is not learning anything; identical output for all inputs

    Wrong::

        examine(0.01 * binary_logits[::-1], binary, loss="binary_cross_entropy")

    Right::

        examine(4 * binary - 2 + 0.3 * binary_logits, binary, loss="binary_cross_entropy")
    """
    need(case.trained is not False, "a model that has been trained")
    need(case.target is not None and case.target_summary.variance > 0, "targets that vary")
    need(every_class_is_seen(case), "rows of every class among those looked at")
    constant, loss_there = present(best_constant(case), "a loss with a known best constant")
    value = case.value
    need(math.isfinite(value) and math.isfinite(loss_there), "finite losses")
    floor = floor_of(case) or 0.0
    span = abs(loss_there - min(floor, loss_there))
    need(span > 1e-9, "targets that vary")
    if value < loss_there - 0.02 * span:
        return None
    start = start_of(case)
    equal = (
        start is not None
        and case.binary_scores
        and abs(value - start) < 0.01 * start
        and start > 1.02 * loss_there
    )
    same = "always answering 50%" if equal else f"always answering {constant}"
    compared = "equals" if equal or value < loss_there + 0.02 * span else "is worse than"
    prior = (
        f"; the class frequencies alone give {loss_there:.4g}" if equal else f" ({loss_there:.4g})"
    )
    return Finding(
        f"Loss {value:.4g} {compared} {same}{prior}.",
        "Nothing about single inputs has been learnt yet.",
        case.line(
            "for _ in range(500): step(x[:8], y[:8])  # must learn 8 rows by heart; if not, follow "
            "the input to the loss",
            keras="model.fit(x[:8], y[:8], epochs=500)  # must learn 8 rows by heart; if not, "
            "follow the input to the loss",
        ),
    )


@check("floor", severity="note")
def floor(case: Case) -> Finding | None:
    """The loss cannot reach 0: soft targets or label smoothing set a floor.

    Symptom: the loss stops at 0.5 although every answer is right.
    Cause: the least possible loss is the entropy of the (smoothed) targets.
    Fix: none needed; judge the distance to the floor.
    People type: label smoothing loss does not go to zero; minimum of cross entropy with soft
    labels; loss stuck at 0.5 label smoothing

    Wrong::

        examine(logits, classes, loss=Loss("cross_entropy", label_smoothing=0.1))

    Right::

        examine(logits, classes, loss="cross_entropy")
    """
    need(case.class_scores or case.binary_scores, "a loss of probabilities")
    least = present(floor_of(case), "a known floor")
    if least < 0.01:
        return None
    smoothing = case.known.parameters.get("label_smoothing", 0)
    reason = f"With label smoothing {smoothing:g}" if smoothing else "With these soft targets"
    classes = f" and {case.classes} classes" if case.class_scores else ""
    return Finding(
        f"{reason}{classes} the minimum is {least:.3f}; the loss is at {case.value:.4g}.",
        "It is the entropy of the targets themselves: do not wait for 0, watch the distance.",
        f"distance = value - {least:.3f}",
    )


@check("domination", severity="warning")
def domination(case: Case) -> Finding | None:
    """A few rows carry most of the gradient.

    Symptom: training jumps; the model fits outliers and is mediocre everywhere else.
    Cause: squared errors of heavy-tailed targets; a unit error in some rows.
    Fix: a loss of bounded slope (Huber), or the logarithm of the target.
    People type: outliers dominate mse; huber or mse; robust regression loss; loss spikes; exploding
    loss outliers

    Wrong::

        examine(estimate, with_outliers(truth), loss="mse")

    Right::

        examine(estimate, with_outliers(truth), loss="huber")
    """
    subject = case.known
    need(case.target is not None and len(case.arrays) == 1, "one prediction and a target")
    if subject.contract is not None:
        need(
            subject.contract.predictions
            and subject.contract.inputs[subject.contract.predictions[0]].name
            in ("real", "positive", "nonnegative"),
            "a regression loss",
        )
        if subject.promises("lipschitz") and case.gradient is None:
            return None
    need(
        case.truth.shape == case.predicted.shape
        and len(case.truth) >= 200
        and not case.target_summary.integral,
        "200 or more rows of real targets",
    )
    if case.gradient is not None:
        slope = np.asarray(case.gradient, np.float64)
        need(slope.shape == case.predicted.shape, "a gradient of the prediction's shape")
    else:
        batch = case.batch
        need(subject.own or subject.library != "numpy", "a differentiable loss, or gradient=")
        options = {key: batch[key] for key in ("mask",) if batch[key] is not None}
        try:
            found = subject.gradient(batch["prediction"], batch["target"], **options)
        except LossError as problem:
            need(False, f"a gradient ({problem})")
        need(found is not None and np.isfinite(found).all(), "a finite gradient")
        slope = present(found, "a gradient")
    rows = np.abs(slope).reshape(len(slope), -1).sum(axis=1)
    total = float(rows.sum())
    need(total > 0, "a gradient that is not 0")
    count = max(1, math.ceil(TOP * len(rows)))
    order = np.argsort(-rows)[:count]
    share = float(rows[order].sum() / total)
    if share < DOMINATED:
        return None
    return Finding(
        f"{TOP:.0%} of the rows carry {share:.0%} of the gradient (largest in row {int(order[0])} "
        f"of {len(rows)} examined).",
        "The optimiser serves these rows; if they are errors of measurement, it learns the errors.",
        case.line(
            'Loss("huber", delta=1.0)  # or the logarithm of the target',
            torch="loss = nn.HuberLoss(delta=1.0)",
            keras="loss = keras.losses.Huber(delta=1.0)",
        ),
    )


@check("negative-value", severity="note")
def negative_value(case: Case) -> Finding | None:
    """The loss is negative: fine for some losses, impossible for others.

    Symptom: a loss below 0.
    Cause: fine where the loss is a log-density or a similarity; else targets outside their range or
    a missing sign.
    Fix: none, or bring the inputs into their sets.
    People type: negative loss; can loss be negative; cosine similarity loss negative; gaussian nll
    negative; bce loss is negative; why is my loss negative; cross entropy below zero

    Wrong::

        examine(estimate, truth, loss=lambda prediction, target: -(prediction * target).mean())

    Right::

        examine(estimate, truth, loss="mse")
    """
    value = case.value
    if not value < 0:
        return None
    contract = case.known.contract
    if case.known.promises("nonnegative"):
        return Finding(
            f"{case.known.name} is {value:.4g}, and it cannot be negative on inputs it is "
            "defined for.",
            "Some input lies outside its set (targets beyond [0, 1], predictions that are no "
            "probabilities).",
            "target = target.clip(0, 1)  # look at the other findings first",
            severity="error",
        )
    if contract is None:
        return Finding(
            f"The loss is {value:.4g}.",
            "Nothing says that it may be negative; a missing sign looks like this.",
            "value = -value  # if the check 'direction' says so; else lower is better below 0 too",
        )
    return Finding(
        f"{case.known.name} is {value:.4g}: it is not bounded below by 0.",
        "Log-densities and similarities may be negative; lower is still better. Nothing to fix.",
        "# nothing to change: watch its decrease, not its sign",
    )


@check("target-suggests", severity="note")
def target_suggests(case: Case) -> Finding | None:
    """The targets look like counts, shares, levels or heavy tails, and the loss does not use it.

    Symptom: predictions below 0 for counts, a model that serves only large values.
    Cause: squared error fits one kind of noise: symmetric, of constant size.
    Fix: a loss made for this kind of target.
    People type: which loss for count data; loss for skewed target; loss for zero inflated data;
    loss for ratings 1 to 5; loss for values between 0 and 1

    Wrong::

        examine(estimate, counts, loss="mse")

    Right::

        examine(np.log(counts + 1.0), counts, loss="poisson_nll")
    """
    need(
        case.target is not None and (case.subject is None or case.reads == "real"),
        "a regression loss or none",
    )
    need(
        case.subject is not None or case.truth.shape == case.predicted.shape,
        "targets of the predictions' shape",
    )
    summary = case.target_summary
    need(summary.finite >= 64, "64 or more targets")
    told = _kind_of_target(case, summary)
    if told is None:
        return None
    seen, fix = told
    return Finding(
        seen,
        "A loss that matches the noise learns more from the same rows and predicts possible "
        "values.",
        fix,
    )


def _loss_of(space: str, word: str) -> str:
    """A loss whose target lives in this space, from the contracts; if it can, of this name."""
    found = [
        item.name for item in contracts() if item.target is not None and item.target.name == space
    ]
    return f'Loss("{max(found, key=lambda name: word in name)}")'


def _kind_of_target(case: Case, summary: Any) -> tuple[str, str] | None:
    distinct = None if summary.labels is None else len(summary.labels)
    zero_share = summary.zeros / summary.finite
    if summary.integral and summary.low >= 0 and distinct and distinct > 2:
        if (
            summary.low in (0, 1)
            and distinct <= 10
            and distinct == summary.high - summary.low + 1
            and zero_share < 0.4
            and summary.high <= 10
            and summary.variance < summary.mean
        ):
            return (
                f"Targets are {distinct} levels {summary.low:.0f}..{summary.high:.0f}: ordered "
                "grades?",
                f"target = 1.0 * (target[:, None] > np.arange({summary.low:.0f}, "
                f"{summary.high:.0f}))  # ordered: is it above each level? "
                'with Loss("binary_cross_entropy")',
            )
        ratio = summary.variance / summary.mean if summary.mean else math.nan
        return (
            f"Targets are counts (whole, 0 to {summary.high:.0f}), variance {ratio:.1f} times the "
            "mean.",
            _loss_of("count", "negative" if ratio > 2 else "poisson"),
        )
    if summary.integral and distinct == 2:
        return ("Targets take two values: a yes or no?", 'Loss("binary_cross_entropy")')
    if zero_share > 0.3 and summary.low >= 0 and summary.high > 0:
        return (
            f"{zero_share:.0%} of the targets are exactly 0 and the others positive.",
            _loss_of("nonnegative", "tweedie"),
        )
    if summary.low >= 0 and summary.high <= 1 and summary.variance > 0 and not summary.integral:
        return (
            f"Targets are shares in [0, 1] (from {summary.low:.3g} to {summary.high:.3g}).",
            'Loss("binary_cross_entropy")  # on a logit: its mean is the share, and predictions '
            "stay inside",
        )
    flat = case.truth.flat[:: max(1, case.truth.size // 100_000)].astype(np.float64)
    flat = flat[np.isfinite(flat)]
    low, middle, high = np.quantile(flat, [0.25, 0.5, 0.75])
    reach = float(np.quantile(np.abs(flat - middle), 0.995)) / max(float(high - low), 1e-12)
    if summary.low > 0 and summary.high / max(middle, 1e-12) > 30:
        return (
            f"Targets are positive and span {math.log10(summary.high / summary.low):.1f} orders of "
            "magnitude.",
            f"target = np.log(target)  # or {_loss_of('positive', 'gamma')}",
        )
    bounded = case.subject is not None and case.subject.promises("lipschitz")
    if reach > 6 and not bounded:
        return (
            f"Targets have heavy tails: one in 200 lies {reach:.1f} interquartile ranges from the "
            "median.",
            f'Loss("huber")  # or {_loss_of("real", "student")}',
        )
    return None
