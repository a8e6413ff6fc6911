"""The account in short, for a terminal."""

from __future__ import annotations

import sys
from typing import Any

from lossary.lab.sweep import in_words
from lossary.lab.words import mean_and_spread, number, percent

BANNER = (
    "Raw loss values of different losses are not comparable: "
    "the order is by {metric}, on test rows."
)
WIDE = 180  # columns where stdout is no terminal


def show(account: dict[str, Any], width: int | None = None) -> None:
    """Print tables and verdicts to stdout; without colour where that is no terminal.

    As many metrics as ``width`` columns hold, the ranking one first; the report has all.
    """
    from rich.markup import escape
    from rich.table import Table

    console = _console(width)
    metric = account["metric"]["name"]
    names = [metric, *(name for name in account["metrics"] if name != metric)]
    data = account["data"]
    console.print(
        f"{escape(data['name'])}: {data['rows']} rows, {len(data['columns'])} columns, "
        f"target column {escape(data['target'])} ({data['task']}); {account['seeds']} seeds, "
        f"{account['plan']['epochs']} epochs",
        highlight=False,
    )
    hidden: list[str] = []
    for setting, part in account["tables"].items():
        title = "" if setting == "as is" else f"training part with {setting}"
        rows = {
            loss: {name: mean_and_spread(part["losses"][loss]["best"][name]) for name in names}
            for loss in part["order"]
        }
        constant = {
            name: {key: mean_and_spread(scores[key]) for key in names}
            for name, scores in account["baselines"].items()
        }
        shown = _fitting(names, rows | constant, console.width)
        hidden = names[len(shown) :]
        table = Table(title=title or None, title_justify="left")
        table.add_column("loss", overflow="fold", max_width=_room(console.width))
        for name in shown:
            arrow = "↑" if account["metrics"][name] else "↓"
            table.add_column(f"{name} {arrow}", justify="right", no_wrap=True)
        table.add_column("rate", justify="right", no_wrap=True)
        for loss, row in rows.items():
            rate = f"{part['losses'][loss]['rate']:g}"
            table.add_row(escape(loss), *[row[name] for name in shown], rate)
        for name, row in constant.items():
            table.add_row(name, *[row[key] for key in shown], "", style="dim")
        console.print(table)
        for sentence in part["sentences"] + terms_in_words(part):
            console.print(escape(sentence), highlight=False)
    for item in account.get("sweep", []):
        said = f"{item['loss']}: {item['parameter']} is {item['verdict']}. "
        console.print(escape(said + in_words(metric, item)), highlight=False)
    console.print(BANNER.format(metric=metric), style="dim", highlight=False)
    if hidden:
        console.print(f"In the report also: {', '.join(hidden)}.", style="dim", highlight=False)


def terms_in_words(part: dict[str, Any]) -> list[str]:
    """A sentence for each objective: its terms' shares of value and gradient after training."""
    return [
        f"{name}: "
        + "; ".join(
            f"{term} makes {percent(share['value'])} of the value and "
            f"{percent(share['gradient'])} of the gradient"
            for term, share in part["losses"][name]["terms"]["at the end"].items()
        )
        + "."
        for name in part["order"]
        if part["losses"][name]["terms"]
    ]


def _room(width: int) -> int:
    """Columns for the names of losses; longer ones are folded."""
    return max(20, min(44, width // 3))


def _fitting(names: list[str], rows: dict[str, dict[str, str]], width: int) -> list[str]:
    """The first names whose columns stand beside the losses and their rates."""
    left = width - min(_room(width), max(map(len, rows))) - 14
    shown: list[str] = []
    for name in names:
        left -= max(len(name) + 2, *(len(row[name]) for row in rows.values())) + 3
        if left < 0 and shown:
            break
        shown.append(name)
    return shown


def show_saved(account: dict[str, Any], width: int | None = None) -> None:
    """Print what each loss would do to saved predictions."""
    from rich.markup import escape
    from rich.table import Table

    console = _console(width)
    found = ", ".join(
        f"{name} {mean_and_spread(values)}" for name, values in account["metrics"].items()
    )
    console.print(
        f"{account['rows']} saved predictions of {escape(account['target'])}: {found}",
        highlight=False,
    )
    for sentence in account["sentences"]:
        console.print(escape(sentence), highlight=False)
    table = Table()
    for name in ("loss", "mean value", "gradient", "top 1 %", "by class", "estimates"):
        table.add_column(name, overflow="fold")
    for name, row in account["losses"].items():
        classes = ", ".join(
            f"{key} {share:.0%}" for key, share in list(row.get("by class", {}).items())[:10]
        )
        table.add_row(
            escape(name),
            number(row["value"], digits=4),
            number(row["gradient scale"]),
            f"{row['top 1 %']:.0%}",
            escape(classes) or "-",
            row["estimates"],
        )
    console.print(table)
    console.print(
        "Values of different losses are not comparable; shares of the gradient are.", style="dim"
    )


def _console(width: int | None) -> Any:
    from rich.console import Console

    return Console(width=width or (None if sys.stdout.isatty() else WIDE))
