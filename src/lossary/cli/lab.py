"""``lossary compare``, ``tune`` and ``advise``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from lossary.cli import app, columns, say
from lossary.contract import LossError
from lossary.lines import broken

DATA = (
    "CSV, Parquet, Arrow or .npz file, an image folder, or digits, diabetes, breast-cancer, wine."
)

USE = "mean, median, quantile=0.9, probability, ranking, or cost=[[0,1],[5,0]] (truth, decision)."


@app.command()
def compare(
    data: str = typer.Argument(help=DATA),
    target: str | None = typer.Option(None, help="The column to predict."),
    losses: str | None = typer.Option(
        None, help="Losses with commas between; huber:delta=2 sets a parameter."
    ),
    seeds: int = typer.Option(5, min=1, help="Splits, initial weights and batch orders per loss."),
    output: Path = typer.Option(
        Path("lossary-report"), "--output", "-o", help="Folder of the report."
    ),
    use: str | None = typer.Option(None, "--for", help=USE),
    metric: str | None = typer.Option(None, help="What ranks; by default RMSE or accuracy."),
    task: str | None = typer.Option(
        None, help="real, count, binary or classes; inferred if left out."
    ),
    epochs: int | None = typer.Option(None, min=1, help="By default 60."),
    rate: float | None = typer.Option(
        None, help="One learning rate for all, instead of a search for each."
    ),
    model: str | None = typer.Option(
        None, help="Your own network: package.module:build, build(inputs, outputs)."
    ),
    noise: str = typer.Option("", help="Shares of wrong training labels to try as well: 0.2,0.4"),
    outliers: str = typer.Option("", help="Shares of training targets moved far out: 0.1"),
    imbalance: str = typer.Option("", help="Rarest over commonest class in training: 0.05"),
    sweep: bool = typer.Option(False, help="Try other values of each loss's parameters."),
    predictions: str | None = typer.Option(
        None, help="Columns of a saved model's predictions: judge losses on them without training."
    ),
    drop_missing: bool = typer.Option(False, help="Go on without rows that have missing values."),
    storage: str | None = typer.Option(
        None, help="Any Optuna storage; by default study.db in the output folder."
    ),
    join: bool = typer.Option(False, help="Work on a study that another process reports on."),
    workers: int = typer.Option(1, min=1, help="Processes that share the work."),
    as_json: bool = typer.Option(False, "--json", help="JSON on stdout."),
) -> None:
    """Train networks on your data under several losses, and show what each loss did."""
    _quiet_threads()
    from lossary.advice.use import parse_use
    from lossary.lab import data as lab_data
    from lossary.lab.choose import split_names
    from lossary.lab.files import prepare
    from lossary.lab.run import Settings, run
    from lossary.lab.study import without_password

    if predictions:
        _without_training(Path(data), target, predictions, losses, task, output, as_json)
        return
    settings = Settings(
        seeds=seeds,
        metric=metric,
        epochs=epochs,
        rate=rate,
        model=model,
        noise=_shares("--noise", noise),
        outliers=_shares("--outliers", outliers),
        imbalance=_shares("--imbalance", imbalance),
        sweep=sweep,
    )
    if not join:
        prepare(output)
    with _helpers(workers - 1):  # now, so that all load libraries and data side by side
        loaded = lab_data.read(data, target, task=task, drop_missing=drop_missing)
        for remark in loaded.notes:
            say(f"{loaded.name}: {remark}", 4, aside=True)
        names = split_names(losses) if losses else _advised(loaded.target, use)
        if use and not metric:
            metric = parse_use(use, loaded.target).metric(loaded.target)
            settings = replace(settings, metric=metric)
        place = storage or output / "study.db"
        with _progress() as note:
            account = run(loaded, names, settings, storage=place, note=note, join=join)
    if join:
        return
    account["command"] = without_password("lossary " + " ".join(sys.argv[1:]))
    _report(account, output, as_json)


def _without_training(
    path: Path,
    target: str | None,
    predictions: str,
    losses: str | None,
    task: str | None,
    output: Path,
    as_json: bool,
) -> None:
    """Losses on saved predictions: value, gradient scale and shares, curves; in seconds."""
    from lossary.advice import describe
    from lossary.lab.choose import split_names
    from lossary.lab.files import prepare, write_saved_files
    from lossary.lab.saved import judge_saved
    from lossary.lab.study import without_password
    from lossary.lab.table import read_columns
    from lossary.lab.terminal import show_saved

    prepare(output)
    values, columns = read_columns(path, target, predictions.split(","))
    described = describe(values, name=target or "target", task=task)
    names = split_names(losses) if losses else _advised(described, None)
    account = judge_saved(described, columns, names)
    account["command"] = without_password("lossary " + " ".join(sys.argv[1:]))
    files = write_saved_files(account, output)
    if as_json:
        print(json.dumps(account))
    else:
        show_saved(account)
    say(f"report: {' '.join(map(str, files))}", 8, aside=True)


def _report(account: dict[str, Any], output: Path, as_json: bool) -> None:
    from lossary.lab.files import write_files
    from lossary.lab.terminal import show

    files = write_files(account, output)
    if as_json:
        print(json.dumps(account))
    else:
        show(account)
    say(f"report: {' '.join(map(str, files))}", 8, aside=True)


def _advised(target: Any, use: str | None) -> list[str]:
    """The advised losses, and the usual default of the task where it is not among them."""
    from lossary.advice import advise as recommend

    names = [candidate.text for candidate in recommend(target, use=use).candidates]
    for candidate in recommend(target).candidates[:1]:
        if candidate.text not in names:
            names.append(candidate.text)
    return names


@app.command()
def advise(
    data: str = typer.Argument(help=DATA),
    target: str | None = typer.Option(None, help="The column to predict."),
    use: str | None = typer.Option(None, "--for", help=USE),
    task: str | None = typer.Option(
        None, help="real, count, binary or classes; inferred if left out."
    ),
    drop_missing: bool = typer.Option(False, help="Go on without rows that have missing values."),
    as_json: bool = typer.Option(False, "--json", help="JSON on stdout."),
) -> None:
    """Name two or three losses that fit a target, and why, from the target alone."""
    from lossary.advice import advise as recommend
    from lossary.lab.data import read

    found = recommend(read(data, target, task=task, drop_missing=drop_missing).target, use=use)
    if as_json:
        print(json.dumps(found.plain()))
        return
    say(f"{found.target}: {found.task}, for {found.use}", 4)
    seen = ", ".join(f"{name} {value:.4g}" for name, value in found.seen.items())
    say(f"seen: {seen}", 6)
    for note in found.notes:
        say(f"note: {note}", 6)
    width = columns(sys.stdout) or sys.maxsize  # in a pipe, a line each
    for place, candidate in enumerate(found.candidates, 1):
        print(f"\n{place}. {candidate.text}")
        for what in ("why", "estimates", "head", "calibration"):
            say(f"   {what + ':':<12} {getattr(candidate, what)}", 16)
        for framework, call in candidate.calls.items():
            print(f"   {framework + ':':<12} {broken(call, 16, width)}")


@app.command()
def tune(
    data: str = typer.Argument(help=DATA),
    target: str | None = typer.Option(None, help="The column to predict."),
    loss: str = typer.Option(..., help="One loss; huber:delta=2 sets where the search starts."),
    trials: int = typer.Option(
        20, min=1, help="Settings to try, those of an earlier run included."
    ),
    seeds: int = typer.Option(10, min=1, help="Seeds of the final comparison with the start."),
    metric: str | None = typer.Option(None, help="What ranks; by default RMSE or accuracy."),
    task: str | None = typer.Option(
        None, help="real, count, binary or classes; inferred if left out."
    ),
    epochs: int | None = typer.Option(None, min=1, help="By default 60."),
    drop_missing: bool = typer.Option(False, help="Go on without rows that have missing values."),
    output: Path = typer.Option(
        Path("lossary-report"), "--output", "-o", help="Folder of the study."
    ),
    storage: str | None = typer.Option(
        None, help="Any Optuna storage; by default study.db in the folder."
    ),
    as_json: bool = typer.Option(False, "--json", help="JSON on stdout."),
) -> None:
    """Search a loss's own parameters on your data, and test the best against the start."""
    _quiet_threads()
    from lossary.lab.data import read
    from lossary.lab.run import Settings
    from lossary.lab.tune import tune as run

    loaded = read(data, target, task=task, drop_missing=drop_missing)
    settings = Settings(seeds=seeds, metric=metric, epochs=epochs)
    with _progress() as note:
        found = run(loaded, loss, settings, trials, storage or output / "study.db", note)
    if as_json:
        print(json.dumps(found))
        return
    for parameters, score in found["trials"]:
        given = ", ".join(f"{key}={value:.4g}" for key, value in parameters.items())
        say(f"{score:10.5g}  {given}", 12)
    for sentence in found["sentences"]:
        say(sentence)


def _shares(option: str, text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(item) for item in text.split(",") if item)
    except ValueError:
        raise LossError(
            f"{option} {text}: expected shares with commas between, such as 0.2,0.4"
        ) from None
    if any(not 0 < share < 1 for share in found):
        raise LossError(f"{option} {text}: each share lies between 0 and 1")
    return found


def _quiet_threads() -> None:
    """One thread per process: these networks are too small to share, and workers multiply
    better.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@contextmanager
def _helpers(count: int) -> Iterator[None]:
    """The same command ``count`` times more with ``--join``, sharing the study."""
    again = [item for item in sys.argv[1:] if item != "--join"]
    for flag in ("--workers",):
        while flag in again:
            place = again.index(flag)
            del again[place : place + 2]
    again = [item for item in again if not item.startswith("--workers=")]
    command = [sys.executable, "-c", "from lossary.cli import main; main()", *again, "--join"]
    started = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(count)
    ]
    try:
        yield
        failed = sum(process.poll() not in (None, 0) for process in started)
        if failed:
            say(f"{failed} of {count} workers ended early; the others did all", aside=True)
    finally:
        for process in started:
            process.terminate()
            process.wait()


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar on stderr: cells done, and how far the present one is."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        work = bar.add_task("starting", total=None)

        def note(done: int, total: int, what: str) -> None:
            label = what.split(" | ")[1] if " | " in what else "studying"
            bar.update(work, completed=done, total=total, description=label.replace("[", r"\["))

        yield note
