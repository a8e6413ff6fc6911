"""The command line as a user meets it: its own process, its exit codes, its two streams."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lossary.contract import contracts
from lossary.evaluate import Loss
from lossary.show import curve, facts, page


def lossary(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from lossary.cli import main; main()", *arguments]
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_list_has_one_line_per_loss():
    result = lossary("list")
    assert result.returncode == 0
    assert result.stderr == ""
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        contract.name for contract in contracts()
    ]


def test_list_json_has_the_aliases():
    rows = json.loads(lossary("list", "--json").stdout)
    mse = next(row for row in rows if row["name"] == "squared_error")
    assert "mean_squared_error" in mse["aliases"]


def test_show_finds_a_loss_by_any_of_its_names():
    assert lossary("show", "MSELoss").stdout == lossary("show", "squared_error").stdout
    shown = json.loads(lossary("show", "huber", "--json").stdout)
    assert shown["parameters"]["delta"] == {
        "interval": "(0, inf)",
        "default": 1.0,
        "required": False,
    }


def test_plot_writes_a_picture(tmp_path):
    file = tmp_path / "robust.png"
    result = lossary("plot", "huber:delta=2", "squared_error", "-o", str(file))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(file)
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "hubber"), "did you mean huber"),
        (("plot", "huber:delta=-1", "-o", "x.png"), "delta=-1 is outside (0, inf)"),
        (("plot", "huber:delta", "-o", "x.png"), "write huber:delta=2"),
        (("plot", "huber:delta=__import__('os')", "-o", "x.png"), "are no settings"),
        (("plot", "huber", "cross_entropy", "-o", "x.png"), "no axis in common"),
        (("plot", "huber", "-o", "/nowhere/x.png"), "cannot write"),
        (("plot", "huber", "-o", "x.unknown"), "cannot write"),
        (("show", "--nonsense"), "No such option"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = lossary(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("contract", contracts(), ids=lambda contract: contract.name)
def test_every_loss_has_a_page_and_a_curve(contract):
    text = page(contract)
    assert contract.name in text
    assert contract.formula, "a docstring has a formula"
    assert facts(contract)["text"], "a docstring says when to use the loss"
    assert max(len(line) for line in text.splitlines() if " " in line.strip()) <= 80
    required = {name: (10, 1) for name, item in contract.parameters.items() if item.required}
    _, line, values = curve(Loss(contract.name, **required))
    assert line.shape == values.shape
    assert values.max() > values.min()


def test_the_readme_shows_what_the_doctor_says():
    root = Path(__file__).parent.parent
    result = lossary("doctor", str(root / "examples/broken/01_softmax_twice.npz"))
    said = result.stdout.partition("\nLooked at and fine")[0].strip()
    assert "double-softmax" in said
    assert said in (root / "README.md").read_text()


# Extras hidden as if they were not installed: only what the base depends on is left.
WITHOUT_EXTRAS = """
import sys

EXTRAS = set(
    "torch jax tensorflow keras polars sklearn scipy optuna plotly jinja2 matplotlib safetensors "
    "PIL mpmath hypothesis array_api_strict lightgbm xgboost statsmodels autograd".split()
)

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
from lossary.cli import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        ("plot huber -o x.png", "lab"),
        ("check math:sqrt", "check"),
        ("advise digits", "lab"),
        ("advise table.csv --target y", "lab"),
        ("compare digits --losses cross_entropy", "lab"),
        ("tune digits --loss huber", "lab"),
    ],
)
def test_a_missing_extra_is_one_line_that_says_what_to_install(arguments, extra, tmp_path):
    (tmp_path / "table.csv").write_text("x,y\n1,2\n3,4\n")
    command = [sys.executable, "-c", WITHOUT_EXTRAS, *arguments.split()]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert f"pip install 'lossary[{extra}]'" in result.stderr


@pytest.mark.parametrize(
    "arguments", ["list", "show huber", "explain", "doctor p.npy t.npy --loss cross_entropy"]
)
def test_the_base_alone_is_enough(arguments, tmp_path):
    np.save(tmp_path / "p.npy", np.eye(3, dtype="float32")[[0, 1, 2, 0]])
    np.save(tmp_path / "t.npy", np.array([0, 1, 2, 0]))
    command = [sys.executable, "-c", WITHOUT_EXTRAS, *arguments.split()]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert result.returncode in (0, 1), result.stderr  # 1: the doctor has findings
    assert result.stderr == ""
    assert result.stdout
