"""Every check catches its broken cases, is quiet on correct ones, and can fail."""

import ast
import inspect
import textwrap
from collections.abc import Iterator

import pytest

from lossary.doctor import all_checks
from lossary.doctor.case import Case
from lossary.doctor.cases import examples_of
from lossary.doctor.pages import examples, parts, run
from lossary.doctor.registry import Check, search
from lossary.doctor.report import Finding
from lossary.doctor.table import LIBRARIES, ask, in_library, main, measure

NAMES = """
double-softmax double-sigmoid logits-as-probabilities log-probabilities-as-logits
one-channel-softmax broadcast class-axis label-range encoding target-range label-dtype
arguments-swapped nan-target domain kl-inputs ctc-feasibility variance-shape split-invariance
accumulation-plan padding-invariance dead-flag mask-leak all-ignored weight-cancels
weights-suspicious calibration-shift label-shift contrastive-scale reduction-mismatch
batch-dependence nan-post-mortem edge-gradients gradient-check direction dead-gradient
precision-gap epsilon-underflow oracle-parity memory-forecast compile-hazards initial-loss
constant-predictor floor domination dead-term collapse target-suggests negative-value
metric-mismatch hidden-nan train-validation-gap callable
""".split()


def test_names() -> None:
    assert sorted(all_checks()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_caught_and_quiet(name: str) -> None:
    row = measure(all_checks()[name], LIBRARIES)
    assert row.failures == ()
    assert row.passed, "three broken and three correct cases are the least"
    assert row.asked >= 2, "correct cases must reach the check, not only be left alone"


@pytest.mark.parametrize("name", NAMES)
def test_page_examples(name: str) -> None:
    check = all_checks()[name]
    wrong, right = examples(check)
    finding = run(wrong).named(name)
    assert finding is not None
    assert run(right).named(name) is None
    assert set(parts(check)) == {"Symptom", "Cause", "Fix", "People type"}
    assert all(len(line) <= 80 for line in str(finding).splitlines())


def condition_mutants(check: Check) -> Iterator[tuple[str, Check]]:
    """The check with one of its conditions replaced by True or by False."""
    source = textwrap.dedent(inspect.getsource(check.ask))
    count = sum(isinstance(node, ast.If | ast.IfExp) for node in ast.walk(ast.parse(source)))
    for index in range(count):
        for value in (True, False):
            tree = ast.parse(source)
            node = [item for item in ast.walk(tree) if isinstance(item, ast.If | ast.IfExp)][index]
            node.test = ast.Constant(value)
            tree.body[0].decorator_list = []  # type: ignore[attr-defined]
            space = dict(vars(inspect.getmodule(check.ask)))
            exec(compile(ast.fix_missing_locations(tree), check.name, "exec"), space)
            mutant = space[check.ask.__name__]
            yield f"condition {index} {value}", Check(check.name, check.severity, mutant)


def rejected(mutant: Check) -> bool:
    for example in examples_of(mutant.name):
        try:
            answer = ask(mutant, example.given)
        except Exception:
            return True
        if bool(answer) != example.broken:
            return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_mutants_are_rejected(name: str) -> None:
    check = all_checks()[name]
    blind = Check(name, check.severity, lambda case: None)
    alarmist = Check(name, check.severity, lambda case: Finding("always", "always", "never"))
    assert rejected(blind)
    assert rejected(alarmist)
    assert any(rejected(mutant) for _, mutant in condition_mutants(check)), (
        "no single condition of this check matters to its cases"
    )


@pytest.mark.parametrize(
    ("typed", "check"),
    [
        ("loss stuck at 0.693", {"double-sigmoid", "constant-predictor"}),
        ("loss is nan", {"nan-post-mortem", "nan-target"}),
        ("expected floating point type for target", {"encoding"}),
        ("target out of bounds", {"label-range"}),
        ("average of averages", {"split-invariance"}),
        ("kl divergence negative", {"kl-inputs"}),
    ],
)
def test_found_by_symptom(typed: str, check: set[str]) -> None:
    assert search(typed)[0].name in check


def test_table_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["floor"]) == 0
    out = capsys.readouterr().out
    assert "floor" in out
    assert "1 checks" in out


@pytest.mark.parametrize("name", NAMES)
def test_the_change_is_a_line_of_code(name: str) -> None:
    """It parses, holds no placeholder and fits a terminal without being broken."""
    for example in examples_of(name):
        for library in LIBRARIES if example.broken else ():
            given = in_library(example.given, library)
            finding = None if given is None else all_checks()[name](Case.of(**given))
            if finding is not None:
                ast.parse(finding.fix)
                assert "..." not in finding.fix, finding.fix
                assert len(finding.fix.partition("  # ")[0]) <= 72, finding.fix
