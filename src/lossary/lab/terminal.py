"""The account in short, for a terminal."""

from __future__ import annotations

from typing import Any

import numpy as np

BANNER = (
    "Raw loss values of different losses are not comparable: "
    "the order is by {metric}, on test rows."
)


def show(account: dict[str, Any]) -> None:
    """Print tables and verdicts to stdout; without colour where that is no terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if _wide() else 180)
    metric = account["metric"]["name"]
    names = [metric, *(name for name in account["metrics"] if name != metric)]
    data = account["data"]
    seeds = account["seeds"]
    console.print(
        f"{escape(data['name'])}: {data['rows']} rows, {len(data['columns'])} columns, "
        f"{data['task']} target {escape(data['target'])}; {seeds} seeds, "
        f"{account['plan']['epochs']} epochs",
        highlight=False,
    )
    for setting, part in account["tables"].items():
        title = "" if setting == "as is" else f"training part with {setting}"
        table = Table(title=title or None, title_justify="left")
        table.add_column("loss", no_wrap=True)
        for name in names:
            arrow = "↑" if account["metrics"][name] else "↓"
            table.add_column(f"{name} {arrow}", justify="right")
        table.add_column("rate", justify="right")
        for loss in part["order"]:
            row = part["losses"][loss]
            cells = [mean_and_spread(row["best"][name]) for name in names]
            table.add_row(escape(loss), *cells, f"{row['rate']:g}")
        for name, scores in account["baselines"].items():
            table.add_row(name, *[mean_and_spread(scores[key]) for key in names], "", style="dim")
        console.print(table)
        for sentence in part["sentences"]:
            console.print(escape(sentence), highlight=False)
    console.print(BANNER.format(metric=metric), style="dim", highlight=False)


def show_saved(account: dict[str, Any]) -> None:
    """Print what each loss would do to saved predictions."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if _wide() else 180)
    found = ", ".join(
        f"{name} {mean_and_spread(values)[:-7]}" for name, values in account["metrics"].items()
    )
    console.print(
        f"{account['rows']} saved predictions of {escape(account['target'])}: {found}",
        highlight=False,
    )
    table = Table()
    for name in (
        "loss",
        "mean value",
        "gradient scale",
        "top 1 % of rows",
        "by class",
        "estimates",
    ):
        table.add_column(name, no_wrap=name == "loss")
    for name, row in account["losses"].items():
        classes = ", ".join(
            f"{key} {share:.0%}" for key, share in list(row.get("by class", {}).items())[:10]
        )
        table.add_row(
            escape(name),
            f"{row['value']:.4g}",
            f"{row['gradient scale']:.3g}",
            f"{row['top 1 %']:.0%}",
            escape(classes) or "-",
            row["estimates"],
        )
    console.print(table)
    console.print(
        "Values of different losses are not comparable; shares of the gradient are.", style="dim"
    )


def _wide() -> bool:
    import sys

    return sys.stdout.isatty()


def mean_and_spread(values: list[float | None]) -> str:
    """``0.974 ±0.003``: mean and standard deviation over seeds; a dash where undefined."""
    numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
    if np.isnan(numbers).all():
        return "-"
    if np.isnan(numbers).any():
        return f"- ({int(np.isnan(numbers).sum())} failed)"
    mean, spread = numbers.mean(), numbers.std(ddof=1) if len(numbers) > 1 else 0.0
    digits = min(3, max(0, 3 - int(np.floor(np.log10(abs(mean)))))) if mean else 3
    return f"{mean:.{digits}f} ±{spread:.{digits}f}"
