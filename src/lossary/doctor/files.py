"""Predictions and targets from files: nothing is unpickled, and large arrays stay on disk."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.doctor.case import Case
from lossary.doctor.tables import read_csv, read_parquet

# The names of arrays in a file, by the argument of ``examine`` that they are.
ROLES = {
    "prediction": (
        "prediction",
        "predictions",
        "pred",
        "preds",
        "logits",
        "y_pred",
        "output",
        "outputs",
    ),
    "target": ("target", "targets", "label", "labels", "y", "y_true"),
    "mask": ("mask", "masks"),
    "weights": ("weights", "weight", "sample_weights", "sample_weight"),
    "class_weights": ("class_weights", "class_weight"),
}
_NAMED = tuple(name for names in ROLES.values() for name in names)
_CONTENTS = {
    b"\x93NUMPY": "a .npy file",
    b"PK\x03\x04": "a zip archive, as .npz files are",
    b"PAR1": "a .parquet file",
    b"\x80": "a Python pickle, and nothing is ever unpickled",
}


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; a single array is named ``""``. Errors: LossError."""
    path = Path(path)
    if not path.exists():
        raise LossError(f"{path}: no such file")
    if path.is_dir():
        raise LossError(f"{path}: is a directory; give one file ({', '.join(_READERS)})")
    if not path.stat().st_size:
        raise LossError(f"{path}: the file is empty")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise LossError(
            f"{path}: the extension {path.suffix or '(none)'} is not known; save the array as one "
            f"of {', '.join(_READERS)}, for example with numpy.save"
        )
    try:
        return reader(path)
    except LossError:
        raise
    except Exception as error:  # whatever a reader says about foreign bytes is one line
        raise LossError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: Exception) -> str:
    if "pickle" in str(error) or "Object arrays" in str(error) or "Python objects" in str(error):
        return f"{path}: holds pickled Python objects, which are never loaded; save a plain array"
    with path.open("rb") as file:
        start = file.read(8)
    kind = next((kind for magic, kind in _CONTENTS.items() if start.startswith(magic)), "")
    if kind and path.suffix not in kind:
        return f"{path}: is no readable {path.suffix} file: it looks like {kind}"
    if "mmap length" in str(error):
        return f"{path}: is truncated: shorter than its header says"
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{path}: is no readable {path.suffix} file ({first[:160]})"


def _npy(path: Path) -> dict[str, np.ndarray]:
    return {"": np.lib.format.open_memmap(path, mode="r")}


def _npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays that are stored as they are stay on disk; compressed ones are read."""
    with zipfile.ZipFile(path) as archive:
        return {
            member.filename.removesuffix(".npy"): _member(path, archive, member)
            for member in archive.infolist()
        }


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
        if member.compress_type != zipfile.ZIP_STORED or header is None:
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
        shape, fortran, dtype = header(file)
        before = file.tell()
    if dtype.hasobject:
        raise ValueError("Object arrays")
    if not math.prod(shape) or dtype.kind not in "biufc":
        return np.load(path, allow_pickle=False)[member.filename.removesuffix(".npy")]
    # A member's own header: 30 bytes, its name and an extra field, each as long as it says.
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        lengths = file.read(4)
    start = member.header_offset + 30 + before
    start += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    if start + math.prod(shape) * dtype.itemsize > path.stat().st_size:
        raise LossError(f"{path}: is truncated: {member.filename!r} ends beyond the file")
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")


def _csv(path: Path) -> dict[str, np.ndarray]:
    return read_csv(path, _NAMED)


def _parquet(path: Path) -> dict[str, np.ndarray]:
    return read_parquet(path, _NAMED)


_SAFE = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "BOOL": "?",
}


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    """The format is a length, a JSON header and raw numbers: read without its library, on disk."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise LossError(f"{path}: is truncated or no safetensors file")
        header = json.loads(file.read(length))
    return {
        name: _tensor(path, name, entry, 8 + length)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _tensor(path: Path, name: str, entry: Mapping[str, Any], data: int) -> np.ndarray:
    start, stop = (data + offset for offset in entry["data_offsets"])
    shape = tuple(entry["shape"])
    if stop > path.stat().st_size:
        raise LossError(f"{path}: is truncated: {name!r} ends beyond the file")
    brain = entry["dtype"] == "BF16"
    if not brain and entry["dtype"] not in _SAFE:
        raise LossError(f"{path}: {name!r} has dtype {entry['dtype']}, which is not supported")
    dtype = np.dtype("<u2" if brain else _SAFE[entry["dtype"]])
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise LossError(f"{path}: {name!r} of shape {shape} does not fill its {stop - start} bytes")
    if start == stop:
        return np.empty(shape, dtype)
    array = np.memmap(path, dtype, "r", start, shape)
    return (array.astype(np.uint32) << 16).view(np.float32) if brain else array


_READERS = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": _csv,
    ".parquet": _parquet,
    ".safetensors": _safetensors,
}


def read_one(path: str, role: str) -> np.ndarray:
    """The array of a file that has this role, an argument of ``examine``."""
    return _one(read(path), role, path)


def _one(arrays: Mapping[str, np.ndarray], role: str, path: str) -> np.ndarray:
    named = [name for name in arrays if len(arrays) == 1 or name.lower() in ROLES[role]]
    if len(named) == 1:
        return _as_labels(arrays[named[0]], role, path)
    raise LossError(f"{path}: {_held(arrays)}; expected one array, or one named {role}")


def _as_labels(array: np.ndarray, role: str, path: str) -> np.ndarray:
    """Whole numbers of a text file are class numbers where they are targets."""
    if role != "target" or not path.lower().endswith(".csv"):
        return array
    whole = True
    for part in (array[:1000], array):  # most arrays tell at once
        whole = whole and bool((np.abs(part) < 2**53).all()) and not (part != np.rint(part)).any()
    return array.astype(np.int64) if whole else array


def _held(arrays: Mapping[str, np.ndarray]) -> str:
    listed = ", ".join(name or "one without a name" for name in list(arrays)[:5])
    more = " ..." if len(arrays) > 5 else ""
    return f"holds {len(arrays)} arrays: {listed}{more}" if arrays else "holds no array"


def load_case(predictions: str, targets: str | None) -> dict[str, Any]:
    """What ``examine`` takes, from one or two files; names are those of its arguments."""
    if targets is None:
        return _named(read(predictions), predictions)
    prediction, target = read_one(predictions, "prediction"), read_one(targets, "target")
    same_rows(prediction, predictions, target, targets)
    return {"prediction": prediction, "target": target}


def same_rows(one: np.ndarray, path: str, other: np.ndarray, other_path: str) -> None:
    """Raise a LossError where two files hold unlike numbers of rows."""
    if one.ndim and other.ndim and len(one) != len(other):
        raise LossError(
            f"{path} has {len(one):,} rows and {other_path} {len(other):,}; they must be the same "
            "rows"
        )


def is_case(path: str) -> bool:
    """Whether a file holds predictions and targets, and not one of them."""
    if Path(path).suffix.lower() not in (".npz", ".safetensors"):
        return False
    names = {name.lower() for name in read(path)}
    return bool(names & set(ROLES["prediction"])) and bool(names & set(ROLES["target"]))


_SERIES = (
    "counts",
    "lengths",
    "target_lengths",
    "gradient",
    "hessian",
    "history",
    "validation_history",
    "metric_history",
    "variance",
    "shape",
)
_TEXT = (
    "loss",
    "predictions",
    "arguments",
    "reference",
    "combine",
    "gather",
    "metric_goal",
    "dtype",
    "explanation",
)


def _named(arrays: Mapping[str, np.ndarray], path: str) -> dict[str, Any]:
    """A whole case in one file: arrays and settings by the names of ``examine``'s arguments."""
    if len(arrays) == 1 and _role("".join(arrays)) not in ROLES:
        raise LossError(f"{path}: holds one array; give the targets as a second file")
    case: dict[str, Any] = {}
    known = {item.name for item in fields(Case)}
    for name, array in arrays.items():
        role = _role(name)
        if name == "explanation":
            continue
        if role not in known and not name.startswith(("parameter ", "term ")):
            raise LossError(
                f"{path}: {_held(arrays)}; name them as examine does: prediction, target, weights, "
                f"mask ... ({name!r} is no argument of examine)"
            )
        if role in case:
            raise LossError(f"{path}: holds the {role} twice, once as {name!r}")
        if array.dtype.kind == "U":
            if name not in _TEXT:
                raise LossError(f"{path}: {name!r} holds text; encode it as numbers first")
            case[name] = str(array)
        elif name.startswith("parameter "):
            case.setdefault("parameters", {})[name.removeprefix("parameter ")] = _number(
                array, name, path
            )
        elif name.startswith("term "):
            value, slope = np.split(array.reshape(-1), [1])
            value = _number(value, name, path)
            case.setdefault("terms", {})[name.removeprefix("term ")] = (
                (value, slope) if slope.size else value
            )
        elif role in ROLES:
            case[role] = _as_labels(array, role, path)
        else:
            case[role] = array if role in _SERIES else _number(array, role, path)
    return case


def _number(array: np.ndarray, name: str, path: str) -> Any:
    if array.size != 1:
        raise LossError(f"{path}: {name!r} has shape {array.shape}; expected one number")
    return array.item()


def _role(name: str) -> str:
    """The argument of ``examine`` that an array of this name is."""
    return next((role for role, names in ROLES.items() if name.lower() in names), name)
