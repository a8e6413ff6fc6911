"""``lossary doctor`` on files: what it finds, how it ends, and bad input in one line."""

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest

from lossary.cli import main
from lossary.doctor.cases import data as d

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
    ],
)
def test_bad_files_end_in_one_line(run: Run, tmp_path: Path, kind: str) -> None:
    code, out, err = run("doctor", *write(tmp_path, kind), "--loss", "cross_entropy")
    assert code == 2
    assert out == ""
    assert err.startswith("lossary: ")
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


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


def test_a_large_file_stays_on_disk(tmp_path: Path) -> None:
    """The peak of a fresh process stays below one and a half times the inputs."""
    import subprocess

    chance = np.random.default_rng(0)
    np.save(tmp_path / "p.npy", chance.normal(size=(400_000, 100)).astype(np.float32))
    np.save(tmp_path / "t.npy", chance.integers(0, 100, 400_000))
    code = (
        "import resource, sys\n"
        "from lossary.doctor import diagnose\nfrom lossary.doctor.case import Case\nfrom "
        "lossary.doctor.files import load_case\n"
        "base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "report = diagnose(Case.of(**load_case(sys.argv[1], sys.argv[2]), loss='cross_entropy'))\n"
        "assert 'nan-post-mortem' in report.fine, report\n"
        "assert 'torch' not in sys.modules and 'numba' not in sys.modules\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) * 1024)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "p.npy", tmp_path / "t.npy"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    size = (tmp_path / "p.npy").stat().st_size + (tmp_path / "t.npy").stat().st_size
    assert int(out) < 1.5 * size
