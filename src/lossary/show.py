"""The page and the picture of one loss, from its contract and docstring."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lossary.contract import Array, Contract, LossError, Space
from lossary.evaluate import Loss
from lossary.inputs import arrivals
from lossary.lines import folded

LAYOUTS = {
    "element": "one number per element",
    "class axis": "one number per class along `axis`",
    "class": "class indices, one-hot or a distribution",
    "row": "one vector per row, (rows, features)",
    "label": "one label per row",
    "image": "(batch, channels, one to three dimensions)",
    "tensor": "any shape",
    "steps": "(batch, steps, classes)",
    "sequence": "a row of class indices per sequence, padded, (batch, length)",
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
        "steps": "one unit per class at each step",
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
        lines.extend(folded(text, indent, hanging or indent, width))

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
        theirs = [name for name in contract.inputs if name not in contract.learned]
        inputs = ", ".join("input" if name == "prediction" else name for name in theirs)
        sizes = "in_features=..., num_classes=..." if contract.learned else given
        lines.append(f"PyTorch: lossary.torch.{title}({sizes})({inputs})")
        lines.append(f"Keras: model.compile(loss=lossary.keras.{title}({given}))")
    return lines


# -- the picture ------------------------------------------------------------------------------


Curve = tuple[str, np.ndarray, np.ndarray]  # what the axis shows, positions, values


def curve(loss: Loss, points: int = 401) -> Curve:
    """The loss along a line through its inputs."""
    contract = loss.contract
    spaces = list(contract.inputs.values())
    first, target = spaces[0], contract.target
    if first.layout == "class axis" and target is not None and target.layout == "class":
        margin = np.linspace(-8.0, 8.0, points)
        classes = len(loss.parameters.get("class_counts", (1, 1)))
        logits = np.stack([margin] + [np.zeros(points)] * (classes - 1), axis=1)
        values = loss.values(logits, np.zeros(points, int))
        return "logit of the true class minus the others", margin, values
    if target is not None and all(space.layout == "element" for space in spaces):
        label, line, arrays = _element_path(first, target, points)
        arrays += tuple(np.full(points, max(space.example, 1.0)) for space in spaces[2:])
        if contract.unit is not None and contract.unit.name == "region":
            arrays = tuple(array[:, None] for array in arrays)  # regions of one place
        return label, line, loss.values(*arrays)
    return _walk(loss, spaces)


def _walk(loss: Loss, spaces: list[Space], points: int = 101) -> Curve:
    """From a random start to the second input (or, with a single one, from it to zero)."""
    shapes = {"row": (8, 4), "image": (8, 1, 176), "class axis": (8, 4), "tensor": (4, 4)}
    shapes |= {"steps": (8, 6, 4)}
    draw = np.random.default_rng(0)
    arrays: list[Array] = []
    for space in spaces:
        shape = shapes.get(space.layout, (8,))
        if space.layout == "sequence":
            arrays.append(np.ones((8, 1), int))
        elif space.name == "length":  # of the steps, then of the labels
            arrays.append(np.full(8, 1 if any(x.ndim == 1 for x in arrays) else 6))
        elif space.layout == "label":
            arrays.append(np.arange(8) % 2)
        else:
            low, high = max(space.interval.low, -1.0), min(space.interval.high, 1.0)
            arrays.append(draw.uniform(low, high, shape))
    line = np.linspace(0.0, 1.0, points)
    start = arrays[0]
    goal, label = np.zeros_like(start), "from random numbers (0) to zeros (1)"
    if len(arrays) > 1 and arrays[1].shape == start.shape:
        goal, label = arrays[1], "from a random prediction (0) to the target (1)"
    elif spaces[0].layout == "row":
        goal = np.eye(8, 4)[np.arange(8) % 2]
        label = "from random embeddings (0) to one place per label (1)"
    values = []
    for share in line:
        moved = (1.0 - share) * start + share * goal
        values.append(float(np.mean(loss.values(moved, *arrays[1:]))))
    return label, line, np.asarray(values)


def _element_path(
    first: Space, target: Space, points: int
) -> tuple[str, np.ndarray, tuple[Array, ...]]:
    if target.name in ("binary", "sign"):
        low, high = (-8.0, 8.0) if first.interval.low < 0 else (0.001, 0.999)
        line = np.linspace(low, high, points)
        return f"{first.name} when the answer is yes", line, (line, np.ones(points))
    if first.interval.low < 0 and target.interval.low < 0:
        line = np.linspace(-4.0, 4.0, points)
        return "prediction minus target", line, (1.0 + line, np.ones(points))
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
        raise LossError("plot needs matplotlib: pip install 'lossary[lab]'") from None
    curves = [curve(loss) for loss in losses]
    labels = {label for label, _, _ in curves}
    if len(labels) > 1:
        raise LossError(
            f"plot: these losses have no axis in common ({'; '.join(sorted(labels))}); "
            "draw them in two pictures"
        )
    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(7, 7), sharex=True, layout="constrained"
    )
    for loss, (_, line, values) in zip(losses, curves, strict=True):
        above.plot(line, values, label=repr(loss)[5:-1].replace("'", ""))
        below.plot(line, np.gradient(values, line))
    above.set_ylabel("loss")
    above.legend()
    below.set_ylabel("slope: the pull on the prediction")
    below.set_xlabel(labels.pop())
    for axes in (above, below):
        axes.grid(alpha=0.3)
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise LossError(f"plot: cannot write {file}: {error}") from None
    finally:
        pyplot.close(figure)
