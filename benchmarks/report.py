"""The measurements as text, as a page and as a picture."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from benchmarks.steps import BYTES_PER_NUMBER, IN_A_ROW

SETTINGS = ("default", "no page faults")
COMPILED = "lossary, compiled"
# What a reader of the README sees, where we lose too.
_SUMMARY = (
    "squared_error", "binary_cross_entropy", "binary_focal", "ce_small_classes", "ce_vocabulary",
    "dice", "linear_ce", "info_nce", "small_ce",
)  # fmt: skip


def _rows(name: str, results: dict[str, Any]) -> list[tuple[str, ...]]:
    """contender, then per setting: milliseconds (lowest), and how many times as long as Lossary."""
    entry = results[name]
    rows = []
    timed = [
        entry[setting]["seconds"] for setting in SETTINGS if "seconds" in entry.get(setting, {})
    ]
    for contender in timed[0] if timed else entry.get("memory", {}):
        if contender in BYTES_PER_NUMBER and name != "limits":  # said as shares
            continue
        cells = [contender]
        for setting in SETTINGS:
            seconds = entry.get(setting, {}).get("seconds", {})
            if contender not in seconds:
                cells += ["", ""]
                continue
            mine = seconds.get("lossary", seconds[contender])
            it = seconds[contender]
            cells.append(f"{1e3 * it['median']:.3g} ({1e3 * it['lowest']:.3g})")
            cells.append(
                f"{it['median'] / mine['median']:.2f} ({it['lowest'] / mine['lowest']:.2f})"
            )
        memory = entry.get("memory", {}).get(contender, {})
        cells.append(f"{memory['bytes'] / 2**20:.0f}" if "bytes" in memory else "")
        rows.append(tuple(cells))
    return rows


def _share(name: str, results: dict[str, Any]) -> str:
    """How much of the machine's own rates Lossary's traffic reaches, in each setting."""
    entry = results[name]
    timed = [
        entry[setting]["seconds"] for setting in SETTINGS if "seconds" in entry.get(setting, {})
    ]
    if not entry.get("bytes") or not timed:
        return ""
    said = []
    for rate, size in BYTES_PER_NUMBER.items():
        shares = [
            entry["bytes"] / seconds["lossary"]["lowest"]
            / (size * 2**24 / seconds[rate]["lowest"])
            for seconds in timed
        ]  # fmt: skip
        said.append(f"{rate} {', '.join(f'{share:.0%}' for share in shares)}")
    return f"Share of the rate of: {'; '.join(said)}."


def lines(name: str, results: dict[str, Any]) -> str:
    """One workload for a terminal of 80 columns: medians, and ratios of medians and of lowest."""
    entry = results[name]
    rows = [
        tuple(cell.partition(" ")[0] if i in (1, 3) else cell for i, cell in enumerate(row))
        for row in _rows(name, results)
    ]
    if not rows:
        return f"{entry['title']}: not measured"
    table = [("", "default ms", "x lossary", "no faults ms", "x lossary", "MiB"), *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    body = "\n".join(
        " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
    return f"\n{entry['title']}\n{body}\n{_share(name, results)}".rstrip()


def _losses(results: dict[str, Any]) -> list[str]:
    """Where a peer is faster."""
    found = []
    for entry in results.values():
        for setting in SETTINGS:
            seconds = entry.get(setting, {}).get("seconds", {}) if isinstance(entry, dict) else {}
            for contender, it in seconds.items():
                if contender.startswith(("lossary", "three bare", *BYTES_PER_NUMBER)):
                    continue
                for mine in ("lossary", COMPILED) if contender == "torch.compile" else ("lossary",):
                    ratio = it["lowest"] / seconds[mine]["lowest"] if mine in seconds else 1.0
                    if ratio < 1:
                        where = f"{entry['title']}, {setting}"
                        found.append(f"- {where}: {contender} takes {ratio:.2f} of {mine}'s time")
    return found


def _summary(results: dict[str, Any]) -> str:
    """The README's table, of lowest times in the default setting: others' work is not in them."""
    lines = [
        "| value and gradient | torch eager, time | torch.compile, time | torch eager, memory |",
        "|---|---|---|---|",
    ]
    for name in _SUMMARY:
        entry = results.get(name, {})
        if "seconds" not in entry.get("default", {}):
            continue
        seconds, memory = entry["default"]["seconds"], entry.get("memory", {})
        cells = [entry["title"]]
        for peer in ("torch eager", "torch.compile"):
            ratio = seconds[peer]["lowest"] / seconds["lossary"]["lowest"] if peer in seconds else 0
            cells.append(f"{ratio:.2g} x" if ratio else "")
        ours, peers = (memory.get(each, {}).get("bytes") for each in ("lossary", "torch eager"))
        cells.append(f"{peers / ours:.2g} x" if ours and peers else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(results: dict[str, Any], folder: Path) -> None:
    """``performance.md`` and ``performance.svg``, and the README's table."""
    folder.mkdir(exist_ok=True)
    readme = folder.parent / "README.md"
    begin, end = (f"<!-- speed table: {place} -->\n" for place in ("begin", "end"))
    before, _, rest = readme.read_text().partition(begin)
    readme.write_text(before + begin + _summary(results) + end + rest.partition(end)[2])
    machine = results.get("environment", {})
    page = [
        "# Speed and memory",
        "",
        "Made by `make bench`; do not edit. Value and gradient, float32. In each round every "
        f"contender runs once, in random order, small ones {IN_A_ROW} steps in a row: alone, right "
        "after other programs, each takes 10 to 40% longer. *lossary, compiled* is a Loss under "
        "torch.compile. "
        "Times are medians, in brackets the lowest; "
        "ratios are a contender's time over Lossary's, so above 1 Lossary is faster. *Default* "
        "is what a user sees; *no page faults* sets `MALLOC_MMAP_THRESHOLD_` and "
        "`MALLOC_TRIM_THRESHOLD_` so that large buffers are used again, which compares the "
        "kernels themselves. Extra memory is the peak of a step in a fresh process above the "
        "inputs after a small step, which loads and compiles the code; gradients are in it. "
        "Shares of the machine's rates are by lowest times, in both settings; the rates are "
        "measured in the same rounds.",
        "",
        "Machine: "
        + ", ".join(f"{key} {value}" for key, value in machine.items())
        + ". A load above the number of processors means that others were working on it: "
        "read the lowest times then.",
        "",
        "![Times as multiples of Lossary's](performance.svg)",
        "",
    ]
    worse = _losses(results)
    page += ["## Where a peer is faster", "", *(worse or ["Nowhere in this run."]), ""]
    for name, entry in results.items():
        if name == "environment" or not _rows(name, results):
            continue
        head = ("", "default: ms", "x lossary", "no page faults: ms", "x lossary", "extra MiB")
        page += [f"## {entry['title']}", ""]
        page += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        page += ["| " + " | ".join(row) + " |" for row in _rows(name, results)]
        left_out = entry.get("default", {}).get("left_out", {})
        page += ["", _share(name, results), *(f"{k}: {v}." for k, v in left_out.items()), ""]
    (folder / "performance.md").write_text("\n".join(page).replace("\n\n\n", "\n\n"))
    (folder / "performance.svg").write_text(_picture(results))


def _picture(results: dict[str, Any]) -> str:
    """Bars of each peer's lowest time over Lossary's on a logarithmic axis."""
    import math

    bars = []
    for entry in results.values():
        seconds = entry.get("no page faults", entry.get("default", {}))
        seconds = seconds.get("seconds", {}) if isinstance(seconds, dict) else {}
        if "lossary" not in seconds:
            continue
        for peer in ("torch eager", "torch.compile", "optax jit", "torch chunked"):
            if peer in seconds:
                ratio = seconds[peer]["lowest"] / seconds["lossary"]["lowest"]
                bars.append((entry["title"], peer, ratio))
    colours = {
        "torch eager": "#c44e52",
        "torch.compile": "#dd8452",
        "optax jit": "#4c72b0",
        "torch chunked": "#8172b3",
    }
    left, unit, height = 430, 110, 15

    def x(ratio: float) -> float:
        return left + unit * (1 + math.log2(max(ratio, 0.5)))

    parts, y, before = [], 40, ""
    for title, peer, ratio in bars:
        if title != before:
            y += 8
            parts.append(
                f'<text x="{left - 120}" y="{y + 11}" text-anchor="end">{escape(title)}</text>'
            )
            before = title
        parts.append(
            f'<rect x="{min(x(1), x(ratio)):.1f}" y="{y}" '
            f'width="{max(1.0, abs(x(ratio) - x(1))):.1f}" height="{height - 3}" '
            f'fill="{colours[peer]}"/>'
            f'<text x="{left - 110}" y="{y + 11}" fill="{colours[peer]}">{peer}</text>'
            f'<text x="{x(max(ratio, 1)) + 5:.1f}" y="{y + 11}">{ratio:.2f}</text>'
        )
        y += height
    for power in range(-1, 6):
        at = x(2.0**power)
        parts.append(
            f'<line x1="{at}" x2="{at}" y1="30" y2="{y}" stroke="#ddd"/>'
            f'<text x="{at}" y="25" text-anchor="middle">{2.0**power:g}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + 7 * unit + 60}" height="{y + 20}" '
        'font-family="sans-serif" font-size="11">'
        '<rect width="100%" height="100%" fill="white"/>'
        f'<text x="{left}" y="12">lowest time over Lossary\'s, value and gradient; without page '
        "faults where both settings were measured</text>" + "".join(parts) + "</svg>\n"
    )
