"""Files and options that ``lossary doctor`` cannot use end in one line."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest
import safetensors_file

from lossary.doctor.cases import data as d

BROKEN = Path(__file__).parents[2] / "examples" / "broken"

Run = Callable[..., tuple[int, str, str]]


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
        safetensors_file.save(p, "p", d.logits.astype(np.float32), cut=64)
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
