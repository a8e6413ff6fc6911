"""``lossary doctor`` and ``lossary explain``: what they say, and how they end."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lossary.doctor.cases import data as d

BROKEN = Path(__file__).parents[2] / "examples" / "broken"

Run = Callable[..., tuple[int, str, str]]


def test_findings_and_exit_codes(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    code, out, _ = run("doctor", *pair, "--loss", "cross_entropy")
    assert code == 1
    assert "double-softmax" in out
    assert "1.461" in out
    np.save(tmp_path / "logits.npy", d.logits)
    code, out, _ = run("doctor", tmp_path / "logits.npy", pair[1], "--loss", "cross_entropy")
    assert code == 0
    assert "No findings" in out
    code, out, _ = run(
        "doctor", *pair, "--loss", "cross_entropy", "--ignore", "double-softmax", "--json"
    )
    told = json.loads(out)
    assert "double-softmax" not in [finding["check"] for finding in told["findings"]]
    code, out, _ = run("doctor", *pair, "--loss", "cross_entropy", "--predictions", "probabilities")
    assert code == 0


def test_notes_only_end_with_zero(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", d.logits)
    np.save(tmp_path / "t.npy", d.classes)
    code, out, _ = run(
        "doctor",
        tmp_path / "p.npy",
        tmp_path / "t.npy",
        "--loss",
        "cross_entropy",
        "--set",
        "label_smoothing=0.1",
    )
    assert code == 0
    assert "minimum is 0.500" in out


def test_broken_examples(run: Run) -> None:
    files = sorted(BROKEN.glob("*.npz"))
    assert len(files) == 10
    code, out, _ = run("doctor", *files, "--json")
    assert code == 1
    told = {
        Path(name).stem: {f["check"] for f in report["findings"]}
        for name, report in json.loads(out).items()
    }
    expected = {
        "01_softmax_twice": "double-softmax",
        "02_column_against_row": "broadcast",
        "03_labels_from_one": "label-range",
        "04_mask_of_255": "target-range",
        "05_classes_last": "class-axis",
        "06_missing_targets": "nan-target",
        "07_hinge_on_zero_one": "domain",
        "08_mean_of_means": "split-invariance",
        "09_outliers": "domination",
        "10_shifted_twice": "label-shift",
    }
    assert told.keys() == expected.keys()
    for name, check in expected.items():
        assert check in told[name]


def test_all_nan_is_a_finding(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.full((64, 10), np.nan))
    np.save(tmp_path / "t.npy", np.arange(64) % 10)
    code, out, _ = run("doctor", tmp_path / "p.npy", tmp_path / "t.npy", "--loss", "cross_entropy")
    assert code == 1
    assert "640 of 640 predictions are NaN" in out
    np.save(tmp_path / "t.npy", np.full(64, np.nan))
    np.save(tmp_path / "p.npy", np.zeros(64))
    code, out, _ = run("doctor", tmp_path / "p.npy", tmp_path / "t.npy", "--loss", "mse")
    assert code == 1
    assert "nan-target" in out


def test_explain(run: Run) -> None:
    code, out, _ = run("explain", "double-softmax")
    assert "Symptom" in out
    code, out, _ = run("explain", "loss", "stuck", "at", "1.461")
    assert out.startswith("double-softmax")
    code, out, _ = run("explain")
    assert len(out.strip().splitlines()) == 52
    code, _, err = run("explain", "qqqq")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
