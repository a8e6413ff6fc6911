"""The doctor: find what is wrong with a loss before it costs a week."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.case import Case
from lossary.doctor.chance import same_chance
from lossary.doctor.registry import CHECKS, Check, NotApplicable, all_checks, check_of
from lossary.doctor.report import SEVERITIES, Finding, Report

__all__ = [
    "CHECKS",
    "Case",
    "Check",
    "Finding",
    "Report",
    "all_checks",
    "check_of",
    "diagnose",
    "examine",
]


def examine(
    prediction: Any = None,
    target: Any = None,
    *,
    loss: Any = None,
    ignore_checks: Iterable[str] = (),
    only: Iterable[str] | None = None,
    **more: Any,
) -> Report:
    """Look at predictions, targets and the loss between them; see :class:`Case` for all arguments.

    Arrays of any supported library, saved or live. Returns a :class:`Report`. Raises ``LossError``
    when there is nothing to examine: an empty array, text, an unknown loss.
    """
    case = Case.of(prediction=prediction, target=target, loss=loss, **more)
    return diagnose(case, ignore_checks, only)


def diagnose(
    case: Case, ignore_checks: Iterable[str] = (), only: Iterable[str] | None = None
) -> Report:
    """Ask every check that is not ignored, or ``only`` those named."""
    ignored = {check_of(name).name for name in ignore_checks}
    chosen = list(all_checks()) if only is None else [check_of(name).name for name in only]
    # What is not finite becomes a finding, not a warning, and what frameworks warn of is told once.
    with np.errstate(all="ignore"), warnings.catch_warnings(), same_chance():
        warnings.simplefilter("ignore")
        return _ask(case, [name for name in chosen if name not in ignored])


def _ask(case: Case, names: list[str]) -> Report:
    findings: list[Finding] = []
    fine: list[str] = []
    not_applicable: dict[str, str] = {}
    failed: dict[str, str] = {}
    for name in names:
        try:
            finding = CHECKS[name](case)
        except NotApplicable as reason:
            not_applicable[name] = f"needs {reason}"
            continue
        except LossError as problem:  # the loss refuses a variation of these arrays
            not_applicable[name] = f"needs a loss that takes these arrays ({problem})"
            continue
        except Exception as error:  # a fault of this check; the others go on
            failed[name] = could_not_run(error)
            continue
        if finding is None:
            fine.append(name)
        else:
            findings.append(finding)
    findings = [finding for finding in findings if not _follows(finding, findings, case)]
    findings.sort(key=lambda item: SEVERITIES.index(item.severity))
    return Report(tuple(findings), tuple(fine), not_applicable, failed, _about(case))


def _about(case: Case) -> str:
    """What was understood, for the reader to compare with what was meant."""
    arrays = dict(case.inputs)
    if case.target is not None:
        arrays["target"] = case.target_array
    told = [f"{name} {array.shape} {array.dtype}" for name, array in arrays.items()]
    if case.subject is not None and case.reads:
        reads = "real numbers" if case.reads == "real" else case.reads
        told.append(f"the loss {case.subject.name} reads {reads}")
    elif case.subject is not None:
        told.append(f"the loss {case.subject.name}")
    return f"Examined: {', '.join(told)}" if told else ""


def could_not_run(error: Exception) -> str:
    """The one line that a report holds for a check that raised. Our own tests replace this
    function by one that raises, so that they fail on every fault which users read in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def _follows(finding: Finding, findings: list[Finding], case: Case) -> bool:
    """Whether a finding is only the consequence of another that names the cause."""
    causes = {other.check for other in findings if other.severity == "error"} - {finding.check}
    if finding.check == "callable":
        return bool(causes) and case.subject is not None and case.subject.own
    if finding.check == "negative-value":  # impossible values are told by what made them
        return finding.severity == "error" and bool(causes)
    return finding.check == "constant-predictor" and bool(
        causes or any(other.check == "domination" for other in findings)
    )
