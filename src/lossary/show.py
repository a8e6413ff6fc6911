"""The page and the picture of one loss, from its contract and docstring."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lossary.contract import Array, Contract, LossError, Space
from lossary.evaluate import Loss
from lossary.inputs import arrivals

LAYOUTS = {
    "element": "one number per element",
    "class axis": "one number per class along `axis`",
    "class": "class indices, one-hot or a distribution",
    "row": "one vector per row, (rows, features)",
    "label": "one label per row",
    "image": "(batch, channels, one to three dimensions)",
    "tensor": "any shape",
}
UNITS = {
    "element": "one value per element",
    "sample": "one value per sample",
    "anchor": "one value per row of the batch",
    "region": "one value per region (by default per sample)",
    "tensor": "one value",
}


def facts(contract: Contract) -> dict[str, Any]:
    """Everything the contract says, as plain data."""
    return {
        "name": contract.name,
        "family": contract.family,
        "summary": contract.summary,
        "formula": contract.formula,
        "text": body(contract),
        "aliases": [
            {"name": alias.name, "presets": dict(alias.presets)} for alias in contract.aliases
        ],
        "inputs": {
            name: {"space": space.name, "interval": str(space.interval), "layout": space.layout}
            for name, space in contract.inputs.items()
        },
        "arrivals": list(arrivals(contract)),
        "head": head(contract),
        "parameters": {
            name: {
                "interval": None if item.interval is None else str(item.interval),
                "default": item.default,
                "required": item.required,
            }
            for name, item in contract.parameters.items()
        },
        "returns": UNITS[contract.unit.name] if contract.unit else "what the function returns",
        "properties": sorted(map(str, contract.properties)),
        "paper": contract.paper,
        "implementations": implementations(contract),
    }


def body(contract: Contract) -> str:
    """The docstring below the formula: when to use it, and what differs between libraries."""
    text = inspect.getdoc(contract.compute) or ""
    paragraphs = text.split("\n\n")[1:]
    kept = [part for part in paragraphs if not part.lstrip().startswith(".. math::")]
    return "\n\n".join(" ".join(part.split()) for part in kept)


def head(contract: Contract) -> str:
    """The output layer that a network needs for this loss."""
    if not contract.predictions:
        return "none"
    space = contract.inputs[contract.predictions[0]]
    units = {
        "class axis": "one unit per class",
        "row": "as many units as the embedding has features",
        "image": "one unit per channel and pixel",
        "tensor": "none: it takes the weights themselves",
    }.get(space.layout, "one unit per target")
    if space.layout == "tensor":
        return units
    return f"{units}, {space.activation} activation"


def implementations(contract: Contract) -> list[str]:
    """What may run besides the definition, by library, from the kernels' manifest.

    ``Loss.explain`` says which of them runs for given arrays, and why the others do not.
    """
    from lossary.kernels import manifest

    rows = {
        library: ", ".join(dict.fromkeys(module.partition(".")[0] for module in modules))
        for (name, library), modules in manifest().items()
        if name == contract.name
    }
    return [f"{library}: {kernels}, else the definition" for library, kernels in rows.items()] or [
        "the definition, on every library"
    ]


def page(contract: Contract, width: int = 80) -> str:
    """The page of a loss as text."""
    data = facts(contract)
    lines = [data["name"], "=" * len(data["name"]), ""]

    def paragraph(text: str, indent: str = "", hanging: str = "") -> None:
        lines.extend(
            textwrap.wrap(
                text,
                width,
                initial_indent=indent,
                subsequent_indent=hanging or indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )

    def section(title: str, rows: Iterable[str]) -> None:
        rows = list(rows)
        if rows:
            lines.extend(["", title])
            for row in rows:
                paragraph(row, "  ", "      ")

    paragraph(data["summary"].replace("``", ""))
    if data["formula"]:
        lines.append("")
        paragraph(data["formula"], "    ")
    for part in data["text"].split("\n\n"):
        if part:
            lines.append("")
            paragraph(part.replace("``", ""))
    section(
        "Takes",
        (
            f"{name}: {item['space']} {item['interval']}, {LAYOUTS[item['layout']]}"
            for name, item in data["inputs"].items()
        ),
    )
    if len(data["arrivals"]) > 1:
        section("Predictions may arrive as", [", ".join(data["arrivals"])])
    section(
        "Parameters",
        (
            f"{name} in {item['interval'] or 'any'}, "
            + ("required" if item["required"] else f"default {item['default']}")
            for name, item in data["parameters"].items()
        ),
    )
    section("Returns", [data["returns"]])
    section("Head", [data["head"]])
    section("Properties", data["properties"])
    section(
        "Also known as",
        [
            ", ".join(
                alias["name"]
                + (
                    f" ({', '.join(f'{k}={v}' for k, v in alias['presets'].items())})"
                    if alias["presets"]
                    else ""
                )
                for alias in data["aliases"]
            )
        ]
        if data["aliases"]
        else [],
    )
    section("Paper", [data["paper"]] if data["paper"] else [])
    section("Use", calls(contract))
    section("Runs", data["implementations"])
    return "\n".join(lines)


def calls(contract: Contract) -> list[str]:
    """The call in each framework."""
    arguments = ", ".join(contract.inputs)
    given = ", ".join(f"{k}=..." for k, item in contract.parameters.items() if item.required)
    quoted = ", ".join(filter(None, [f'"{contract.name}"', given]))
    title = "".join(part.title() for part in contract.name.split("_"))
    lines = [f"any array: lossary.Loss({quoted})({arguments})"]
    if contract.target is not None:
        lines.append(f"PyTorch: lossary.torch.{title}({given})(input, target)")
        lines.append(f"Keras: model.compile(loss=lossary.keras.{title}({given}))")
    return lines


# -- the picture ------------------------------------------------------------------------------


def path(contract: Contract, points: int = 401) -> tuple[str, np.ndarray, tuple[Array, ...]]:
    """A line through the inputs: axis label, positions, and inputs with a row per position."""
    first = contract.inputs[contract.predictions[0]] if contract.predictions else Space("weights")
    target = contract.target
    if len(contract.predictions) == 1 and target is not None:
        if first.layout == "class axis" and target.layout == "class":
            margin = np.linspace(-8.0, 8.0, points)
            logits = np.stack([margin, np.zeros(points)], axis=1)
            return (
                "logit of the true class minus the other",
                margin,
                (logits, np.zeros(points, int)),
            )
        if first.layout == "element" and target.layout == "element":
            return _element_path(first, target, points)
    raise LossError(
        f"{contract.name}: no curve can be drawn of a loss whose inputs are "
        f"{', '.join(f'{name} ({space.name})' for name, space in contract.inputs.items())}; "
        "plot draws losses of one prediction against one target"
    )


def _element_path(
    first: Space, target: Space, points: int
) -> tuple[str, np.ndarray, tuple[Array, ...]]:
    if target.name in ("binary", "sign"):
        low, high = (-8.0, 8.0) if first.interval.low < 0 else (0.001, 0.999)
        line = np.linspace(low, high, points)
        return f"{first.name} when the answer is yes", line, (line, np.ones(points))
    if first.interval.low < 0 and target.interval.low < 0:
        line = np.linspace(-4.0, 4.0, points)
        return "prediction minus target", line, (line, np.zeros(points))
    low, high = (0.02, min(4.0, first.interval.high)) if first.interval.low == 0 else (-3.0, 3.0)
    line = np.linspace(low, high, points)
    return f"{first.name} when the target is 1", line, (line, np.ones(points))


def plot(losses: list[Loss], file: Path) -> None:
    """Draw value and slope of losses over their prediction into ``file`` (PNG, SVG or PDF)."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise LossError("plot needs matplotlib: pip install lossary[lab]") from None
    labels = {path(loss.contract)[0] for loss in losses}
    if len(labels) > 1:
        raise LossError(
            f"plot: these losses have no axis in common ({'; '.join(sorted(labels))}); "
            "draw them in two pictures"
        )
    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(7, 7), sharex=True, layout="constrained"
    )
    for loss in losses:
        label, line, arrays = path(loss.contract)
        values = np.asarray(loss.values(*arrays))
        above.plot(line, values, label=repr(loss)[5:-1].replace("'", ""))
        below.plot(line, np.gradient(values, line))
    above.set_ylabel("loss")
    above.legend()
    below.set_ylabel("slope: the pull on the prediction")
    below.set_xlabel(label)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise LossError(f"plot: cannot write {file}: {error}") from None
    finally:
        pyplot.close(figure)
