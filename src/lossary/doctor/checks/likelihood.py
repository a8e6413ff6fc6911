"""Divergences, alignments and densities: are their inputs what they are defined on?"""

from __future__ import annotations

import numpy as np

from lossary.doctor.case import Case
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding


@check("kl-inputs", severity="error")
def kl_inputs(case: Case) -> Finding | None:
    """A Kullback-Leibler divergence of things that are not distributions.

    Symptom: a negative KL divergence.
    Cause: probabilities where log-probabilities are expected, or rows that do not sum to 1.
    Fix: log_softmax on the student, softmax on the teacher.
    People type: kl divergence negative; KLDivLoss returns negative value; kl_div input log
    probabilities; distillation loss negative

    Wrong::

        examine(softmax(logits), softmax(teacher), loss=torch_kl())

    Right::

        examine(log_softmax(logits), softmax(teacher), loss=torch_kl())
    """
    contract = case.known.contract
    need(
        contract is not None
        and ("kl" in contract.name.split("_") or "kullback" in contract.summary.lower())
        and case.class_scores
        and case.truth.shape == case.predicted.shape,
        "a Kullback-Leibler divergence of distributions",
    )
    axis, logs = case.class_axis, case.known.target_in_logs
    with np.errstate(over="ignore"):
        rows = case.truth[:10_000].astype(np.float64)
        sums = (np.exp(rows) if logs else rows).sum(axis=axis)
    summary = case.target_summary
    problems = []
    if logs and summary.high > case.unit_tolerance:
        problems.append(
            f"targets reach {summary.high:.4g}; log_target=True takes log-probabilities, at most 0"
        )
    elif summary.low < 0 and not logs:
        problems.append(
            f"targets go down to {summary.low:.4g}: they look like "
            f"{'log-probabilities' if summary.high <= 0 else 'logits'}"
        )
    elif float(np.abs(sums - 1).max()) > max(0.01, case.unit_tolerance):
        of = "exponentials of " if logs else ""
        problems.append(
            f"{of}rows of the target sum to {sums.min():.4g} .. {sums.max():.4g}, not 1"
        )
    scores = case.prediction_summary
    if case.reads == "log simplex" and scores.high > case.unit_tolerance:
        kind = (
            "probabilities"
            if scores.low >= 0 and scores.high <= 1 + case.unit_tolerance
            else "logits"
        )
        problems.append(
            f"predictions reach {scores.high:.4g}; log-probabilities are at most 0, these look "
            f"like {kind}"
        )
    if case.reads == "simplex" and not case.rows_sum_to_one():
        problems.append("rows of the prediction do not sum to 1")
    if not problems:
        return None
    value = case.attempt[0]
    now = (
        f" The value is {value:.4g}; KL cannot be negative."
        if value is not None and value < 0
        else ""
    )
    return Finding(
        "; ".join(problems) + "." + now,
        "Between other things than distributions the number is no divergence, and its minimum is "
        "elsewhere.",
        case.line(
            'Loss("kl_divergence")  # on logits, with softmax(teacher) as target',
            torch="loss(torch.log_softmax(student, dim=1), torch."
            f"{'log_softmax' if logs else 'softmax'}(teacher, dim=1))",
            keras="loss(keras.ops.softmax(teacher), keras.ops.softmax(student))",
        ),
    )


@check("ctc-feasibility", severity="error")
def ctc_feasibility(case: Case) -> Finding | None:
    """A transcript that cannot be aligned to its frames.

    Symptom: infinite CTC loss, or NaN gradients a little later; single utterances only.
    Cause: too few frames after downsampling (repeated labels need a blank between them), a blank
    inside the transcript, a length of 0 or beyond the array.
    Fix: drop or merge those rows, or downsample less.
    People type: ctc loss inf; CTCLoss nan; ctc loss infinite; target length longer than input
    length; zero_infinity; expected input_lengths to have value at most; not enough time for target
    transition sequence; ctc loss infinity

    Wrong::

        examine(target=transcripts, lengths=frames // 4, target_lengths=letters, blank=0)

    Right::

        examine(target=transcripts, lengths=frames, target_lengths=letters, blank=0)
    """
    need(
        case.lengths is not None and case.target_lengths is not None,
        "lengths= and target_lengths= (CTC)",
    )
    frames = np.asarray(case.lengths).reshape(-1)
    letters = np.asarray(case.target_lengths).reshape(-1)
    truth = case.truth
    need(
        truth.ndim == 2 and len(truth) == len(letters) == len(frames),
        "targets of shape (rows, longest)",
    )
    counts = np.arange(truth.shape[1])[None, :] < letters[:, None]
    repeats = ((truth[:, 1:] == truth[:, :-1]) & counts[:, 1:]).sum(axis=1)
    blank = ((truth == case.blank) & counts).any(axis=1)
    impossible = (
        (frames < letters + repeats)
        | (frames <= 0)
        | (letters < 0)
        | (letters > truth.shape[1])
        | blank
    )
    if not impossible.any():
        return None
    rows = np.flatnonzero(impossible)
    row = int(rows[0])
    example = (
        f"row {row} has the blank {case.blank} inside its transcript"
        if blank[row]
        else f"row {row}: {frames[row]} frames, {letters[row]} labels + {repeats[row]} repeats"
    )
    return Finding(
        f"{len(rows):,} of {len(truth):,} rows cannot be aligned ({example}).",
        "No alignment has probability above 0, so the loss is infinite and its gradient NaN.",
        "keep = input_lengths >= target_lengths + repeats  # drop these rows, or downsample less",
    )


@check("variance-shape", severity="warning")
def variance_shape(case: Case) -> Finding | None:
    """A variance is broadcast along the wrong axis.

    Symptom: a likelihood that trains, with uncertainties that mean nothing.
    Cause: variances of shape (N,) against means of shape (N, D): where N equals D it even runs.
    Fix: give the variance the shape of the mean, or a last axis of length 1.
    People type: GaussianNLLLoss var is of incorrect size; var shape gaussian nll; heteroscedastic
    variance shape

    Wrong::

        examine(square_means, square_means + 1, loss="mse", parameters={}, variance=np.ones(8))

    Right::

        examine(square_means, square_means + 1, loss="mse", parameters={}, variance=np.ones((8, 1)))
    """
    others = {
        name: array
        for name, array in case.inputs.items()
        if any(word in name for word in ("variance", "scale", "var", "precision", "concentration"))
    }
    if case.variance is not None:
        others["variance"] = np.asarray(case.variance)
    need(others, "a variance")
    shape = case.predicted.shape
    for name, array in others.items():
        if array.shape == shape or array.ndim == 0 or array.shape == (*shape[:-1], 1):
            continue
        wrong = array.shape == shape[:-1] or (
            array.ndim < len(shape) and array.shape[0] == shape[0]
        )
        runs = True
        try:
            np.broadcast_shapes(array.shape, shape)
        except ValueError:
            runs = False
        axis = len(shape) - array.ndim
        return Finding(
            f"{name} {array.shape} and mean {shape}: "
            + (f"broadcasting applies it along axis {axis}" if runs else "the two do not fit")
            + (", not one per row." if wrong else "."),
            "Each row is then judged by another row's uncertainty; the loss still falls.",
            f"{name} = {name}[:, None]" if wrong else f"{name} = {name}.reshape({shape})",
        )
    return None
