"""``lossary doctor`` on files: every kind of them, and what may stand beside predictions."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest
import safetensors_file

from lossary.doctor.cases import data as d
from lossary.doctor.files import load_case, read, read_one

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("kind", ["csv", "parquet", "safetensors", "npz"])
def test_every_kind_of_file(run: Run, tmp_path: Path, kind: str) -> None:
    probabilities = d.softmax(d.logits).astype(np.float32)
    first, second = tmp_path / f"p.{kind}", tmp_path / f"t.{kind}"
    if kind == "csv":
        np.savetxt(first, probabilities, delimiter=",", header=",".join("abcdefghij"), comments="")
        np.savetxt(second, d.classes, fmt="%d", header="class", comments="")
    elif kind == "parquet":
        polars.DataFrame(probabilities).write_parquet(first)
        polars.DataFrame({"class": d.classes}).write_parquet(second)
    elif kind == "npz":
        np.savez(first, a=probabilities)
        np.savez(second, a=d.classes)
    else:
        safetensors_file.save(first, "p", probabilities)
        safetensors_file.save(second, "t", d.classes)
    code, out, err = run("doctor", first, second, "--loss", "cross_entropy")
    assert (code, err) == (1, "")
    assert "double-softmax" in out


def test_one_csv_with_named_columns(run: Run, tmp_path: Path) -> None:
    table = np.stack([d.estimate, d.with_gaps(d.truth)], axis=1)
    np.savetxt(tmp_path / "both.csv", table, delimiter=",", header="prediction,target", comments="")
    code, out, _ = run("doctor", tmp_path / "both.csv", "--loss", "mse")
    assert code == 1
    assert "nan-target" in out


ROWS = len(d.classes)
COMPANIONS = {
    "per row": np.arange(ROWS) % 3 > 0,
    "numbers": (np.arange(ROWS) % 3 > 0).astype(float),
    "a column": np.ones((ROWS, 1), bool),
    "per class": np.ones((ROWS, 10), bool),
    "too short": np.ones(100, bool),
    "another shape": np.ones((3, ROWS), bool),
    "shares": np.linspace(0, 1, ROWS),
    "gaps": np.where(np.arange(ROWS) % 3 > 0, 1.0, np.nan),
    "nothing counts": np.zeros(ROWS, bool),
    "words": np.array(["yes"] * ROWS),
    "empty": np.zeros(0, bool),
}


@pytest.mark.parametrize("kind", COMPANIONS)
@pytest.mark.parametrize(
    ("option", "ends"),
    [
        (
            "--mask",
            {"per row": 0, "numbers": 0, "nothing counts": 1},
        ),
        (
            "--weights",
            {
                "per row": 0,
                "numbers": 0,
                "shares": 0,
                "a column": 1,
                "per class": 1,
                "gaps": 1,
                "nothing counts": 1,
            },
        ),
        (
            "--class-weights",
            {
                "per row": 1,
                "numbers": 1,
                "shares": 1,
                "gaps": 1,
                "nothing counts": 1,
                "too short": 1,
            },
        ),
    ],
)
def test_masks_and_weights(
    run: Run, tmp_path: Path, option: str, ends: dict[str, int], kind: str
) -> None:
    """They are used where they fit, and end in a finding or in one line where they do not."""
    np.save(tmp_path / "p.npy", d.logits)
    np.save(tmp_path / "t.npy", d.classes)
    np.save(tmp_path / "w.npy", COMPANIONS[kind])
    code, out, err = run(
        "doctor", tmp_path / "p.npy", tmp_path / "t.npy", "--loss", "cross_entropy",
        option, tmp_path / "w.npy",
    )  # fmt: skip
    assert code == ends.get(kind, 2), out + err
    assert len(err.splitlines()) == (code == 2)


def test_a_mask_reaches_the_checks(run: Run, tmp_path: Path) -> None:
    gaps = d.with_gaps(d.truth)
    np.save(tmp_path / "p.npy", d.estimate)
    np.save(tmp_path / "t.npy", gaps)
    np.savez(tmp_path / "w.npz", mask=~np.isnan(gaps), other=gaps)
    given = "doctor", tmp_path / "p.npy", tmp_path / "t.npy", "--loss", "mse"
    assert run(*given)[0] == 1
    assert run(*given, "--mask", tmp_path / "w.npz")[0] == 0
    code, _, err = run(*given, "--weights", tmp_path / "w.npz")
    assert (code, "expected one array, or one named weights" in err) == (2, True)
    np.savetxt(
        tmp_path / "w.csv", np.stack([np.arange(len(gaps)), ~np.isnan(gaps)], 1), delimiter=",",
        header="id,mask", comments="",
    )  # fmt: skip
    assert run(*given, "--mask", tmp_path / "w.csv")[0] == 0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("prediction;target\n" + "1.5;2\n" * 64, 0),  # Europe's separator
        (",prediction,target\n" + "7,1.5,2\n" * 64, 0),  # pandas' row numbers
        ("name,prediction,target\n" + "bob,1.5,2\n" * 64, 0),  # words in a column not used
        ('"prediction","target"\r\n' + '"1.5","2"\r\n' * 64, 0),
        ("prediction,target\n" + "1.5,2\n" * 63 + "1.5,\n", 1),  # a gap is a missing target
        ("prediction,target\n" + "1.5,2\n" * 63 + "NA,2\n", 1),
    ],
)
def test_spellings_of_csv(run: Run, tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "both.csv").write_text(text)
    code, out, err = run("doctor", tmp_path / "both.csv", "--loss", "huber")
    assert (code, err) == (count, ""), out + err


def test_names_of_columns_that_pandas_counts(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(",0,1,2\n" + "5,0.1,0.2,0.7\n" * 4)
    np.testing.assert_array_equal(
        read_one(str(tmp_path / "p.csv"), "prediction"), [[0.1, 0.2, 0.7]] * 4
    )
    (tmp_path / "t.csv").write_text("2\n" * 4)
    labels = read_one(str(tmp_path / "t.csv"), "target")
    assert (labels.tolist(), labels.dtype.kind) == ([2] * 4, "i")


def test_parquet_columns_by_role(tmp_path: Path) -> None:
    frame = polars.DataFrame(d.logits, schema=[f"logits_{i}" for i in range(10)])
    frame = frame.with_columns(name=polars.lit("bob"), label=polars.Series(d.classes))
    frame.write_parquet(tmp_path / "both.parquet")
    case = load_case(str(tmp_path / "both.parquet"), None)
    np.testing.assert_array_equal(case["prediction"], d.logits)
    np.testing.assert_array_equal(case["target"], d.classes)
    mixed = {"a": [1, 2, None], "b": [0.5, 1.0, 2.0], "c": [True, False, None], "d": [1, 2, 3]}
    polars.DataFrame(mixed).write_parquet(tmp_path / "mixed.parquet")
    (table,) = read(tmp_path / "mixed.parquet").values()
    nan = np.nan
    np.testing.assert_array_equal(table, [[1, 0.5, 1, 1], [2, 1, 0, 2], [nan, 2, nan, 3]])


PEAK = """
import sys
from lossary.doctor import diagnose
from lossary.doctor.case import Case
from lossary.doctor.files import load_case

def peak():  # of this program alone: ru_maxrss would hold that of the process which started it
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

predictions, targets, arrive = sys.argv[1:]
if targets.endswith("parquet"):
    import polars
before = peak()
options = {"loss": "cross_entropy", "predictions": arrive}
report = diagnose(Case.of(**load_case(predictions, targets), **options))
assert "nan-post-mortem" in report.fine, report
assert "torch" not in sys.modules and "numba" not in sys.modules
print(peak() - before)
"""


@pytest.mark.parametrize(
    ("kind", "arrive"),
    [("npy", "logits"), ("npy", "probabilities"), ("npz", "logits"), ("parquet", "logits")],
)
def test_memory_stays_below_one_and_a_half_times_the_inputs(
    tmp_path: Path, kind: str, arrive: str
) -> None:
    chance = np.random.default_rng(0)  # so large that what every examination takes is little
    classes = chance.integers(0, 100, 700_000)
    scores = chance.random(size=(700_000, 100), dtype=np.float32)
    scores /= scores.sum(axis=1, keepdims=True)
    first, second = tmp_path / f"p.{kind}", tmp_path / f"t.{kind}"
    if kind == "npy":
        np.save(first, scores)
        np.save(second, classes)
    elif kind == "npz":
        np.savez(first, scores)
        np.savez(second, classes)
    else:
        polars.DataFrame(scores).write_parquet(first)
        polars.DataFrame(classes).write_parquet(second)
    out = subprocess.run(
        [sys.executable, "-c", PEAK, first, second, arrive],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert int(out) < 1.5 * (scores.nbytes + classes.nbytes)
