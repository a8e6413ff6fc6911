"""Try a loss callable on data of our own: the doctor's questions about code, not about data."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lossary.contract import Contract, LossError, Space, contract_of
from lossary.doctor import Report, diagnose
from lossary.doctor.arrays import like
from lossary.doctor.case import Case

CHECKS = (
    "callable", "dead-flag", "mask-leak", "padding-invariance", "split-invariance",
    "batch-dependence", "gradient-check", "edge-gradients", "direction", "dead-gradient",
    "compile-hazards",
)  # fmt: skip
ROWS, TIME, CLASSES = 48, 6, 5


def trial(function: Callable[..., Any]) -> Report:
    """Ask the function-level checks about ``function(prediction, target, ...)``.

    Data follow the annotations of a Lossary definition; for any other function the first kind of
    data that it takes is used: real targets, yes or no, classes. PyTorch differentiates where it
    is installed. LossError when the function takes none of them.
    """
    problems = []
    for given in _data(function):
        case = Case.of(loss=_plain(function), **given)
        number, problem = case.attempt
        if number is not None and np.isfinite(number):
            return diagnose(case, only=CHECKS)
        problems.append(problem or f"it returned {number}")
    raise LossError(f"{function.__name__}: runs on none of the doctor's data: {problems[0]}")


def has_data(function: Callable[..., Any]) -> bool:
    """Whether ``trial`` has data that the function takes."""
    try:
        return any(
            Case.of(loss=_plain(function), **given).attempt[0] is not None
            for given in _data(function)
        )
    except LossError:
        return False


def verdicts(function: Callable[..., Any]) -> Iterator[tuple[str, bool, str]]:
    """(check, passed, message) of each check asked. A warning passes and keeps its message, and so
    does a check that could not run: the fault is the doctor's.
    """
    report = trial(function)
    for finding in report.findings:
        told = "" if finding.severity == "note" else f"{finding.seen} {finding.why}"
        yield finding.check, finding.severity != "error", told
    yield from ((name, True, line) for name, line in report.faults.items())
    yield from ((name, True, "") for name in report.fine)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without its contract: asked as a stranger's code, not as Lossary's."""

    def plain(*arrays: Any, **options: Any) -> Any:
        return function(*arrays, **options)

    plain.__name__ = function.__name__
    plain.__wrapped__ = function  # type: ignore[attr-defined]  # its signature and source
    return plain


def _data(function: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    chance = np.random.default_rng(0)
    library = "torch" if importlib.util.find_spec("torch") else "numpy"
    takes_mask = "mask" in inspect.signature(function).parameters
    keep = chance.random((ROWS, TIME)) < 0.7
    for prediction, target in _pairs(function, chance):
        given = {"prediction": like(prediction, library), "target": like(target, library)}
        if takes_mask:
            mask = keep if target.ndim > 1 else keep[:, 0]
            given["mask"] = like(mask, library)
        yield given


def _pairs(
    function: Callable[..., Any], chance: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions of middling quality with their targets, by kind; the annotated kind first."""
    truth = chance.normal(size=(ROWS, TIME))
    answers = (chance.random((ROWS, TIME)) < 0.4).astype(float)
    classes = chance.integers(0, CLASSES, ROWS)
    noise = chance.normal(size=(ROWS, TIME))
    positive = np.exp(truth)
    kinds = {
        "real": (truth + 0.5 * noise, truth),
        "positive": (positive * np.exp(0.3 * noise), positive),
        "logit": (2 * answers - 1 + noise, answers),
        "margin": (2 * answers - 1 + noise, 2 * answers - 1),
        "mask": (1 / (1 + np.exp(1 - 2 * answers - noise)), answers),
        "class logits": (
            2 * np.eye(CLASSES)[classes] + chance.normal(size=(ROWS, CLASSES)),
            classes,
        ),
    }
    contract = contract_of(function)
    annotated = [
        item.name
        for hint in inspect.get_annotations(function, eval_str=True).values()
        for item in getattr(hint, "__metadata__", ())
        if isinstance(item, Space)
    ]
    first = annotated[:1] if annotated and annotated[0] in kinds else []
    if annotated and not (first and _fits(contract, kinds[first[0]][1])):
        spaces = ", ".join(space.name for space in contract.inputs.values())
        raise LossError(f"{contract.name}: the doctor has no data of its own for {spaces}")
    return [kinds[name] for name in (first or ["real", "logit", "class logits", "positive"])]


def _fits(contract: Contract, target: np.ndarray) -> bool:
    """Whether these rows are what an annotated definition takes, beside its prediction."""
    if len(contract.predictions) > 1 or contract.target is None or contract.unit is None:
        return False
    regions = contract.unit.name == "region"
    if regions and contract.inputs[contract.predictions[0]].layout == "class axis":
        return False
    return contract.target.layout == "class" or all(
        number in contract.target.interval for number in target.flat
    )
