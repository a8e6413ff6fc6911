"""A loss of your own: does it run, is it what its name says, and does it compile?"""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import textwrap
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.arrays import to_numpy
from lossary.doctor.case import Case
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding
from lossary.doctor.untouched import untouched
from lossary.evaluate import Loss


@check("callable", severity="error")
def callable_(case: Case) -> Finding | None:
    """The loss callable raises, returns NaN or no number, or changes its inputs.

    Symptom: an exception, or results that change when the loss is called twice.
    Cause: a tuple instead of a number, in-place operations on predictions, shapes it does not take.
    Fix: return one array; work on copies.
    People type: custom loss returns tuple; loss modifies input in place; grad can be implicitly
    created only for scalar outputs; custom loss error; variable needed for gradient computation has
    been modified by an inplace operation; a leaf variable that requires grad is used in an in-place
    operation

    Wrong::

        examine(estimate, truth, loss=changes_its_input)

    Right::

        examine(estimate, truth, loss=leaves_its_input)
    """
    need(case.arrays, "predictions")
    subject, batch = case.known, case.batch
    need(not subject.further, f"a loss without {' and '.join(subject.further)}")
    if subject.own:
        problem = case.attempt[1]
        return (
            Finding(
                problem + ".",
                "The loss cannot be computed on these arrays.",
                "print(prediction.shape, target.shape)  # then repair what the message names",
            )
            if problem
            else None
        )
    problem = case.attempt[1]
    if problem:
        return Finding(
            problem + ".",
            "The loss cannot be computed on these arrays.",
            "loss(target, prediction)  # if it takes the target first: "
            'arguments="target,prediction"; else repair what it reports',
        )
    result = to_numpy(
        subject.raw(batch["prediction"], batch["target"], **case.options), "the value"
    )
    rows = len(
        batch["prediction"]
        if isinstance(batch["prediction"], np.ndarray)
        else batch["prediction"][0]
    )
    if result.ndim and rows not in result.shape[:1] and result.size > 1:
        return Finding(
            f"{subject.name} returned an array of shape {result.shape} for {rows} rows.",
            "A loss returns one number, or one per row or element; this is neither.",
            "return value.mean()",
            severity="warning",
        )
    return _in_place(case)


def _in_place(case: Case) -> Finding | None:
    """Hand over live arrays and look at them afterwards."""
    subject, batch = case.known, case.batch
    if not isinstance(batch["prediction"], np.ndarray) or subject.library in ("jax", "tensorflow"):
        return None
    prediction = subject.live(batch["prediction"])
    target = None if batch["target"] is None else subject.label(batch["target"])
    try:
        with untouched(subject.callable):
            subject.callable(*subject.ordered([prediction], target))
    except Exception:
        return None
    for name, before, after in (
        ("prediction", batch["prediction"], prediction),
        ("target", batch["target"], target),
    ):
        if before is not None and not np.array_equal(before, to_numpy(after, name), equal_nan=True):
            changed = int((before != to_numpy(after, name)).sum())
            return Finding(
                f"{subject.name} changes its {name} in place ({changed:,} of {before.size:,} "
                "entries).",
                "Whoever reads the array afterwards, a metric or a second term, sees other "
                "numbers.",
                case.line(
                    f"{name} = {name}.copy()  # or write no += and no masked assignment",
                    torch=f"{name} = {name}.clone()  # or write no += and no method ending in _",
                ),
            )
    return None


@check("oracle-parity", severity="error")
def oracle_parity(case: Case) -> Finding | None:
    """Your implementation differs from the loss that it means to be.

    Symptom: published results cannot be reproduced; two "same" losses disagree.
    Cause: exchanged parameters (Tversky's alpha and beta), a missing factor (Huber against smooth
    L1), another reduction, a term forgotten; invisible at the default parameters.
    Fix: compare at parameters away from the default, then correct the one that is named.
    People type: tversky alpha beta swapped; focal loss implementation wrong; huber vs smooth l1; my
    loss differs from pytorch; custom loss different from keras

    Wrong::

        examine(estimate, truth, loss=smooth_l1_called_huber, reference="huber")

    Right::

        examine(estimate, truth, loss=uses_delta, reference="huber")
    """
    subject, batch = case.foreign, case.batch
    need(case.reference is not None, "reference= (the loss that yours means to be)")
    need(isinstance(batch["prediction"], np.ndarray), "one prediction")
    contract = case.contract
    shared = {
        name: value
        for name, value in subject.parameters.items()
        if name in contract.parameters
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
    }
    settings: list[dict[str, Any]] = [{}]
    floats = [
        name
        for name, value in shared.items()
        if isinstance(value, float) or contract.parameters[name].type is float
    ]
    for factor in (0.6, 1.7):
        changed = {
            name: _inside(contract.parameters[name].interval, shared[name], factor, position)
            for position, name in enumerate(floats)
        }
        if changed and changed not in settings:
            settings.append(changed)
    pairs = [(setting, *_both(case, batch, shared | setting, setting)) for setting in settings]
    if all(math.isclose(mine, oracle, rel_tol=1e-5, abs_tol=1e-9) for _, mine, oracle in pairs):
        return None
    at, mine, oracle = next(
        item for item in pairs if not math.isclose(item[1], item[2], rel_tol=1e-5, abs_tol=1e-9)
    )
    told = ", ".join(f"{key}={value:.3g}" for key, value in at.items()) or "the parameters given"
    return Finding(
        f"At {told} {subject.name} gives {mine:.6g}, {contract.name} in float64 {oracle:.6g}"
        f"{_kind_of_difference(case, batch, shared, pairs)}.",
        "Defaults can hide it; away from them you train with another loss than you report.",
        f'Loss("{contract.name}")  # or correct the parameter that is named',
    )


def _inside(interval: Any, value: float, factor: float, position: int) -> float:
    """A value away from the default and from the other parameters', inside the interval."""
    other = value * factor + 0.05 * (position + 1)
    if interval is not None and other not in interval:
        high = interval.high if math.isfinite(interval.high) else value + 1
        other = (
            interval.low + (high - interval.low) * (0.3 if factor < 1 else 0.7)
            if math.isfinite(interval.low)
            else value
        )
    return float(other)


def _both(
    case: Case, batch: dict[str, Any], parameters: dict[str, Any], setting: dict[str, Any]
) -> tuple[float, float]:
    mine = case.foreign.with_parameters(**setting) if setting else case.foreign
    options = case.options
    wide = batch["prediction"].astype(np.float64)
    value = mine(wide, batch["target"], dtype="float64", **options)
    target = batch["target"]
    target = (
        target.astype(np.float64) if target is not None and target.dtype.kind == "f" else target
    )
    reduction = "sum" if case.foreign.reduction == "sum" else "mean"
    own = Loss(
        case.contract,
        reduction=reduction,
        predictions=case.foreign.predictions,
        ignore=case.ignored,
        implementation="definition",
        **parameters,
    )
    weights = case.class_weights_array
    extra = {} if weights is None else {"class_weights": weights.astype(np.float64)}
    oracle = own(wide, *([] if target is None else [target]), **options, **extra)
    return value, float(np.asarray(oracle))


def _kind_of_difference(
    case: Case,
    batch: dict[str, Any],
    shared: dict[str, Any],
    pairs: list[tuple[dict[str, Any], float, float]],
) -> str:
    setting = pairs[-1][0]
    for one, other in itertools.combinations(setting, 2):
        exchanged = shared | setting | {one: setting[other], other: setting[one]}
        try:
            mine, oracle = _both(case, batch, exchanged, setting)
        except LossError:
            continue
        if math.isclose(mine, oracle, rel_tol=1e-5, abs_tol=1e-9):
            return f": it equals {case.contract.name} with {one} and {other} exchanged"
    ratios = [mine / oracle for _, mine, oracle in pairs if oracle]
    if ratios and all(math.isclose(ratio, ratios[0], rel_tol=1e-4) for ratio in ratios):
        size = batch["prediction"].size
        names = {
            size: " (the number of entries: a sum)",
            len(batch["prediction"]): " (the number of rows: a sum)",
        }
        name = next(
            (
                text
                for number, text in names.items()
                if math.isclose(ratios[0], number, rel_tol=1e-4)
            ),
            "",
        )
        return f": {ratios[0]:.5g} times it everywhere{name}"
    for (setting, _, _), ratio in zip(pairs, ratios, strict=False):
        for name, value in (shared | setting).items():
            if value and value != 1 and math.isclose(ratio, 1 / value, rel_tol=1e-4):
                return f": it lacks the factor {name}"
    return f": ratios {', '.join(f'{ratio:.4g}' for ratio in ratios)} at {len(pairs)} settings"


class _Hazards(ast.NodeVisitor):
    """Collects what stops a compiler or makes the host wait, where it touches a tensor."""

    def __init__(self, tensors: set[str]) -> None:
        self.tensors = tensors
        self.found: list[tuple[int, str]] = []

    def _touches(self, node: ast.AST) -> bool:
        static = {
            "shape",
            "ndim",
            "dtype",
            "device",
            "size",
            "dim",
            "is_floating_point",
            "requires_grad",
        }
        if isinstance(node, ast.Attribute) and node.attr in static:
            return False
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("len", "isinstance")
        ):
            return False
        if isinstance(node, ast.Compare) and any(
            isinstance(op, (ast.Is, ast.IsNot)) for op in node.ops
        ):
            return False
        if isinstance(node, ast.Name):
            return node.id in self.tensors
        return any(self._touches(child) for child in ast.iter_child_nodes(node))

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            if isinstance(target, ast.Name) and self._touches(node.value):
                self.tensors.add(target.id)

    def visit_Call(self, node: ast.Call) -> None:
        if (
            isinstance(node.func, ast.Attribute)
            and node.func.attr in ("item", "tolist", "numpy", "cpu")
            and self._touches(node.func.value)
        ):
            self.found.append(
                (node.lineno, f".{node.func.attr}() makes the host wait for the device")
            )
        if (
            isinstance(node.func, ast.Name)
            and node.func.id in ("float", "int", "bool", "print")
            and any(map(self._touches, node.args))
        ):
            self.found.append((node.lineno, f"{node.func.id}() of a tensor makes the host wait"))
        if (
            isinstance(node.func, ast.Attribute)
            and node.func.attr == "nonzero"
            and self._touches(node)
        ):
            self.found.append((node.lineno, "nonzero() has a shape that depends on values"))
        self.generic_visit(node)

    def _branch(self, node: ast.If | ast.While | ast.Assert | ast.IfExp) -> None:
        if self._touches(node.test):
            self.found.append(
                (
                    node.lineno,
                    f"`{ast.unparse(node.test)[:60]}` branches on values: a graph break and a wait",
                )
            )
        self.generic_visit(node)

    visit_If = visit_While = visit_Assert = visit_IfExp = _branch  # noqa: N815 - ast's names

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if (
            self._touches(node.value)
            and isinstance(node.slice, (ast.Compare, ast.UnaryOp, ast.BoolOp))
            and self._touches(node.slice)
        ):
            self.found.append(
                (
                    node.lineno,
                    f"`{ast.unparse(node)[:60]}` selects by values: its shape is known only after "
                    "a wait",
                )
            )
        self.generic_visit(node)


@check("compile-hazards", severity="note")
def compile_hazards(case: Case) -> Finding | None:
    """Code that breaks compilation or makes the host wait for the device.

    Symptom: torch.compile or jit falls back or fails; the GPU idles between steps.
    Cause: .item(), branches on values, boolean indexing inside the loss.
    Fix: where(), masks and checks outside the hot path.
    People type: torch.compile graph break loss; TracerBoolConversionError; item() slow training;
    host device sync in loss; boolean indexing torch.compile; ConcretizationTypeError

    Wrong::

        examine(estimate, truth, loss=branches_on_values)

    Right::

        examine(estimate, truth, loss=uses_delta)
    """
    subject = case.foreign
    function = (
        getattr(subject.callable, "forward", None)
        or getattr(subject.callable, "call", None)
        or subject.callable
    )
    root = (getattr(function, "__module__", "") or "").partition(".")[0]
    need(root not in ("torch", "keras", "jax", "optax", "tensorflow"), "source code of your own")
    try:
        source = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(
            source
            if source.lstrip().startswith(("def", "async", "@", "class"))
            else f"_ = {source[source.find('lambda') :].rstrip().rstrip(',)')}"
        )
    except (OSError, TypeError, SyntaxError):
        need(False, "source code that can be read")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        need(False, "a signature")
    names = {item.name for item in parameters if item.default is item.empty and item.name != "self"}
    visitor = _Hazards(names)
    visitor.visit(tree)
    if not visitor.found:
        return None
    line, what = visitor.found[0]
    more = f" ({len(visitor.found) - 1} more)" if len(visitor.found) > 1 else ""
    return Finding(
        f"{subject.name}, line {line}: {what}{more}.",
        "Each such line costs a round trip per step and keeps compilers out.",
        case.line(
            "value = np.where(mask, values, 0).sum() / mask.sum()  # select without a branch",
            torch="value = torch.where(mask, values, 0).sum() / mask.sum()  # without a branch",
            jax="value = jnp.where(mask, values, 0).sum() / mask.sum()  # without a branch",
        ),
    )
