"""The change that a finding proposes runs, and the finding is gone."""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lossary import Loss
from lossary.doctor import diagnose
from lossary.doctor.case import Case
from lossary.doctor.cases import data as d
from lossary.doctor.cases import examples_of
from lossary.doctor.terms import Term

Given = dict[str, Any]
TOOLS: Given = {
    "np": np, "torch": torch, "nn": nn, "Loss": Loss, "math": math, "softmax": d.softmax,
    "sqrt": torch.sqrt,
}  # fmt: skip


def run(fix: str, **names: Any) -> Given:
    """What the line leaves behind; an expression's value is ``it``."""
    code = fix.partition("  #")[0].replace("return ", "value = ")
    space = TOOLS | names
    try:
        space["it"] = eval(code, space)
    except SyntaxError:
        exec(code, space)
    return space


def finding(check: str, given: Given) -> Any:
    return diagnose(Case.of(**given), only=[check]).named(check)


def cured(check: str, given: Given) -> bool:
    """Whether the check looks at the case and finds it well."""
    report = diagnose(Case.of(**given), only=[check])
    assert not report.findings, report
    # Where the change removes what the check looks for, there is nothing left to look at.
    return check in report.fine or all(
        "needs a loss that takes" not in reason and "runs on" not in reason
        for reason in report.not_applicable.values()
    )


def example(check: str, label: str) -> Given:
    return dict(next(item.given for item in examples_of(check) if item.label == label))


_FIELDS = {item.name for item in fields(Case)}

# Lines that change one of the arguments, as they stand.
PLAIN = {
    "broadcast": ["(64, 1) against (64,)", "targets are the column", "weights as a column"],
    "class-axis": ["channels first, axis -1 is read", "channels last, axis 1 is read"],
    "dead-gradient": ["clamped before the logarithm", "a gradient given"],
    "domain": ["hinge on 0 and 1", "percentage error of zeros"],
    "domination": ["two rows off by a thousand"],
    "double-sigmoid": ["a sigmoid at the end"],
    "double-softmax": ["a softmax layer at the end"],
    "encoding": ["class numbers in a sigmoid loss", "multi-hot in a softmax loss"],
    "gradient-check": ["a Hessian below 0", "a factor of 2 is missing", "the wrong sign"],
    "label-dtype": ["float16, 4000 classes"],
    "label-range": ["-1 in PyTorch", "255 means ignore", "counted from 1"],
    "log-probabilities-as-logits": ["log_softmax at the end"],
    "logits-as-probabilities": ["Dice on logits", "binary logits"],
    "memory-forecast": ["a small device"],
    "negative-value": ["binary targets of 255"],
    "one-channel-softmax": ["one output unit"],
    "oracle-parity": ["half the squared error", "smooth L1 called Huber"],
    "reduction-mismatch": ["KLDivLoss over all entries"],
    "target-range": ["a mask of 0 and 255", "labels -1 and 1", "real targets"],
    "target-suggests": ["counts", "half of it zeros", "shares"],
    "variance-shape": ["one per row, square table"],
    "weight-cancels": ["batch size 1"],
    "weights-suspicious": ["a factor of 5000", "negative sample weights"],
}


@pytest.mark.parametrize(
    ("check", "label"), [(check, label) for check, labels in PLAIN.items() for label in labels]
)
def test_the_line_cures(check: str, label: str) -> None:
    given = example(check, label)
    found = finding(check, given)
    after = run(found.fix, **given)
    changed = {name: after[name] for name in given if after[name] is not given[name]}
    if callable(after.get("it")):
        changed["loss"] = after["it"]
    if "loss" in changed:
        given.pop("predictions", None)  # it says by itself what it reads
    assert changed, f"{found.fix} changes nothing"
    assert cured(check, given | changed)


def inside(fix: str, loss: Any = None, **names: Any) -> Callable[..., Any]:
    """A squared error with the line in it."""

    def own(prediction: Any, target: Any, mask: Any = None, delta: float = 2.0) -> Any:
        values = (prediction - target) ** 2
        if mask is None:
            mask = values == values
        mask = mask.bool() if hasattr(mask, "bool") else mask.astype(bool)
        known = {"prediction": prediction, "target": target, "mask": mask, "delta": delta}
        known |= {"values": values, "value": values.mean(), "loss": loss, "x": values.mean()}
        after = run(fix, **known, **names)
        return after["value"].mean()

    def per_sample(prediction: Any, target: Any) -> Any:
        return np.mean(run(fix, prediction=prediction, target=target, loss=loss)["values"])

    return per_sample if fix.startswith("values") else own


def on_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    def own(prediction: Any, target: Any) -> Any:
        return function(prediction, target)

    own.__lossary_library__ = "torch"  # type: ignore[attr-defined]
    return own


def squares(prediction: Any, target: Any) -> Any:
    return (prediction - target) ** 2


def root(fix: str) -> Callable[..., Any]:
    """A distance with the line in place of its root."""
    return on_torch(lambda p, t: run(fix, x=squares(p, t).sum(-1))["it"].mean())


def mended_call(fix: str, given: Given, **names: Any) -> Given:
    """The arguments of the call that the line makes."""
    calls: list[Given] = []

    def record(prediction: Any, target: Any, **more: Any) -> None:
        calls.append({"prediction": prediction, "target": target, **more})

    run(fix, **(given | {"loss": record} | names))
    return calls[0]


def ctc(fix: str, given: Given) -> Given:
    target, letters = given["target"], given["target_lengths"]
    repeats = (target[:, 1:] == target[:, :-1]).sum(1)
    keep = run(fix, input_lengths=given["lengths"], target_lengths=letters, repeats=repeats)["keep"]
    return {name: given[name][keep] for name in ("target", "lengths", "target_lengths")}


def counted(fix: str, given: Given) -> Given:
    parts = [d.truth[: count % 97 + 1] for count in given["counts"]]
    value = run(fix, sums=[part.sum() for part in parts], counts=[len(p) for p in parts])["value"]
    assert value == pytest.approx(np.concatenate(parts).mean())
    return {"combine": "count"}


def scaled(fix: str, given: Given) -> Given:
    assert run(fix, loss=1.0)["loss"] == given["ranks"]
    return {"gather": "scaled"}


def reweighted(fix: str, given: Given) -> Given:
    factor = run(fix, total=0.0, kl=1.0)["total"]
    terms = dict(given["terms"])
    terms["kl"] = Term(factor * terms["kl"].value, gradient=factor * terms["kl"].gradient)
    return {"terms": terms}


def stopped(fix: str, given: Given) -> Given:
    seen: list[float] = []
    try:
        for value in given["history"]:
            run(fix, loss=value)
            seen.append(value)
    except AssertionError:
        return {"history": [*seen, seen[-1] - 0.1]}
    return {}


def without_penalty(fix: str, given: Given) -> Given:
    losses: list[float] = []
    for value in given["history"]:
        run(fix, losses=losses, loss=value, penalty=given["regularization"])
    return {"history": losses, "regularization": None}


def from_the_start(fix: str, given: Given) -> Given:
    loss = run(fix)["it"]
    return {"loss": loss, "history": [float(loss(0 * given["prediction"], given["target"]))]}


def with_epsilon(fix: str, given: Given) -> Given:
    epsilon = run(fix)["epsilon"]

    def named(prediction: Any, target: Any, eps: float = epsilon) -> Any:
        return -(target * np.log(prediction + np.asarray(eps, prediction.dtype))).mean()

    return {"loss": named}


def copied(fix: str, given: Given) -> Given:
    def own(prediction: Any, target: Any) -> Any:
        return given["loss"](run(fix, prediction=prediction)["prediction"], target)

    return {"loss": own}


# Lines that belong inside a loss, into a loop or before the call: put there, then asked again.
WIRED: dict[str, tuple[str, Callable[[str, Given], Given]]] = {
    "mask-leak": ("the mask is not used", lambda fix, _: {"loss": inside(fix, squares)}),
    "padding-invariance": ("divided by all", lambda fix, _: {"loss": inside(fix)}),
    "split-invariance": ("a count one too large", lambda fix, _: {"loss": inside(fix)}),
    "batch-dependence": (
        "Dice over the batch",
        lambda fix, given: {"loss": inside(fix, given["loss"])},
    ),
    "dead-flag": ("delta is never used", lambda fix, _: {"loss": inside(fix)}),
    "direction": (
        "a minus too many",
        lambda fix, given: {"loss": lambda p, t: run(fix, value=given["loss"](p, t))["value"]},
    ),
    "edge-gradients": ("norm of the error", lambda fix, _: {"loss": root(fix)}),
    "nan-post-mortem": ("a root at a perfect row", lambda fix, _: {"loss": root(fix)}),
    "precision-gap": (
        "a sum of squares in float16",
        lambda fix, given: {"loss": on_torch(inside(fix, given["loss"]))},
    ),
    "epsilon-underflow": ("eps=1e-8 in float16", with_epsilon),
    "callable": ("changes its prediction", copied),
    "arguments-swapped": (
        "labels first",
        lambda fix, given: mended_call(
            fix, given, prediction=given["target"], target=given["prediction"]
        ),
    ),
    "nan-target": ("missing values", mended_call),
    "kl-inputs": (
        "probabilities for log-probabilities",
        lambda fix, given: mended_call(
            fix, given, student=torch.tensor(d.logits), teacher=torch.tensor(d.teacher)
        ),
    ),
    "double-sigmoid": (
        "PyTorch's BCEWithLogitsLoss",
        lambda fix, given: run(fix, x=given["prediction"], model=lambda p: np.log(p / (1 - p))),
    ),
    "double-softmax": (
        "PyTorch's CrossEntropyLoss",
        lambda fix, given: run(fix, x=given["prediction"], model=np.log),
    ),
    "initial-loss": ("a sum over the batch", from_the_start),
    "dead-term": ("a weight far too small", reweighted),
    "accumulation-plan": ("counts that differ 22-fold", counted),
    "contrastive-scale": ("other ranks detached", scaled),
    "ctc-feasibility": ("too few frames", ctc),
    "label-shift": (
        "shifted twice",
        lambda fix, _: {"target": run(fix, tokens=d.next_tokens)["labels"]},
    ),
    "hidden-nan": ("NaN", stopped),
    "train-validation-gap": ("a penalty in one number", without_penalty),
}


@pytest.mark.parametrize("check", WIRED)
def test_the_line_in_its_place_cures(check: str) -> None:
    label, wire = WIRED[check]
    given = example(check, label)
    found = finding(check, given)
    changed = {name: value for name, value in wire(found.fix, given).items() if name in _FIELDS}
    assert cured(check, given | changed)
