"""Logits, probabilities or log-probabilities: does the prediction arrive as the loss reads it?"""

from __future__ import annotations

import math

import numpy as np

from lossary.doctor.arrays import blocks, row_deviation
from lossary.doctor.case import Case
from lossary.doctor.registry import NotApplicable, check, need
from lossary.doctor.report import Finding


@check("double-softmax", severity="error")
def double_softmax(case: Case) -> Finding | None:
    """Probabilities reach a loss that applies softmax itself.

    Symptom: training runs, but the loss stops falling far above 0 (0.313 with 2 classes, 1.461 with
    10, 3.622 with 100) and learning is slow.
    Cause: the network ends in softmax and the loss takes logits, so softmax is applied twice.
    Probabilities lie in [0, 1], so the second softmax can never be sure of anything.
    Fix: remove the softmax layer, or tell the loss that probabilities come.
    People type: loss stuck at 1.461; cross entropy does not go below 1.46; softmax before
    CrossEntropyLoss; double softmax; loss stuck at 0.313; from_logits true or false; loss cannot go
    below 1.461; should i use softmax with CrossEntropyLoss; softmax applied twice

    Wrong::

        examine(softmax(logits), classes, loss="cross_entropy")

    Right::

        examine(logits, classes, loss="cross_entropy")
    """
    need(case.reads == "class logits", "a loss that reads class logits")
    count = case.classes
    need(count > 1, "two or more classes")
    summary = case.prediction_summary
    if summary.high > 1 + case.unit_tolerance or not case.rows_sum_to_one():
        return None
    if (case.predicted.flat[:100_000] == case.predicted.flat[0]).all():
        return None  # equal scores everywhere are as good logits as any
    floor = math.log(math.e + count - 1) - 1
    now = f" and it is at {case.attempt[0]:.4g}" if case.attempt[0] is not None else ""
    return Finding(
        f"Rows sum to 1 ({case.predicted.size // count:,} rows): these are probabilities, and the "
        f"loss applies softmax again. With {count} classes it cannot fall below {floor:.3f}{now}.",
        "A second softmax flattens every answer, so gradients stay small and no answer can be "
        "sure.",
        case.line(
            f'Loss("{case.known.name}", predictions="probabilities")  # or drop the softmax layer',
            torch="prediction = model(x)  # no nn.Softmax at the end: the loss applies it",
            keras="keras.layers.Dense(classes)  # no activation, with from_logits=True",
        ),
    )


@check("double-sigmoid", severity="warning")
def double_sigmoid(case: Case) -> Finding | None:
    """Probabilities reach a loss that applies a sigmoid itself.

    Symptom: a binary or multi-label model stays vague; the loss of the negatives stops at 0.693.
    Cause: the network ends in a sigmoid and the loss takes logits, so the sigmoid is applied twice:
    probabilities stay within [0.5, 0.731].
    Fix: remove the sigmoid, or tell the loss that probabilities come.
    People type: loss stuck at 0.693; sigmoid before BCEWithLogitsLoss; double sigmoid; binary
    predictions all above 0.5

    Wrong::

        examine(sigmoid(binary_logits), binary, loss="binary_cross_entropy")

    Right::

        examine(binary_logits, binary, loss="binary_cross_entropy")
    """
    need(case.reads == "logit", "a loss that reads logits")
    need(case.predicted.size >= 64, "64 or more predictions")
    summary = case.prediction_summary
    if summary.low < 0 or summary.high > 1 or summary.nan or summary.infinite:
        return None
    sample = np.unique(case.predicted.flat[:4096])
    if len(sample) < 16:
        return None
    negatives = "" if case.attempt[0] is None else f"; the loss is at {case.attempt[0]:.4g}"
    return Finding(
        f"All {summary.size:,} values lie in [0, 1] (from {summary.low:.3g} to "
        f"{summary.high:.3g}): these "
        f"look like probabilities. After a second sigmoid p stays within [0.5, 0.731]{negatives}.",
        "A perfect negative still costs 0.693 and keeps pulling, so the model cannot learn to say "
        "no.",
        case.line(
            f'Loss("{case.known.name}", predictions="probabilities")  # or drop the sigmoid',
            torch="prediction = model(x)  # no torch.sigmoid at the end: the loss applies it",
            keras="loss = keras.losses.BinaryCrossentropy(from_logits=False)",
        ),
    )


@check("logits-as-probabilities", severity="error")
def logits_as_probabilities(case: Case) -> Finding | None:
    """The loss expects probabilities (or log-probabilities) and something else comes.

    Symptom: NaN, a negative loss, a loss near 16 that never moves, or one that clipping silently
    flattens.
    Cause: raw network outputs reach a loss that takes probabilities; or NLLLoss gets probabilities
    or logits although it takes log-probabilities.
    Fix: use the variant that takes logits; for NLLLoss apply log_softmax.
    People type: NLLLoss negative; BCELoss all elements of input should be between 0 and 1;
    categorical crossentropy nan; loss stuck at 16.118; from_logits; assertion input_val >= zero &&
    input_val <= one failed; all elements of input should be between 0 and 1; nll loss negative

    Wrong::

        examine(logits, classes, loss="cross_entropy", predictions="probabilities")

    Right::

        examine(softmax(logits), classes, loss="cross_entropy", predictions="probabilities")
    """
    need(
        case.reads in ("simplex", "probability", "log simplex", "log probability"),
        "a loss that reads probabilities or log-probabilities",
    )
    summary = case.prediction_summary
    name = case.known.name
    logits_line = case.line(
        f'Loss("{name}", predictions="logits")',
        torch="loss = nn.CrossEntropyLoss()  # on raw logits; nn.BCEWithLogitsLoss() for binary",
        keras=f"keras.losses.{name}(from_logits=True)",
    )
    if str(case.reads).startswith("log "):
        return _not_log_probabilities(case, logits_line)
    slack = case.unit_tolerance * 1e-2
    outside = 0
    if summary.outside_unit:
        for _, (block,) in blocks(case.predicted):
            outside += int(((block < -slack) | (block > 1 + slack)).sum())
    if outside:
        return Finding(
            f"{outside:,} of {summary.size:,} 'probabilities' are outside [0, 1] (from "
            f"{summary.low:.4g} "
            f"to {summary.high:.4g}): these look like logits.",
            "The loss clips or takes logarithms of them: the value is meaningless and clipped "
            "entries get no gradient.",
            logits_line,
        )
    if case.reads == "simplex" and not summary.nan and case.classes > 1:
        tolerance = max(0.02, case.unit_tolerance)
        deviation = row_deviation(
            case.predicted, case.class_axis, exponential=False, tolerance=tolerance
        )
        if deviation > tolerance:
            return Finding(
                f"Rows of probabilities do not sum to 1 (off by {deviation:.3g}).",
                "Without normalisation the network can raise every class at once; the loss then "
                "measures nothing.",
                case.line(
                    "prediction = softmax(scores)  # one sigmoid per class is for multi-label "
                    "losses",
                    torch="prediction = torch.softmax(scores, dim=1)",
                    keras='keras.layers.Dense(classes, activation="softmax")',
                ),
                severity="warning",
            )
    return None


def _not_log_probabilities(case: Case, fix: str) -> Finding | None:
    summary = case.prediction_summary
    if summary.high <= case.unit_tolerance:
        if case.reads == "log probability" or case.rows_sum_to_one(exponential=True):
            return None
        kind = "negative numbers whose exponentials do not sum to 1"
    elif summary.low >= 0 and summary.high <= 1 + case.unit_tolerance:
        kind = "probabilities"
    else:
        kind = "logits"
    return Finding(
        f"The loss reads log-probabilities, which are at most 0; these run from {summary.low:.4g} "
        "to "
        f"{summary.high:.4g} and look like {kind}.",
        "Without log_softmax the loss is unbounded below or loses its slope: it falls while "
        "nothing is learnt.",
        case.line(
            fix,
            torch="prediction = torch.log_softmax(logits, dim=1)  # or nn.CrossEntropyLoss on "
            "logits",
        ),
    )


@check("log-probabilities-as-logits", severity="note")
def log_probabilities_as_logits(case: Case) -> Finding | None:
    """Log-probabilities reach a loss that applies log_softmax: harmless.

    Symptom: none; a reviewer wonders about log_softmax before cross-entropy.
    Cause: log_softmax of log-probabilities gives the same log-probabilities back.
    Fix: nothing; negative log-likelihood on log-probabilities saves one pass.
    People type: log_softmax before CrossEntropyLoss; log softmax twice; is log_softmax idempotent

    Wrong::

        examine(log_softmax(logits), classes, loss="cross_entropy")

    Right::

        examine(logits, classes, loss="cross_entropy")
    """
    need(case.reads == "class logits", "a loss that reads class logits")
    need(case.classes > 1, "two or more classes")
    if not case.rows_sum_to_one(exponential=True):
        return None
    return Finding(
        "These are log-probabilities (exponentials of each row sum to 1); softmax cross-entropy "
        "gives the same result.",
        "Harmless: log_softmax applied twice is log_softmax. Nothing to fix.",
        case.line(
            f'Loss("{case.known.name}", predictions="log_probabilities")  # saves a pass; optional',
            torch="loss = nn.NLLLoss()  # saves a pass; optional",
        ),
    )


@check("one-channel-softmax", severity="error")
def one_channel_softmax(case: Case) -> Finding | None:
    """Softmax over an axis of length one: always 1, whatever the network says.

    Symptom: the loss is exactly 0 (or constant) from the first step; one term of a combined loss is
    dead.
    Cause: one output channel with a softmax-type loss.
    Fix: one channel and a sigmoid-type loss, or two channels.
    People type: cross entropy loss always 0; diceceloss ce term zero; softmax one output unit; loss
    is constant 0

    Wrong::

        examine(logits[:, :1], binary, loss="cross_entropy")

    Right::

        examine(logits[:, :2], binary, loss="cross_entropy")
    """
    if not case.class_scores:
        raise NotApplicable("a loss over classes")
    if case.classes != 1:
        return None
    at = f" (it is {case.attempt[0]:.4g})" if case.attempt[0] is not None else ""
    return Finding(
        f"The class axis {case.class_axis} of predictions {case.predicted.shape} has length 1; "
        "softmax over "
        f"one channel is always 1, so this loss is constant 0{at}.",
        "No gradient flows from it: the network learns nothing from this term.",
        case.line(
            'Loss("binary_cross_entropy")  # on the one channel, with targets 0 and 1',
            torch="loss = nn.BCEWithLogitsLoss()  # on the one channel, with float targets",
            keras="keras.losses.BinaryCrossentropy(from_logits=True)",
        ),
    )
