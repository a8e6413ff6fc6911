"""What a comparison leaves in its folder: JSON, the loss per epoch as CSV and as a picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.lab.need import need
from lossary.lab.report import write_report, write_saved_report


def prepare(folder: Path) -> None:
    """Refuse before hours of training what would stop the report after it.

    A LossError for a library that is missing, or a folder that cannot be written.
    """
    for module in ("jinja2", "plotly.graph_objects", "plotly.offline", "matplotlib"):
        need(module)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except FileExistsError:
        raise LossError(f"--output {folder}: is a file; give a folder") from None
    except OSError as error:
        raise LossError(f"--output {folder}: cannot be written: {error}") from None


def write_files(account: dict[str, Any], folder: Path) -> list[Path]:
    """Write report.html, report.json, losses.csv and losses.png, or raise a LossError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = write_report(account, folder / "report.html")
        report = folder / "report.json"
        report.write_text(json.dumps(account, indent=1), encoding="utf-8")
        return [
            page,
            report,
            _curves(account, folder / "losses.csv"),
            _picture(account, folder / "losses.png"),
        ]
    except OSError as error:
        raise LossError(f"--output {folder}: cannot be written: {error}") from None


def write_saved_files(account: dict[str, Any], folder: Path) -> list[Path]:
    """Write predictions.html and predictions.json, or raise a LossError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = write_saved_report(account, folder / "predictions.html")
        report = folder / "predictions.json"
        report.write_text(json.dumps(account, indent=1), encoding="utf-8")
        return [page, report]
    except OSError as error:
        raise LossError(f"--output {folder}: cannot be written: {error}") from None


def _curves(account: dict[str, Any], path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "loss", "seed", "epoch", "training loss", "validation score"])
        for setting, table in account["tables"].items():
            for name, row in table["losses"].items():
                for epoch, (losses, scores) in enumerate(
                    zip(row["loss"], row["score"], strict=True)
                ):
                    for seed, loss, score in zip(row["seeds"], losses, scores, strict=True):
                        writer.writerow([setting, name, seed, epoch + 1, loss, score])
    return path


def _picture(account: dict[str, Any], path: Path) -> Path:
    """Each loss in its own panel: values of different losses are not comparable."""
    need("matplotlib").use("Agg")
    plots, ticks = need("matplotlib.pyplot"), need("matplotlib.ticker")

    class Plain(ticks.LogFormatter):  # type: ignore[misc, name-defined]
        """0.675 where it would be 6.75 x 10^-1: to be read, and drawn in half the time."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    table = next(iter(account["tables"].values()))
    names = table["order"]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, panels = plots.subplots(
        rows, columns, figsize=(3.6 * columns, 2.7 * rows), squeeze=False
    )
    for panel in panels.flat[len(names) :]:
        panel.axis("off")
    for panel, name in zip(panels.flat, names, strict=False):
        curves = np.array(table["losses"][name]["loss"], dtype=float)
        epochs = np.arange(1, len(curves) + 1)
        panel.plot(epochs, curves, color="tab:blue", alpha=0.25, linewidth=0.8)
        panel.plot(epochs, curves.mean(axis=1), color="tab:blue", linewidth=2)
        panel.set_title(name, fontsize=9, parse_math=False)
        panel.set_xlabel("epoch", fontsize=8)
        panel.xaxis.set_major_locator(ticks.MaxNLocator(integer=True))
        if np.nanmin(curves) > 0:
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter(Plain())
            panel.yaxis.set_minor_formatter(Plain())
        panel.tick_params(which="both", labelsize=8)
    figure.suptitle(
        "Training loss per epoch, one line per seed (values of different losses are not "
        "comparable)",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plots.close(figure)
    return path
