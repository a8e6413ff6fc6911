"""Which operation of a loss made the first value that is not finite?"""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.arrays import like
from lossary.doctor.subject import Subject

_INTERNAL = (
    "/torch/",
    "/numpy/",
    "/jax/",
    "/doctor/",
    "/keras/",
    "/tensorflow/",
    "array_api_compat",
    "/xp/",
)
REMEDIES = {
    "log": "log(x.clip(min=smallest))  # or a formula on logits, which needs no log of 0",
    "sqrt": "sqrt(x + 1e-12)  # at 0 the root has an infinite slope",
    "div": "x / where(y == 0, 1, y)  # and mask those rows",
    "exp": "y = logsumexp(x, axis=-1)  # for log(exp(x).sum()); softplus for log(1 + exp(x))",
    "pow": "clip(x, min=1e-12) ** p  # a fractional power of 0 has an infinite slope",
    "norm": "sqrt((x * x).sum(-1) + 1e-12)  # the norm has no slope at 0",
    "mul": "where(mask, x, 0)  # 0 times infinity is NaN: select, do not multiply",
    "sub": "y = log_softmax(x, axis=-1)  # infinity minus infinity is NaN",
}


@dataclass(frozen=True)
class Culprit:
    """An operation and the line of code that it stands in."""

    operation: str
    line: str

    def __str__(self) -> str:
        return f"{self.operation} in `{self.line}`" if self.line else self.operation

    @property
    def remedy(self) -> str:
        for key, text in REMEDIES.items():
            if key in self.operation.lower():
                return text
        return "x = x.clip(-1e6, 1e6)  # before this operation, or mask these rows"


def culprit(
    subject: Subject, prediction: Any, target: Any, options: dict[str, Any]
) -> Culprit | None:
    """The first operation that made a value that is not finite, when it can be found."""
    if not subject.own and subject.library == "torch":
        return _torch_forward(subject, prediction, target, options) or _torch_backward(
            subject, prediction, target, options
        )
    if subject.own or subject.library == "numpy":
        return _numpy_forward(subject, prediction, target, options)
    return None


def _numpy_forward(
    subject: Subject, prediction: Any, target: Any, options: dict[str, Any]
) -> Culprit | None:
    problem: FloatingPointError | None = None
    try:
        with np.errstate(divide="raise", invalid="raise", over="raise"):
            subject.raw(prediction, target, **options)
    except FloatingPointError as error:
        problem = error
    except LossError as error:
        if isinstance(error.__cause__, FloatingPointError):
            problem = error.__cause__
    if problem is None:
        return None
    operation = re.sub(r".*encountered in ", "", str(problem))
    return Culprit(operation, _line_of(traceback.extract_tb(problem.__traceback__)))


def _line_of(frames: Sequence[traceback.FrameSummary]) -> str:
    outside = [
        frame
        for frame in frames
        if "/doctor/cases/" in frame.filename
        or not any(part in frame.filename for part in _INTERNAL)
    ]
    losses = [
        frame
        for frame in outside
        if "evaluate" not in frame.filename and "cost" not in frame.filename
    ]
    chosen = (losses or outside)[-1:] if frames else []
    return (chosen[0].line or "").strip() if chosen else ""


def _torch_forward(
    subject: Subject, prediction: Any, target: Any, options: dict[str, Any]
) -> Culprit | None:
    import torch
    from torch.overrides import TorchFunctionMode

    found: list[Culprit] = []

    class Watch(TorchFunctionMode):
        """Looks at every operation's result; the first that is not finite is remembered."""

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = function(*args, **(kwargs or {}))
            if not found and isinstance(result, torch.Tensor) and result.is_floating_point():
                given = [
                    item
                    for item in args
                    if isinstance(item, torch.Tensor) and item.is_floating_point()
                ]
                with torch._C.DisableTorchFunctionSubclass():
                    bad = (
                        given
                        and not result.isfinite().all()
                        and all(item.isfinite().all() for item in given)
                    )
                if bad:
                    name = getattr(function, "__name__", str(function)).strip("_")
                    found.append(Culprit(name, _line_of(traceback.extract_stack()[:-1])))
            return result

    with Watch():
        subject.raw(prediction, target, **options)
    return found[0] if found else None


def _torch_backward(
    subject: Subject, prediction: Any, target: Any, options: dict[str, Any]
) -> Culprit | None:
    """The operation that a finite slope enters and a slope that is not finite leaves."""
    import torch
    from torch.overrides import TorchFunctionMode

    steps: list[tuple[Culprit, Any, list[Any]]] = []  # operation, result, inputs

    class Record(TorchFunctionMode):
        """Remembers every differentiable operation with its inputs and its result."""

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.requires_grad:
                given = [
                    item for item in args if isinstance(item, torch.Tensor) and item.requires_grad
                ]
                with torch._C.DisableTorchFunction():
                    for item in (*given, result):
                        if not item.is_leaf:
                            item.retain_grad()
                name = getattr(function, "__name__", str(function)).strip("_")
                steps.append(
                    (
                        Culprit(f"the slope of {name}", _line_of(traceback.extract_stack()[:-1])),
                        result,
                        given,
                    )
                )
            return result

    leaf = like(prediction, "torch")
    if not leaf.is_floating_point():
        return None
    leaf.requires_grad_(True)
    with Record():
        value = subject.raw((leaf,), target, **options)
    try:
        value.mean().backward()
    except RuntimeError:  # PyTorch has no derivative of it, for these types
        return None
    for step, result, inputs in reversed(steps):
        if _finite_slope(result) and any(not _finite_slope(item) for item in inputs):
            found: Culprit = step
            return found
    return None


def _finite_slope(tensor: Any) -> bool:
    return tensor.grad is None or bool(tensor.grad.isfinite().all())
