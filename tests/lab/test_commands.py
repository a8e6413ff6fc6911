"""The commands as a user runs them: data on stdout, the rest on stderr, one line for bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lossary.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"


def started(*arguments, folder):
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "from lossary.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=280,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def lossary(tmp_path, monkeypatch, capsys):
    """The command in this process, which has loaded its libraries: what it prints."""

    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["lossary", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
        return capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    return run


def test_compare_on_the_weather(tmp_path, lossary):
    arguments = (
        "compare", EXAMPLES / "seattle-weather.csv", "--target", "rain", "--losses",
        "binary_cross_entropy,squared_error,hinge", "--seeds", "2", "--epochs", "3", "--json",
    )  # fmt: skip
    account = json.loads(started(*arguments, "--workers", "2", folder=tmp_path))
    assert account["data"]["rows"] == 1461
    assert account["data"]["task"] == "binary"
    losses = account["tables"]["as is"]["losses"]
    assert losses["hinge"]["head"]["prediction"] == {
        "units": 1,
        "activation": "linear",
        "space": "margin",
    }
    assert losses["hinge"]["best"]["log loss"] == [None, None]
    assert min(losses["binary_cross_entropy"]["best"]["accuracy"]) > 0.6
    assert account["command"].startswith("lossary compare")
    files = {path.name for path in (tmp_path / "lossary-report").iterdir()}
    assert {"report.html", "report.json", "losses.csv", "losses.png", "study.db"} <= files
    # Another process finds every cell in the study, and gives the same numbers.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lossary.lab.run.run_cell", None)
        again = json.loads(lossary(*arguments).out)
    assert again["tables"] == account["tables"]


def test_compare_shows_a_table_and_takes_the_advised_losses(lossary):
    done = lossary("compare", "wine", "--seeds", "2", "--epochs", "3")
    assert "cross_entropy" in done.out
    assert "constant: share of each class" in done.out
    assert "not comparable" in done.out
    assert "report: " in done.err


def test_advise_names_losses_with_reasons(lossary):
    where = EXAMPLES / "seattle-weather.csv"
    text = lossary("advise", where, "--target", "rain").out
    assert "1. binary_cross_entropy" in text
    assert "calibrated probabilities" in text
    arguments = ("advise", where, "--target", "temp_max", "--for", "quantile=0.9", "--json")
    found = json.loads(lossary(*arguments).out)
    assert found["candidates"][0]["parameters"] == {"quantile": 0.9}


def test_tune_tries_settings_and_goes_on_where_it_stopped(lossary):
    arguments = (
        "tune", "wine", "--loss", "categorical_focal", "--seeds", "3", "--epochs", "3", "--json",
    )  # fmt: skip
    one = json.loads(lossary(*arguments, "--trials", "2").out)
    two = json.loads(lossary(*arguments, "--trials", "3").out)
    assert len(one["trials"]) == 2
    assert len(two["trials"]) == 3
    assert all(trial in two["trials"] for trial in one["trials"])
    assert {"gamma": 2.0} in [parameters for parameters, _ in one["trials"]]
    assert set(two["test"]) == {"start", "tuned"}


def test_saved_predictions_are_judged_without_training(tmp_path, lossary):
    table = tmp_path / "saved.csv"
    rows = "".join(f"{k % 2},{0.1 + 0.8 * (k % 2) - 0.001 * k:.3f}\n" for k in range(60))
    table.write_text("y,p\n" + rows)
    done = lossary(
        "compare", table, "--target", "y", "--predictions", "p", "--losses",
        "binary_cross_entropy,binary_focal,hinge", "--json",
    )  # fmt: skip
    account = json.loads(done.out)
    assert account["metrics"]["accuracy"] == [1.0]
    rows = account["losses"]
    assert rows["binary_focal"]["value"] < rows["binary_cross_entropy"]["value"]
    table.write_text("y,p\n" + "1,2.5\n0,-1\n" * 20)
    bad = lossary("compare", table, "--target", "y", "--predictions", "p", code=2)
    assert "expected probabilities from 0 to 1" in bad.err


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("compare", "digits", "--losses", "cros_entropy"), "did you mean"),
        (("compare", "digits", "--losses", "gaussian_nll"), "does not fit the classes target"),
        (("compare", "nothing.csv", "--target", "y", "--losses", "mse"), "no such file"),
        (("compare", "digits", "--losses", "mse", "--metric", "RMSE"), "it can be accuracy"),
        (("compare", "digits", "--losses", "mse", "--noise", "2"), "between 0 and 1"),
        (("compare", "digits", "--losses", ","), "losses: none is named"),
        (("compare", "digits", "--losses", "mse", "--outliers", "0.1"), "outliers: does not apply"),
        (("compare", "digits", "--seeds", "0"), "'--seeds': Input should be greater than or equal"),
        (("compare", "digits", "--epochs", "-1"), "'--epochs': Input should be greater"),
        (("compare", "digits", "--rate", "-1"), "rate=-1.0: give a learning rate above 0"),
        (("compare", "digits", "--rate", "nan"), "rate=nan: give a learning rate above 0"),
        (("compare", "digits", "--nonsense"), "No such option: --nonsense"),
        (("compare",), "Missing argument 'data'; "),
        (("compare", "digits", "--output", "/dev/null"), "--output /dev/null: is a file"),
        (("compare", "digits", "--output", "/proc/x"), "--output /proc/x: cannot be written"),
        (("compare", "digits", "--losses", "mse", "--model", "json"), "json: names no factory"),
        (("compare", "digits", "--losses", "mse", "--noise", "much"), "expected shares"),
        (("compare", "digits", "--losses", "mse", "--model", "nowhere:build"), "expected package"),
        (("compare", "digits", "--losses", "mse", "--storage", "/proc/no/study.db"), "storage"),
        (("advise", "digits", "--for", "speed"), "it can be mean"),
        (("tune", "diabetes", "--loss", "absolute_error"), "nothing to tune"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(tmp_path, monkeypatch, capsys, arguments, pattern):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lossary", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert pattern in shown.err
    assert shown.out == ""
    assert not list(tmp_path.rglob("study.db"))
    assert len(shown.err.strip().splitlines()) == 1


def test_a_missing_plotting_library_is_noticed_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    monkeypatch.setattr(sys, "argv", ["lossary", "compare", "digits"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "lossary: the lab needs plotly: pip install 'lossary[lab]'\n"
    )
    assert list(tmp_path.iterdir()) == []
