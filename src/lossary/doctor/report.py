"""What the doctor says: findings, in an order, as text or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from lossary.lines import folded

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that was seen, why it matters, and the one change to make."""

    seen: str
    why: str
    fix: str
    severity: Severity | None = None  # None: the check's own
    check: str = ""

    @property
    def page(self) -> str:
        """Where the whole story is told."""
        return f"docs/doctor/{self.check}.md"

    def __str__(self) -> str:
        code, _, remark = self.fix.partition("  # ")
        return "\n".join(
            [
                f"{self.severity}  {self.check}",
                _wrapped(self.seen, "  seen  ", " " * 8),
                _wrapped(self.why, "  why   ", " " * 8),
                f"  fix   {code}",  # in one piece, to be pasted
                *([_wrapped(remark, "        # ", "        # ")] if remark else []),
                f"  page  lossary explain {self.check}",
            ]
        )


@dataclass(frozen=True)
class Report:
    """Findings by severity, and what was looked at and found fine or could not be looked at."""

    findings: tuple[Finding, ...]
    fine: tuple[str, ...]
    not_applicable: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)  # checks that could not run: our faults
    about: str = ""  # what was examined: shapes, types, and how the loss reads them

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def exit_code(self) -> int:
        """0 when clean or only notes, 1 when there is an error or a warning."""
        return 1 if self.errors or self.warnings else 0

    @property
    def faults(self) -> dict[str, str]:
        """A line for each check that could not run."""
        return {
            name: f"check {name} could not run: {reason} (a fault of the doctor, not of yours)"
            for name, reason in self.failed.items()
        }

    def named(self, check: str) -> Finding | None:
        """The finding of this check, if there is one."""
        return next((finding for finding in self.findings if finding.check == check), None)

    def to_json(self) -> str:
        rows = [asdict(finding) | {"page": finding.page} for finding in self.findings]
        return json.dumps(
            {
                "about": self.about,
                "findings": rows,
                "fine": self.fine,
                "not_applicable": self.not_applicable,
                "failed": self.failed,
            },
            indent=2,
        )

    def text(self, *, verbose: bool = False) -> str:
        """The report at 80 columns; ``verbose`` also tells which checks were not asked, and why."""
        parts = [_wrapped(self.about)] if self.about else []
        parts += [str(finding) for finding in self.findings] or ["No findings."]
        parts += map(_wrapped, self.faults.values())
        if self.fine:
            parts.append(_wrapped(f"Looked at and fine ({len(self.fine)}): {', '.join(self.fine)}"))
        if verbose and self.not_applicable:
            lines = [_wrapped(f"  {name}: {why}") for name, why in self.not_applicable.items()]
            parts.append("\n".join([f"Not asked ({len(lines)}):", *lines]))
        return "\n\n".join(parts)

    def __str__(self) -> str:
        return self.text()


def _wrapped(text: str, first: str = "", other: str = "    ") -> str:
    return "\n".join(folded(text, first, other))
