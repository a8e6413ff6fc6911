"""Columns of CSV and Parquet files as arrays, some rows or columns at a time."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from lossary.contract import LossError

ROWS_AT_ONCE = 16_384
COLUMNS_AT_ONCE = 4
_ROW_NUMBERS = ("", "id", "index", "__index_level_0__")  # columns that number the rows
_GAPS = ("", "na", "n/a", "null", "none")
_WORDS = {"true": 1.0, "false": 0.0}


def columns_of(names: Sequence[str], roles: Sequence[str]) -> dict[str, list[int]]:
    """Which columns to read: those named by roles (``logits_0``, ``logits_1`` ... are one array of
    several columns), else all of them as the array ``""``, without a first one of row numbers."""
    found: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        base = re.sub(r"[_. ]?\d+$", "", name)
        if base.lower() in roles:
            found.setdefault(base, []).append(position)
    first = 1 if len(names) > 1 and names[0].lower() in _ROW_NUMBERS and any(names) else 0
    return found or {"": list(range(first, len(names)))}


def read_csv(path: Path, roles: Sequence[str]) -> dict[str, np.ndarray]:
    """Numbers between commas, semicolons or tabs, with or without a line of names above them."""
    with path.open("rb") as raw:
        lines = 1 + sum(part.count(b"\n") for part in iter(lambda: raw.read(2**20), b""))
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline().removeprefix("# ")
        separator = max(",;\t", key=head.count)
        names = [name.strip() for name in next(csv.reader([head], delimiter=separator), [])]
        if not any(names):
            raise LossError(f"{path}: its first line is empty; expected names or numbers")
        if all(_is_number(name) for name in names) and not _counts_up(names):
            file.seek(0)
            names = [""] * len(names)
        chosen = columns_of(names, roles)
        used = [position for positions in chosen.values() for position in positions]
        table = np.empty((lines, len(used)))
        rows = 0
        for block in _blocks(path, file, separator, names, used):
            table[rows : rows + len(block)] = block
            rows += len(block)
    if not rows:
        raise LossError(f"{path}: has no rows of numbers")
    return _arrays(chosen, table[:rows])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.lower() in _GAPS
    return True


def _counts_up(names: Sequence[str]) -> bool:
    """Whether these are the names 0, 1, 2 ... that pandas gives to columns without names."""
    counted = names[1:] if names[0] == "" else names
    return len(counted) > 1 and list(counted) == [str(i) for i in range(len(counted))]


def _blocks(
    path: Path, file: TextIO, separator: str, names: Sequence[str], used: Sequence[int]
) -> Iterator[np.ndarray]:
    """The used columns in float64. NumPy reads numbers fast; rows with gaps are read by hand."""
    above = 0
    while lines := list(itertools.islice(file, ROWS_AT_ONCE)):
        if any(line.strip() for line in lines):
            try:
                yield np.loadtxt(
                    lines, delimiter=separator, comments=None, usecols=used, ndmin=2, quotechar='"'
                )
            except ValueError:
                rows = enumerate(csv.reader(lines, delimiter=separator), above + 1)
                filled = [_row(path, number, row, names, used) for number, row in rows if row]
                yield np.array(filled)
        above += len(lines)


def _row(
    path: Path, number: int, row: Sequence[str], names: Sequence[str], used: Sequence[int]
) -> list[float]:
    if len(row) != len(names):
        raise LossError(
            f"{path}: data row {number} has {len(row)} entries and the first line {len(names)}"
        )
    found = []
    for position in used:
        text = row[position].strip().lower()
        if not _is_number(text) and text not in _WORDS:
            column = repr(names[position]) if names[position] else str(position)
            raise LossError(
                f"{path}: data row {number}, column {column} holds {row[position][:40]!r}; "
                "encode it as numbers first"
            )
        found.append(np.nan if text in _GAPS else _WORDS[text] if text in _WORDS else float(text))
    return found


def _arrays(chosen: Mapping[str, list[int]], table: np.ndarray) -> dict[str, np.ndarray]:
    found, start = {}, 0
    for name, positions in chosen.items():
        part = table[:, start : start + len(positions)]
        start += len(positions)
        found[name] = part[:, 0] if len(positions) == 1 else part
    return found


def read_parquet(path: Path, roles: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of numbers; a few at a time, so that memory holds the table once."""
    try:
        import polars
    except ImportError:
        raise LossError(
            f"{path}: Parquet needs polars; install it with: pip install 'lossary[lab]'"
        ) from None
    schema = polars.read_parquet_schema(path)
    names = list(schema)
    chosen = columns_of(names, roles)
    for position in itertools.chain(*chosen.values()):
        kind = schema[names[position]]
        if kind.is_nested():
            raise LossError(
                f"{path}: column {names[position]!r} holds {kind}; save one column per number, or "
                "the array as .npy"
            )
        if not (kind.is_numeric() or kind == polars.Boolean):
            raise LossError(
                f"{path}: column {names[position]!r} is {kind}, not numeric; encode it as numbers "
                "first"
            )
    rows = polars.scan_parquet(path).select(polars.len()).collect().item()
    if not rows:
        raise LossError(f"{path}: has no rows")
    return {
        name: _columns(path, [names[position] for position in positions], rows)
        for name, positions in chosen.items()
    }


def _columns(path: Path, names: Sequence[str], rows: int) -> np.ndarray:
    import polars

    table: Any = None
    for start in range(0, len(names), COLUMNS_AT_ONCE):
        frame = polars.read_parquet(path, columns=list(names[start : start + COLUMNS_AT_ONCE]))
        for position, column in enumerate(frame.get_columns(), start):
            if not column.dtype.is_float() and (column.null_count() or column.dtype.is_decimal()):
                column = column.cast(polars.Float64)  # NaN for what is missing
            values = column.to_numpy()
            if len(names) == 1:
                return values
            if table is None:  # column after column, as the file is
                table = np.empty((rows, len(names)), values.dtype, order="F")
            elif not np.can_cast(values.dtype, table.dtype, "safe"):
                table = table.astype(np.result_type(values, table), order="F")
            table[:, position] = values
    return np.asarray(table)
