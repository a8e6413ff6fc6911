"""The doctor in training: checks on the first batches, then it only listens."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lossary.contract import LossError
from lossary.cost import Objective
from lossary.doctor import diagnose
from lossary.doctor.arrays import to_numpy
from lossary.doctor.case import Case
from lossary.doctor.identify import roles
from lossary.doctor.landmarks import best_constant, floor_of
from lossary.doctor.registry import all_checks
from lossary.doctor.report import Finding, Report
from lossary.doctor.terms import Term

FIRST = 3
EVERY = 50
KEPT_BYTES = 256 * 2**20
# What an untrained network cannot answer, and what a log is needed for.
_LATER = ("constant-predictor", "domination", "direction", "label-shift", "collapse")


class NotFinite(LossError, ArithmeticError):  # noqa: N818 - says what happened
    """The loss or its gradient is not finite: training was stopped; the message says why."""


@dataclass
class Reading:
    """Where the loss stood at one sampled step."""

    step: int
    value: float
    ignored_share: float | None = None
    constant: float | None = None  # loss of the best constant answer
    floor: float | None = None
    terms: dict[str, Term] = field(default_factory=dict)

    @property
    def progress(self) -> float | None:
        """The way from the best constant answer (0) to the floor (1)."""
        if self.constant is None or self.constant == (self.floor or 0.0):
            return None
        return (self.constant - self.value) / (self.constant - (self.floor or 0.0))

    def __str__(self) -> str:
        parts = [f"step {self.step}: loss {self.value:.4g}"]
        if self.ignored_share:
            parts.append(f"{self.ignored_share:.1%} of labels ignored")
        if self.progress is not None:
            parts.append(
                f"{self.progress:.0%} of the way from a constant ({self.constant:.4g}) to the "
                f"floor ({self.floor or 0:.4g})"
            )
        values, slopes = (
            sum(abs(t.value) for t in self.terms.values()),
            sum(t.gradient or 0 for t in self.terms.values()),
        )
        parts += [
            f"{name} {abs(term.value) / (values or 1):.1%} of the value, "
            f"{(term.gradient or 0) / (slopes or 1):.1%} of the gradient"
            for name, term in self.terms.items()
        ]
        return ", ".join(parts)


class Watch:
    """Watch a PyTorch loss while it trains: ``loss = Watch(nn.CrossEntropyLoss())``, one line.

    Call it in place of the loss; an ``nn.Module`` may also go on being called itself. The checks
    run on the first ``first`` batches. After that a step costs a few references; on a device the
    values are kept and looked at together every ``every`` steps, which is the only time the host
    waits for it (on the CPU each value is looked at). A value or gradient that is not finite ends
    training with a :class:`NotFinite` that names row, values, operation and fix (``stop=False``: it
    is reported and training goes on). ``readings`` holds where the loss stood, at steps that
    double. Further keywords are those of ``examine``.
    """

    def __init__(
        self,
        loss: Any,
        *,
        first: int = FIRST,
        every: int = EVERY,
        stop: bool = True,
        tell: Callable[[str], Any] | None = None,
        **case: Any,
    ) -> None:
        self.loss, self.first, self.every, self.stop = loss, first, max(1, every), stop
        self.case = case
        self.findings: dict[str, Finding] = {}
        self.failed: dict[str, str] = {}  # checks that could not run, and why
        self.readings: list[Reading] = []
        self.steps = 0
        self.examined = 0
        self._tell = tell or (lambda text: print(text, file=sys.stderr))
        self._kept: list[tuple[Any, Any, Any, Mapping[str, Any]]] = []
        self._last: tuple[Any, Any, Any, Mapping[str, Any]] | None = None
        self._quiet = False
        self._room = 1  # batches kept until they are looked at
        self._next = 2 * self.every
        hook = getattr(loss, "register_forward_hook", None)
        self._handle = hook(self._hooked, with_kwargs=True) if hook else None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        value = self.loss(*arguments, **options)
        if self._handle is None:
            self._observe(value, arguments, options)
        return value

    def __getattr__(self, name: str) -> Any:
        if name == "loss":
            raise AttributeError(name)
        return getattr(self.loss, name)

    def close(self) -> None:
        """Look at what was kept, say when nothing was learnt, and let go of the loss."""
        self._look()
        if stalled(self.readings) and self._last is not None:
            self._note(
                self._ask(self._last[1], self._last[3], ["constant-predictor"]),
                f"step {self.steps}",
            )
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _hooked(self, module: Any, arguments: Any, options: Any, value: Any) -> None:
        self._observe(value, arguments, options)

    def _observe(self, value: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        if self._quiet or not value.requires_grad:
            return  # the doctor's own calls, or validation
        self.steps += 1
        kept = tuple([_without_graph(item) for item in arguments])
        if options and not isinstance(self.loss, Objective):  # whose terms are differentiated
            options = {name: _without_graph(item) for name, item in options.items()}
        self._kept.append((value.detach(), kept, self.steps, options))
        if len(self._kept) >= self._room:
            self._wake(kept, options)

    def _wake(self, kept: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        """Leave the hot path: check a first batch, or look at what was kept."""
        if self.steps <= self.first:
            self._examine(kept, options, full=self.steps == 1)
        self._look()
        if self.steps >= self.first:
            arrays = (*kept, *options.values())
            self._room = 1 if _on_host(arrays) else self._capacity(arrays)

    def _capacity(self, kept: tuple[Any, ...]) -> int:
        """How many batches are kept until the host waits for the device to look at them."""
        size: int = sum(
            item.numel() * item.element_size() for item in kept if hasattr(item, "element_size")
        )
        return max(1, min(self.every, KEPT_BYTES // max(1, size)))

    def _look(self) -> None:
        """Wait for the device once, and see whether all values since the last look are finite."""
        if not self._kept:
            return
        kept, self._kept = self._kept, []
        values = [value.mean() if value.ndim else value for value, *_ in kept]
        finite = _finite(values)
        if not all(finite):
            position = finite.index(False)
            before = kept[position - 1] if position else self._last
            self._last = kept[-1]
            self._post_mortem(kept[position], before)
            return
        self._last = kept[-1]
        if self.steps >= self._next:
            self._next = 2 * self.steps
            self._read(kept[-1])

    def _as_case(self, arguments: tuple[Any, ...], options: Mapping[str, Any], **more: Any) -> Case:
        if isinstance(self.loss, Objective):
            return Case.of(**self.case, **more)
        named = {key: _without_graph(value) for key, value in options.items()}
        split, target, known = roles(self.loss, arguments, named, self.case.get("arguments"))
        prediction = split[0] if len(split) == 1 else split
        return Case.of(
            **{
                "prediction": prediction,
                "target": target,
                "loss": self.loss,
                **known,
                **self.case,
                **more,
            }
        )

    def _ask(
        self, arguments: tuple[Any, ...], options: Mapping[str, Any], only: list[str], **more: Any
    ) -> list[Finding]:
        self._quiet = True
        try:
            report = diagnose(self._as_case(arguments, options, **more), only=only)
            self._admit(report)
            return list(report.findings)
        except (
            LossError
        ) as problem:  # arrays that cannot be examined are no reason to end a training
            self._tell(f"lossary: the doctor cannot look at this batch: {problem}")
            return []
        finally:
            self._quiet = False

    def _examine(
        self, arguments: tuple[Any, ...], options: Mapping[str, Any], *, full: bool
    ) -> None:
        if isinstance(self.loss, Objective):
            self._read((None, arguments, self.steps, options))
            return
        self.examined += 1
        cheap = [name for name in all_checks() if name not in _LATER]
        if not full:  # what depends on the loss alone is settled by the first batch
            function = (
                "dead-flag",
                "gradient-check",
                "edge-gradients",
                "compile-hazards",
                "oracle-parity",
                "callable",
                "split-invariance",
                "padding-invariance",
                "batch-dependence",
                "direction",
            )
            cheap = [name for name in cheap if name not in function]
        self._note(self._ask(arguments, options, cheap, trained=False), f"batch {self.steps}")

    def _admit(self, report: Report) -> None:
        """Tell once of each check that could not run."""
        for name, line in report.faults.items():
            if name not in self.failed:
                self.failed[name] = report.failed[name]
                self._tell(f"lossary: {line}")

    def _note(self, found: Iterable[Finding], where: str) -> None:
        """Keep each check's first finding; tell errors and warnings once."""
        for finding in found:
            if finding.check not in self.findings:
                self.findings[finding.check] = finding
                if finding.severity != "note":
                    self._tell(f"lossary, {where}: {finding}")

    def _read(self, kept: tuple[Any, ...]) -> None:
        """Take a reading of this batch."""
        value, arguments, step, options = kept
        if isinstance(self.loss, Objective):
            self._read_terms(step, options)
            return
        self._quiet = True
        try:
            case = self._as_case(arguments, options)
            best = best_constant(case)
            counted = case.counted
            share = None if counted is None else 1.0 - float(counted.mean())
            self.readings.append(
                Reading(step, _number(value), share, best[1] if best else None, floor_of(case))
            )
        except LossError as problem:
            self._tell(f"lossary: the doctor cannot read step {step}: {problem}")
        finally:
            self._quiet = False
        self.examined += 1
        self._note(
            self._ask(arguments, options, ["all-ignored", "domination", "collapse"]), f"step {step}"
        )

    def _read_terms(self, step: int, inputs: Mapping[str, Any]) -> None:
        """Each term's share of the value and of the gradient by its own predictions."""
        import torch

        terms = {}
        with torch.enable_grad():
            for name, (factor, loss) in self.loss.terms.items():
                given = inputs[name] if isinstance(inputs[name], tuple) else (inputs[name],)
                leaves = [
                    item.detach().requires_grad_(item.is_floating_point() and item.requires_grad)
                    for item in given
                ]
                value = factor * loss(*leaves)
                wanted = [leaf for leaf in leaves if leaf.requires_grad]
                slopes = (
                    torch.autograd.grad(value, wanted, allow_unused=True)
                    if wanted and value.requires_grad
                    else ()
                )
                norm = math.sqrt(
                    sum(
                        float(slope.double().square().sum())
                        for slope in slopes
                        if slope is not None
                    )
                )
                terms[name] = Term(
                    float(value.detach()), getattr(loss, "reduction", None), given[0].numel(), norm
                )
        self.examined += 1
        self.readings.append(Reading(step, sum(term.value for term in terms.values()), terms=terms))
        report = diagnose(Case.of(terms=terms), only=["dead-term", "reduction-mismatch"])
        self._admit(report)
        self._note(report.findings, f"step {step}")

    def _post_mortem(self, bad: tuple[Any, ...], before: tuple[Any, ...] | None) -> None:
        """Explain the first value that is not finite, or the step before, which caused it."""
        value, arguments, step, options = bad
        only = ["nan-post-mortem"]
        found: list[Finding] = []
        where = f"step {step}"
        if not isinstance(self.loss, Objective):
            given = (*arguments, *options.values())
            network = [item for item in given if getattr(item, "is_floating_point", bool)()]
            broken = any(not bool(item.isfinite().all()) for item in network)
            if (
                broken and before is not None
            ):  # the network is broken already: the step before did it
                found = self._ask(before[1], before[3], only)
                where = f"step {before[2]}" if found else where
            found = found or self._ask(arguments, options, only)
        told = (
            "\n".join(str(finding) for finding in found)
            or "no row of the batch alone explains it: the sum overflows, or a regulariser does"
        )
        text = f"the loss is {_number(value)} at step {step}; {where}:\n{told}"
        if found:
            self.findings.setdefault("nan-post-mortem", found[0])
        if self.stop:
            raise NotFinite(text)
        self._tell(f"lossary: {text}")


def stalled(readings: list[Reading]) -> bool:
    """Whether the last readings stand still: earlier, a constant answer is a stage and no fault."""
    if len(readings) < 3 or readings[-1].constant is None:
        return False
    last, before = readings[-1].value, readings[-2].value
    return abs(last - before) < 0.01 * abs(readings[-1].constant)


def _on_host(items: tuple[Any, ...]) -> bool:
    """Whether looking at a value costs no waiting for a device."""
    return all(item.device.type == "cpu" for item in items if hasattr(item, "device"))


def _without_graph(item: Any) -> Any:
    return item.detach() if getattr(item, "requires_grad", False) else item


def _number(value: Any) -> float:
    return float(to_numpy(value, "the loss").mean())


def _finite(values: list[Any]) -> list[bool]:
    """Which are finite, with one wait for the device."""
    if len(values) == 1:
        return [math.isfinite(float(values[0]))]
    import torch

    return [bool(item) for item in torch.stack(values).isfinite().tolist()]
