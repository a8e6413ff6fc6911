"""Shapes, axes and labels: do prediction and target describe the same things?"""

from __future__ import annotations

import numpy as np

from lossary.doctor.case import Case
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding


@check("label-range", severity="error")
def label_range(case: Case) -> Finding | None:
    """Labels below 0 or not below the number of classes.

    Symptom: "Target 10 is out of bounds", "device-side assert triggered", or garbage on a GPU.
    Cause: labels count from 1; 255, -1 or -100 marks "ignore"; the network has too few outputs.
    Fix: shift the labels, name the ignored label, or widen the output layer.
    People type: target out of bounds; device-side assert triggered; indexerror target 10 is out of
    bounds; assertion t >= 0 && t < n_classes failed; received a label value which is outside the
    valid range; labels start at 1 instead of 0; labels 1 to 10 instead of 0 to 9; segmentation
    label 255 to ignore

    Wrong::

        examine(logits, classes + 1, loss="cross_entropy")

    Right::

        examine(logits, classes, loss="cross_entropy")
    """
    count = case.classes
    need(case.index_target, "class numbers as targets")
    need(count > 1, "two or more classes")
    summary = case.target_summary
    need(summary.finite, "targets that count")
    if not summary.integral:
        return Finding(
            f"Class numbers must be whole; these run from {summary.low:.4g} to {summary.high:.4g} "
            "with fractions.",
            "A fraction names no class.",
            case.line("target = target.astype(int)", torch="target = target.long()"),
        )
    if summary.low >= 0 and summary.high < count:
        return None
    truth, keep = case.truth, case.counted
    wrong = (truth < 0) | (truth >= count)
    if keep is not None:
        wrong &= keep.reshape(keep.shape + (1,) * (wrong.ndim - keep.ndim))
    values, times = np.unique(truth[wrong], return_counts=True)
    most = np.argsort(-times)[:5]
    listed = ", ".join(f"{values[i]:.0f} ({times[i]:,} times)" for i in most)
    seen = f"{int(wrong.sum()):,} of {truth.size:,} labels are outside 0..{count - 1}: {listed}."
    why = (
        "A label without a class is an error on the CPU, and an abort or silently wrong numbers "
        "on a GPU."
    )
    if summary.low == 1 and summary.high == count:
        return Finding(
            f"Labels run 1..{count}, but {count} classes mean 0..{count - 1}. " + seen,
            why,
            "target = target - 1",
        )
    if len(values) == 1 and values[0] in (-100, -1, 255, 254):
        mark = int(values[0])
        return Finding(
            seen + f" Is {mark} 'ignore'?",
            why,
            case.line(
                f'Loss("{case.known.name}", ignore={mark})',
                torch=f"nn.CrossEntropyLoss(ignore_index={mark})",
                keras=f"keras.losses.SparseCategoricalCrossentropy(ignore_class={mark})",
            ),
        )
    if summary.low < 0:
        return Finding(
            seen,
            why,
            case.line(
                "names, target = np.unique(target, return_inverse=True)  # number them from 0",
                torch="names, target = target.unique(return_inverse=True)  # number them from 0",
                jax="names, target = jnp.unique(target, return_inverse=True)  # number them from 0",
            ),
        )
    units = int(summary.high) + 1
    return Finding(
        seen,
        why,
        case.line(
            f"classes = {units}  # units of the output layer, now {count}",
            torch=f"head = nn.Linear(head.in_features, {units})  # not {count}",
            keras=f"keras.layers.Dense({units})  # not {count}",
            jax=f"nn.Dense({units})  # not {count}",
        ),
    )


def _rows_of_ones(truth: np.ndarray, axis: int) -> np.ndarray:
    """How many ones each row holds, on at most some 100,000 rows."""
    step = max(1, len(truth) // 100_000)
    return np.asarray(truth[::step].sum(axis=axis))


@check("encoding", severity="error")
def encoding(case: Case) -> Finding | None:
    """Class numbers, one-hot rows and multi-hot rows are mixed up.

    Symptom: an error about shapes or dtypes, or a loss that trains the wrong task.
    Cause: a multi-label target in a softmax loss; class numbers in a sigmoid loss; one-hot rows in
    a loss that wants class numbers.
    Fix: the loss that reads this encoding, or the encoding that the loss reads.
    People type: expected floating point type for target with class probabilities, got long; sparse
    categorical or categorical crossentropy; multi-target not supported; multi label cross entropy;
    0d or 1d target tensor expected; integer labels or one hot; multilabel cross entropy; one-hot
    target with CrossEntropyLoss

    Wrong::

        examine(logits, multi_hot, loss="cross_entropy")

    Right::

        examine(logits, multi_hot, loss="binary_cross_entropy")
    """
    need(case.class_scores or case.binary_scores, "a loss over classes or labels")
    truth, summary = case.truth, case.target_summary
    need(summary.finite, "targets that count")
    if case.binary_scores:
        return _labels_for_binary(case)
    need(truth.shape == case.predicted.shape and case.classes > 1, "one target per class score")
    contract = case.known.contract
    space = contract.target if contract else None
    need(space is None or space.name != "multi-hot", "a loss of one class per row")
    need(not case.known.target_in_logs, "targets that are no logarithms")
    if summary.integral and summary.low >= 0 and summary.high <= 1:
        ones = _rows_of_ones(truth, case.class_axis)
        if ones.max() > 1:
            return Finding(
                f"Rows of the target have up to {int(ones.max())} ones "
                f"({float((ones != 1).mean()):.0%} of rows "
                "have not exactly one): this is multi-label.",
                "Softmax lets one class win; labels that hold together can never all be right.",
                case.line(
                    'Loss("binary_cross_entropy")',
                    torch="loss = nn.BCEWithLogitsLoss()",
                    keras="keras.losses.BinaryCrossentropy(from_logits=True)",
                ),
            )
        wants_numbers = "sparse" in case.known.name.lower() or "integer" in case.known.name.lower()
        by_dtype = (
            case.known.library == "torch" and not case.known.own and truth.dtype.kind in "iub"
        )
        if wants_numbers or by_dtype:
            return Finding(
                f"Targets are one-hot {truth.shape}, and {case.known.name} wants class numbers "
                "here.",
                'PyTorch answers "Expected floating point type for target with class '
                'probabilities"; others misread it.',
                case.line(
                    "target = target.argmax(axis=-1)",
                    torch="target = target.argmax(dim=1)",
                    keras="keras.losses.CategoricalCrossentropy(from_logits=True)",
                ),
            )
        return None
    if summary.low < 0 or summary.high > 1:
        return Finding(
            f"Targets have the predictions' shape {truth.shape} but run from {summary.low:.4g} to "
            f"{summary.high:.4g}: "
            "neither class numbers nor probabilities.",
            "Rows of a soft target are weights of classes; they lie in [0, 1] and sum to 1.",
            case.line(
                "target = softmax(teacher_scores)  # or a regression loss",
                torch="target = torch.softmax(teacher_scores, dim=1)  # or a regression loss",
                jax="target = jax.nn.softmax(teacher_scores)  # or a regression loss",
            ),
        )
    return None if "kl" in case.known.name.lower() else _weights_of_classes(case, truth)


def _weights_of_classes(case: Case, truth: np.ndarray) -> Finding | None:
    """Rows of soft labels sum to 1; a row of zeros is a row that does not count."""
    sums = _rows_of_ones(truth, case.class_axis)
    off = (np.abs(sums - 1) > max(0.02, case.unit_tolerance)) & (sums != 0)
    if not off.any():
        return None
    return Finding(
        f"Soft targets sum to {sums[off].min():.4g} .. {sums[off].max():.4g} in "
        f"{float(off.mean()):.0%} of the rows, not to 1.",
        "The sum multiplies the row's loss and its floor: smoothing that adds to every class, or a "
        "mixture whose parts do not add up, weighs rows by accident.",
        case.line(
            "target = target / target.sum(axis=-1, keepdims=True)",
            torch="target = target / target.sum(dim=1, keepdim=True)",
        ),
        severity="warning",
    )


def _labels_for_binary(case: Case) -> Finding | None:
    truth, shape, summary = case.truth, case.predicted.shape, case.target_summary
    whole = summary.integral and summary.low >= 0
    if len(shape) > 1 and truth.shape == shape[:-1] and shape[-1] > 1 and whole:
        return Finding(
            f"Targets are class numbers {truth.shape} and predictions have {shape[-1]} columns; a "
            "sigmoid loss wants "
            "one 0 or 1 per column.",
            "With one right class per row, a softmax loss is meant.",
            case.line(
                'Loss("cross_entropy")',
                torch="loss = nn.CrossEntropyLoss()",
                keras="keras.losses.SparseCategoricalCrossentropy(from_logits=True)",
            ),
        )
    labels = summary.labels
    few = labels is not None and 3 <= len(labels) <= 100
    if truth.shape == shape and whole and few and summary.high == len(labels) - 1:
        return Finding(
            f"Targets are class numbers 0..{summary.high:.0f}, and the loss is binary.",
            "A binary loss treats label 2 as twice yes: its value falls without bound.",
            case.line(
                'Loss("cross_entropy")  # on one score per class',
                torch="loss = nn.CrossEntropyLoss()  # on one logit per class",
                keras="keras.losses.SparseCategoricalCrossentropy(from_logits=True)",
            ),
        )
    return None


@check("label-dtype", severity="error")
def label_dtype(case: Case) -> Finding | None:
    """Labels travel in a type that cannot hold them exactly.

    Symptom: "expected scalar type Long but found Float" and its like; or, without any message,
    classes above 2048 (float16), 256 (bfloat16), 127 (int8) are confused or negative.
    Cause: labels were cast along with the inputs to half precision or to a small integer.
    Fix: keep class numbers in a wide integer type; targets of a binary or a regression loss are
    floating.
    People type: mixed precision labels wrong; float16 labels; 2049 becomes 2048; labels wrong with
    bfloat16; expected scalar type Long but found Int; nll_loss not implemented for Float; not
    implemented for Int; result type Float can't be cast to the desired output type Long; found
    dtype Long but expected Float; target should be a long tensor

    Wrong::

        examine(wide_logits, wide_classes.astype("float16"), loss="cross_entropy")

    Right::

        examine(wide_logits, wide_classes.astype("int32"), loss="cross_entropy")
    """
    count = case.classes
    need(case.index_target, "class numbers as targets")
    kind = _kind_of(case.target)
    exact = {
        "float16": 2048,
        "bfloat16": 256,
        "float32": 2**24,
        "int8": 127,
        "uint8": 255,
        "int16": 32767,
        "bool": 1,
    }.get(kind)
    if exact is None or count - 1 <= exact:
        return None
    becomes = {
        "float16": f"{exact + 1} becomes {exact}",
        "bfloat16": f"{exact + 1} becomes {exact}",
        "float32": f"{exact + 1} becomes {exact}",
    }.get(kind, f"{exact + 1} does not fit")
    return Finding(
        f"{kind} cannot hold every label of {count:,} classes: {becomes}.",
        "Rows are then trained towards a neighbouring class, without any message.",
        case.line(
            'target = target.astype("int32")',
            torch="target = target.long()  # before any .half()",
            keras='target = keras.ops.cast(target, "int32")',
        ),
    )


def _kind_of(array: object) -> str:
    from lossary.doctor.arrays import dtype_name

    return dtype_name(array)


@check("arguments-swapped", severity="warning")
def arguments_swapped(case: Case) -> Finding | None:
    """The target was passed as the prediction.

    Symptom: no gradient, a strange value, or NaN; the loss does not change with the model.
    Cause: Keras orders (y_true, y_pred), PyTorch (input, target).
    Fix: exchange the two.
    People type: y_true y_pred order; argument order loss; loss(target, output) pytorch; does not
    require grad

    Wrong::

        examine(binary, sigmoid(binary_logits), loss="binary_cross_entropy",
                predictions="probabilities")

    Right::

        examine(sigmoid(binary_logits), binary, loss="binary_cross_entropy",
                predictions="probabilities")
    """
    predicted, truth = case.predicted, case.truth
    need(predicted.size >= 8 and truth.size >= 8, "eight or more values")
    labels, scores = case.prediction_summary, case.target_summary
    hinge = (
        case.subject
        and case.subject.contract
        and case.contract.target is not None
        and case.contract.target.name == "count"
    )
    first_is_labels = (
        labels.integral
        and labels.labels is not None
        and len(labels.labels) <= max(2, labels.size // 4)
    )
    second_is_scores = not scores.integral and np.unique(truth.flat[:4096]).size > 8
    if not (first_is_labels and second_is_scores) or hinge:
        return None
    if len(labels.labels) == 1:
        return None  # a constant prediction, not labels
    return Finding(
        f"The first argument holds {len(labels.labels)} whole values from {labels.low:.0f} to "
        f"{labels.high:.0f} and "
        "looks like labels; the second is continuous.",
        "Most losses are not symmetric: the value and its slope belong to another problem.",
        case.line(
            "loss(prediction, target)  # prediction first",
            torch="loss(prediction, target)",
            keras="loss(y_true, y_pred)",
        ),
    )
