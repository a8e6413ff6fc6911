"""What a terminal of 80 columns shows: no wider line, and code that is still the same code."""

import ast
import io
import re
from pathlib import Path

import pytest

from lossary.advice.calls import calls
from lossary.cli import main
from lossary.contract import contracts
from lossary.doctor import all_checks
from lossary.doctor.pages import examples
from lossary.evaluate import Loss
from lossary.lines import broken

ROOT = Path(__file__).parent.parent
WEATHER = f"{ROOT}/examples/seattle-weather.csv --target"
COMMANDS = f"""
list
explain
explain loss is nan
explain off by everything
show partially_huberised_cross_entropy
show hubber
doctor {ROOT}/examples/broken/05_classes_last.npz --verbose
check lossary.losses.regression:huber --library numpy
check lossary:nothing
advise digits
advise wine --for ranking
advise diabetes --for quantile=0.9
advise diabetes --for ranking
advise breast-cancer --for cost=[[0,1],[5,0]]
advise {WEATHER} rain
advise {WEATHER} temp_max
compare wine --seeds 2 --epochs 1 --rate 0.01 --losses cross_entropy,categorical_hinge -o out
compare diabetes --predictions x --target y
""".strip().splitlines()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(command, monkeypatch, width=80):
    """What a command prints on a terminal of so many columns, without its colours."""
    out = Terminal()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.argv", ["lossary", *command.split()])
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", out)
    with pytest.raises(SystemExit):
        main()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n").splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_is_wider_than_the_terminal(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    lines = shown(command, monkeypatch)
    assert lines
    wide = [line for line in lines if len(line) > 80]
    assert not [line for line in wide if max(map(len, line.split())) < 70], "but for long words"


@pytest.mark.parametrize("check", all_checks())
def test_a_page_of_the_doctor_fits(check, monkeypatch):
    assert max(map(len, shown(f"explain {check}", monkeypatch))) <= 80


def test_a_pipe_gets_one_line_each(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lossary", "explain"])
    with pytest.raises(SystemExit):
        main()
    assert len(capsys.readouterr().out.splitlines()) == len(all_checks())


def codes():
    """Code that is shown to be pasted: calls of every loss, and the examples of the doctor."""
    for contract in contracts():
        required = {k: (10, 1) for k, item in contract.parameters.items() if item.required}
        yield from calls(Loss(contract.name, **required)).values()
    for check in all_checks().values():
        yield from (" ".join(code.split()) for code in examples(check))


@pytest.mark.parametrize("indent", [0, 16])
@pytest.mark.parametrize("width", [40, 80])
def test_broken_code_is_the_same_code(indent, width):
    for code in codes():
        lines = broken(code, indent, width).splitlines()
        assert ast.dump(ast.parse("\n".join(lines))) == ast.dump(ast.parse(code))
        assert all(line.startswith(" " * indent) for line in lines[1:])
        if width == 80:
            lines[0] = " " * indent + lines[0]
            wide = [line for line in lines if len(line) > 80]
            assert all("lambda" in line for line in wide), "whose parameters stay together"


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("f(a, b)", ["f(a, b)"]),
        ("outer(aaaaaa)(bbbbbb, cccccc)", ["outer(aaaaaa)(", "    bbbbbb, cccccc", ")"]),
        (
            "outer('(', lambda a, b: inner(a, b))",
            ["outer(", "    '(',", "    lambda a, b: inner(", "        a, b", "    )", ")"],
        ),
        ("name = a_long_function_name()", ["name = (", "    a_long_function_name()", ")"]),
        ("without_brackets_or_any_value", ["without_brackets_or_any_value"]),
    ],
)
def test_code_is_broken_in_its_brackets(code, lines):
    assert broken(code, width=24).splitlines() == lines
