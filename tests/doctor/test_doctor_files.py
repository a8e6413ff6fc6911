"""``lossary doctor`` on files: what it finds, how it ends, and bad input in one line."""

import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest

from lossary.cli import main
from lossary.doctor.cases import data as d
from lossary.doctor.files import load_case, read, read_one

BROKEN = Path(__file__).parents[2] / "examples" / "broken"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lossary", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return command


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    np.save(tmp_path / "p.npy", d.softmax(d.logits).astype(np.float32))
    np.save(tmp_path / "t.npy", d.classes)
    return tmp_path / "p.npy", tmp_path / "t.npy"


def save_safetensors(path: Path, name: str, array: np.ndarray, cut: int = 0) -> None:
    kind = {"float32": "F32", "int64": "I64"}[array.dtype.name]
    entry = {name: {"dtype": kind, "shape": list(array.shape), "data_offsets": [0, array.nbytes]}}
    header = json.dumps(entry).encode()
    raw = struct.pack("<Q", len(header)) + header + array.tobytes()
    path.write_bytes(raw[: len(raw) - cut])


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
        save_safetensors(first, "p", probabilities)
        save_safetensors(second, "t", d.classes)
    code, out, err = run("doctor", first, second, "--loss", "cross_entropy")
    assert (code, err) == (1, "")
    assert "double-softmax" in out


def test_one_csv_with_named_columns(run: Run, tmp_path: Path) -> None:
    table = np.stack([d.estimate, d.with_gaps(d.truth)], axis=1)
    np.savetxt(tmp_path / "both.csv", table, delimiter=",", header="prediction,target", comments="")
    code, out, _ = run("doctor", tmp_path / "both.csv", "--loss", "mse")
    assert code == 1
    assert "nan-target" in out


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


def write(path: Path, kind: str) -> tuple[Path, Path]:
    """Files that cannot be examined."""
    p, t = path / "p.npy", path / "t.npy"
    np.save(p, d.logits)
    np.save(t, d.classes)
    if kind == "missing":
        p.unlink()
    elif kind == "truncated":
        p.write_bytes(p.read_bytes()[:500])
    elif kind == "empty file":
        p.write_bytes(b"")
    elif kind == "unequal":
        np.save(t, d.classes[:100])
    elif kind == "objects":
        np.save(t, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    elif kind == "text":
        np.save(t, np.array(["cat"] * 256))
    elif kind == "no rows":
        np.save(p, d.logits[:0])
        np.save(t, d.classes[:0])
    elif kind == "extension":
        p.rename(path / "p.pkl")
        p = path / "p.pkl"
    elif kind == "not numpy":
        p.write_text("hello")
    elif kind == "directory":
        p = path
    elif kind == "truncated safetensors":
        p = path / "p.safetensors"
        save_safetensors(p, "p", d.logits.astype(np.float32), cut=64)
    elif kind == "csv of words":
        p = path / "p.csv"
        p.write_text("a,b\nred,green\n")
    elif kind == "broken parquet":
        p = path / "p.parquet"
        p.write_bytes(b"PAR1 nothing")
    elif kind == "broken npz":
        p = path / "p.npz"
        p.write_bytes(b"PK\x03\x04 nothing")
    elif kind == "complex":
        np.save(p, d.logits.astype(complex))
    elif kind == "pickle called npy":
        p.write_bytes(pickle.dumps(d.logits.tolist()))
    elif kind == "archive called npy":
        np.savez(path / "p.npz", d.logits)
        (path / "p.npz").rename(p)
    elif kind == "damaged npz":
        p = path / "p.npz"
        np.savez_compressed(p, p=d.logits)
        p.write_bytes(p.read_bytes()[:200] + bytes(200) + p.read_bytes()[400:])
    elif kind == "objects in npz":
        p = path / "p.npz"
        np.savez(p, p=np.array([{}], dtype=object))
    elif kind == "csv with a word":
        p = path / "p.csv"
        p.write_text("a,b\n" + "1,2\n" * 40 + "1,abc\n")
    elif kind == "ragged csv":
        p = path / "p.csv"
        p.write_text("a,b\n1,2\n3\n")
    elif kind == "csv of names alone":
        p = path / "p.csv"
        p.write_text("a,b\n")
    elif kind == "lists in parquet":
        p = path / "p.parquet"
        polars.DataFrame({"logits": d.logits.tolist()}).write_parquet(p)
    elif kind == "many tensors":
        p = path / "p.safetensors"
        header = {f"layer{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                  for i in range(99)}  # fmt: skip
        text = json.dumps(header).encode()
        p.write_bytes(struct.pack("<Q", len(text)) + text)
    elif kind == "a list in safetensors":
        p = path / "p.safetensors"
        p.write_bytes(struct.pack("<Q", 2) + b"[]")
    return p, t


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "truncated",
        "empty file",
        "unequal",
        "objects",
        "text",
        "no rows",
        "extension",
        "not numpy",
        "directory",
        "truncated safetensors",
        "csv of words",
        "broken parquet",
        "broken npz",
        "complex",
        "pickle called npy",
        "archive called npy",
        "damaged npz",
        "objects in npz",
        "csv with a word",
        "ragged csv",
        "csv of names alone",
        "lists in parquet",
        "many tensors",
        "a list in safetensors",
    ],
)
def test_bad_files_end_in_one_line(run: Run, tmp_path: Path, kind: str) -> None:
    code, out, err = run("doctor", *write(tmp_path, kind), "--loss", "cross_entropy")
    assert code == 2
    assert out == ""
    assert err.startswith("lossary: ")
    assert len(err.strip().splitlines()) == 1
    assert len(err) < 400
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"a": d.logits, "b": d.classes}, "name them as examine does"),
        ({"prediction": d.logits, "target": d.classes, "batch_size": np.ones(2)}, "one number"),
        ({"prediction": d.logits, "target": d.classes, "parameter delta": np.ones(2)}, "one num"),
        ({"logits": d.logits, "output": d.logits, "target": d.classes}, "twice"),
        ({"prediction": d.logits, "target": d.classes, "batch_size": 0}, "batch_size=0"),
        ({"prediction": d.logits, "target": d.classes, "axis": 5}, "axis=5"),
        ({"a": d.logits}, "second file"),
    ],
)
def test_a_case_in_one_file_is_checked(
    run: Run, tmp_path: Path, arrays: dict[str, np.ndarray], word: str
) -> None:
    np.savez(tmp_path / "case.npz", **arrays)  # type: ignore[arg-type]
    code, _, err = run("doctor", tmp_path / "case.npz", "--loss", "cross_entropy")
    assert (code, word in err, len(err.splitlines())) == (2, True, 1), err


def test_one_bad_file_among_many(run: Run, tmp_path: Path) -> None:
    """The others are examined all the same."""
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    files = BROKEN / "01_softmax_twice.npz", tmp_path / "bad.npz", BROKEN / "09_outliers.npz"
    code, out, err = run("doctor", *files)
    assert code == 2
    assert "double-softmax" in out
    assert "domination" in out
    assert len(err.splitlines()) == 1
    told = json.loads(run("doctor", *files, "--json")[1])
    assert [next(iter(item)) for item in told.values()] == ["about", "error", "about"]


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


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--loss", "crossentropi"], "cross_entropy"),
        (["--loss", "cross_entropy", "--ignore", "no-such-check"], "no-such-check"),
        (["--loss", "cross_entropy", "--set", "label_smoothing"], "name=value"),
        (["--loss", "cross_entropy", "--set", "label_smoothing=7"], "label_smoothing"),
        (["--loss", "cross_entropy", "--predictions", "odds"], "odds"),
    ],
)
def test_bad_options_end_in_one_line(
    run: Run, pair: tuple[Path, Path], options: list[str], word: str
) -> None:
    code, _, err = run("doctor", *pair, *options)
    assert code == 2
    assert word in err
    assert len(err.strip().splitlines()) == 1


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
