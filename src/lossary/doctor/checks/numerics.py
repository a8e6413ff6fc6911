"""Number formats and memory."""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from typing import Any

import numpy as np

from lossary.doctor.case import Case
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding
from lossary.evaluate import Loss

HALF = ("float16", "bfloat16")
COPIES = 3  # logits, their softmax, their gradient
DEFAULT_MEMORY = 16 * 2**30


@check("precision-gap", severity="warning")
def precision_gap(case: Case) -> Finding | None:
    """Half precision changes the loss or its gradient.

    Symptom: training in float16 or bfloat16 stalls or diverges where float32 works.
    Cause: long sums accumulated in half precision; exp and log of half-precision numbers.
    Fix: compute the loss in float32.
    People type: bfloat16 loss; fp16 loss nan; autocast cross entropy; mixed precision loss
    different; bf16 training collapsed

    Wrong::

        examine(half_estimate, half_truth, loss=torch_half_sum)

    Right::

        examine(half_estimate, half_truth, loss=torch_float_sum)
    """
    need(case.prediction_dtype in HALF, "predictions in half precision")
    subject, batch = case.known, case.batch
    need(isinstance(batch["prediction"], np.ndarray), "one prediction")
    options = case.options
    wide = batch["prediction"].astype(np.float64)
    need(np.isfinite(wide).all(), "finite predictions")
    kind = case.prediction_dtype
    if subject.own:
        half = subject(batch["prediction"], batch["target"], **options)
    else:
        half = subject(batch["prediction"], batch["target"], dtype=kind, **options)
    full = subject(wide, batch["target"], dtype="float64", **options)
    need(math.isfinite(full) and full != 0, "a finite loss in float64")
    gap = abs(half - full) / max(abs(full), 1e-6) if math.isfinite(half) else math.inf
    step = 4e-3 if kind == "float16" else 3e-2
    if gap > step:
        told = f"{gap:.1%} off" if math.isfinite(gap) else f"{half}"
        return Finding(
            f"In {kind} the loss is {told} ({half:.6g}, in float64 {full:.6g}).",
            "Long sums and exponentials lose most of their digits in half precision.",
            case.line(
                "value = loss(prediction.astype('float32'), target)",
                torch="value = loss(prediction.float(), target)",
                jax="value = loss(prediction.astype(jnp.float32), target)",
            ),
        )
    return _gradient_gap(case, options, wide, kind, step)


def _gradient_gap(
    case: Case, options: dict[str, Any], wide: np.ndarray, kind: str, step: float
) -> Finding | None:
    subject, batch = case.known, case.batch
    if subject.own or subject.library == "numpy":
        return None
    half = subject.gradient(batch["prediction"], batch["target"], dtype=kind, **options)
    full = subject.gradient(wide, batch["target"], dtype="float64", **options)
    if half is None or full is None or not np.isfinite(full).all() or not np.linalg.norm(full):
        return None
    gap = float(np.linalg.norm(half - full) / np.linalg.norm(full))
    if gap <= 4 * step:
        return None
    return Finding(
        f"In {kind} the gradient is {gap:.1%} off the one in float64 "
        f"({float((half == 0).mean() - (full == 0).mean()):.0%} of it "
        "underflows to 0).",
        "Small slopes vanish in half precision; the optimiser follows what is left.",
        case.line(
            "value = loss(prediction.astype('float32'), target)",
            torch="value = loss(prediction.float(), target)",
        ),
    )


def _literals(callable_: Any) -> list[tuple[float, str]]:
    """Small constants in a callable's source: (number, 'plain' or 'one minus')."""
    function = getattr(callable_, "forward", None) or getattr(callable_, "call", None) or callable_
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return []
    subtracted = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
            left, right = node.left, node.right
            if (
                isinstance(left, ast.Constant)
                and left.value in (1, 1.0)
                and isinstance(right, ast.Constant)
            ):
                subtracted.add(id(right))
    return [
        (abs(node.value), "one minus" if id(node) in subtracted else "plain")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, float)
        and 0 < abs(node.value) < 1e-3
    ]


@check("epsilon-underflow", severity="warning")
def epsilon_underflow(case: Case) -> Finding | None:
    """An epsilon that is 0 in the format used: 1e-8 in float16, 1 - 1e-7 in half precision.

    Symptom: NaN or infinity in mixed precision although "there is an epsilon".
    Cause: float16 holds nothing below 6e-8, and between 1 and the number below it are 5e-4.
    Fix: an epsilon of the format, or a formula that needs none.
    People type: epsilon 1e-8 float16; eps underflow half precision; log(x + 1e-8) nan fp16; 1 -
    1e-7 equals 1 float16

    Wrong::

        examine(half_probability, half_binary, loss=log_with_tiny_epsilon)

    Right::

        examine(half_probability, half_binary, loss=log_with_half_epsilon)
    """
    kind = case.prediction_dtype
    need(kind in ("float16", "bfloat16", "float32"), "a floating type")
    named: list[tuple[str, float, str]] = []
    if case.epsilon is not None:
        named.append(("epsilon", case.epsilon, "plain"))
    if case.subject is not None and not case.known.own:
        for name, value in case.known.parameters.items():
            if (
                any(word in name.lower() for word in ("eps", "tiny"))
                and isinstance(value, float)
                and value > 0
                and case.known.framework is None
            ):
                named.append((name, value, "plain"))
        named += [("a constant", value, how) for value, how in _literals(case.known.callable)]
    need(named, "an epsilon")
    smallest, step = {
        "float16": (6e-8, 2.0**-11),
        "bfloat16": (1e-40, 2.0**-8),
        "float32": (1.4e-45, 2.0**-24),
    }[kind]
    for name, value, how in named:
        if how == "one minus" and value < step / 2:
            return Finding(
                f"1 - {value:g} is exactly 1 in {kind} ({name} of the loss).",
                "Clipping at it leaves 1 in place, and log(1 - 1) is infinite.",
                f"epsilon = {2 * step:.0e}  # the first number below 1 in {kind}; better: a loss "
                "on logits",
            )
        if how == "plain" and value < smallest / 2:
            return Finding(
                f"{name} = {value:g} is 0 in {kind}.",
                "It protects from nothing: log(0) and x/0 come through.",
                f"epsilon = {max(smallest, 1e-7) * 2:.0e}  # or compute the loss in float32",
            )
    return None


@check("memory-forecast", severity="warning")
def memory_forecast(case: Case) -> Finding | None:
    """The class scores and their copies will not fit, or take most of the memory.

    Symptom: out of memory in the loss, with a large vocabulary or a large image.
    Cause: cross-entropy keeps the scores, their softmax and their gradient in float32.
    Fix: a chunked loss.
    People type: cuda out of memory cross entropy; large vocabulary loss memory; logits memory; oom
    in loss

    Wrong::

        examine(shape=(8, 4096, 128_000), loss="cross_entropy", dtype="float32")

    Right::

        examine(shape=(8, 512, 32_000), loss="cross_entropy", dtype="float32")
    """
    shape = tuple(case.shape) if case.shape is not None else None
    if shape is None:
        need(case.arrays and case.class_scores, "shape=, or class scores")
        shape = case.predicted.shape
    kind = case.dtype or (case.prediction_dtype if case.arrays else "float32")
    width = {"float16": 2, "bfloat16": 2, "float64": 8}.get(kind, 4)
    copy_bytes = math.prod(shape) * 4
    needed = math.prod(shape) * width + COPIES * copy_bytes
    memory = case.memory or DEFAULT_MEMORY
    rows = math.prod(shape[:-1])
    chunk = min(rows, 1024) * shape[-1] * 4 * COPIES + math.prod(shape) * width
    if isinstance(case.loss, Loss) and case.loss.implementation == "chunked":
        needed = chunk
    if needed < 0.6 * memory:
        return None
    return Finding(
        f"Scores of shape {shape} take {copy_bytes / 1e9:.3g} GB per float32 copy, "
        f"{needed / 1e9:.3g} GB with about {COPIES} copies; "
        f"the device has {memory / 1e9:.3g} GB.",
        "The loss, not the network, sets the largest batch that fits.",
        f'Loss("cross_entropy", implementation="chunked")  # about {chunk / 1e9:.2g} GB; less when '
        "fused with the last layer",
    )
