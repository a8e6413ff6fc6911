"""One page per check, made from the docstring and from what the doctor says to its example."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from lossary.contract import LossError
from lossary.doctor.registry import Check, all_checks
from lossary.doctor.report import Report
from lossary.lines import broken, folded

_PARTS = re.compile(
    r"^(Symptom|Cause|Fix|People type):\s*(.*?)(?=^(?:Symptom|Cause|Fix|People type):|^Wrong::|\Z)",
    re.DOTALL | re.MULTILINE,
)
_EXAMPLES = re.compile(r"Wrong::\n\n(.*?)\n\nRight::\n\n(.*)", re.DOTALL)
PRELUDE = "from lossary.doctor.cases.data import *"


def parts(check: Check) -> dict[str, str]:
    """Symptom, Cause, Fix and People type, each as one paragraph."""
    found = {title: " ".join(text.split()) for title, text in _PARTS.findall(check.page)}
    return {title: text[:1].upper() + text[1:] for title, text in found.items()}


def examples(check: Check) -> tuple[str, str]:
    """The line that the check must catch, and the line on which it must be quiet."""
    found = _EXAMPLES.search(check.page)
    if found is None:
        raise LossError(f"{check.name}: its docstring has no Wrong:: and Right:: example")
    wrong, right = (" ".join(found.group(part).split()) for part in (1, 2))
    return broken(wrong), broken(right)


def run(code: str) -> Report:
    """What an example of ours evaluates to. Only code from this package's docstrings comes here."""
    from lossary.doctor.cases import data

    names = {name: getattr(data, name) for name in data.__all__}
    report: Report = eval(code, names)
    return report


def as_text(check: Check) -> str:
    """The page for a terminal, 80 columns."""
    wrong, right = examples(check)
    lines = [*folded(f"{check.name} ({check.severity}): {check.summary}", other="  "), ""]
    told = parts(check)
    for title in ("Symptom", "Cause", "Fix"):
        lines += folded(f"{title}: {told[title]}", other="  ")
    lines += ["", "Try it:", PRELUDE, "# caught", wrong, "# quiet", right]
    return "\n".join(lines)


def as_markdown(check: Check) -> str:
    """The page in the documentation."""
    wrong, right = examples(check)
    finding = run(wrong).named(check.name)
    told = parts(check)
    searches = "\n".join(f"- {phrase}" for phrase in check.searches)
    return f"""# {check.name}

{check.summary} Severity: {check.severity}.

**Symptom.** {told["Symptom"]}

**Cause.** {told["Cause"]}

**Fix.** {told["Fix"]}

## Try it

```python
{PRELUDE}

print({wrong})  # caught
print({right})  # quiet
```

```text
{finding}
```

## What people type

{searches}

To leave this check out: `lossary doctor ... --ignore {check.name}`.
"""


def index() -> str:
    """The list of all pages."""
    rows = "\n".join(
        f"| [{item.name}]({item.name}.md) | {item.severity} | {item.summary} |"
        for item in all_checks().values()
    )
    return f"""# The doctor's checks

`lossary doctor predictions.npy targets.npy --loss cross_entropy` asks all of them;
`lossary explain CHECK` (or a symptom, as `lossary explain loss is nan`, or an error message) shows
one of these pages.

## From saved files

| file | what is read |
|---|---|
| `.npy`, `.npz`, `.safetensors` | mapped into memory, not copied (a compressed `.npz` is) |
| `.parquet` | columns of numbers, a few at a time (needs `pip install 'lossary[lab]'`) |
| `.csv` | numbers between commas, semicolons or tabs, with or without names above; gaps are NaN |

Nothing is ever unpickled. One file may hold both sides: arrays or columns named `prediction` and
`target` (also `logits`, `y_pred`, `label`, `y_true` ...; columns `logits_0`, `logits_1` ... are one
array), and in an `.npz` file any argument of `lossary.examine` besides, such as `loss` or `mask`.
`--mask`, `--weights` and `--class-weights` name further files.

## What comes back

Each finding says what was seen, with its numbers, why it matters, the one line to change, and its
page. The exit code is 0 when all is well or there are only notes, 1 when there is an error or a
warning, 2 when the files cannot be examined; then one line on stderr says why. `--json` prints an
object with `about`, `findings` (each with `check`, `severity`, `seen`, `why`, `fix`, `page`),
`fine`, `not_applicable` and `failed` (checks that could not run: a fault of the doctor); for
several files, one such object by the name of each.

In Python, `lossary.examine(prediction, target, loss=...)` returns the same as a report: print it,
or ask for `report.findings`, `report.errors`, `report.named("double-softmax")`.

## The checks

| check | severity | what it finds |
|---|---|---|
{rows}
"""


def write(folder: Path) -> None:
    """All pages into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for check in all_checks().values():
        (folder / f"{check.name}.md").write_text(as_markdown(check), encoding="utf-8")
    (folder / "README.md").write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/doctor"))
