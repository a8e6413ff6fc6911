"""Write the README's accuracy table: the same float32 points in Lossary, PyTorch, optax and Keras.

Every number is computed now, by the installed libraries; the truth is computed at 50 digits.

    python tools/accuracy_table.py            # print it
    python tools/accuracy_table.py --write    # write it between the markers of README.md
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import jax
import jax.numpy as jnp
import keras
import mpmath as mp
import numpy as np
import optax
import torch
import torch.nn.functional as F

from lossary import Loss

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- accuracy table: begin -->", "<!-- accuracy table: end -->"
mp.mp.dps = 50


@dataclass(frozen=True)
class Point:
    """One prediction and target, the loss in each library, and the truth by formula."""

    title: str
    prediction: list[float]
    target: object
    name: str
    truth: Callable[..., mp.mpf]
    torch: Callable | None
    optax: Callable | None
    keras: Callable | None
    settings: tuple[tuple[str, str], ...] = ()


def surprise(logits: list, label: int) -> mp.mpf:
    return mp.log(sum(mp.e ** (mp.mpf(z) - mp.mpf(logits[label])) for z in logits))


def binary_surprise(logits: list, labels: list) -> mp.mpf:
    z, y = mp.mpf(logits[0]), mp.mpf(labels[0])
    return y * mp.log1p(mp.e**-z) + (1 - y) * mp.log1p(mp.e**z)


def divergence(logits: list, target: list) -> mp.mpf:
    total = mp.log(sum(mp.e ** mp.mpf(z) for z in logits))
    pairs = [(mp.mpf(z), mp.mpf(t)) for z, t in zip(logits, target, strict=True) if t]
    return mp.fsum(t * (mp.log(t) - (z - total)) for z, t in pairs)


def cross_entropy_point(logits: list[float], label: int) -> Point:
    return Point(
        f"cross-entropy, logits {logits}, class {label}",
        logits,
        label,
        "cross_entropy",
        surprise,
        lambda z, y: F.cross_entropy(z[None], y[None]),
        lambda z, y: optax.softmax_cross_entropy_with_integer_labels(z[None], y[None])[0],
        lambda z, y: keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y[None], z[None]),
    )


def log_cosh_point(error: float) -> Point:
    return Point(
        f"log-cosh, error {error:g}",
        [error],
        [0.0],
        "log_cosh",
        lambda p, t: mp.log(mp.cosh(mp.mpf(p[0]))),
        None,
        lambda p, t: optax.log_cosh(p, t).mean(),
        lambda p, t: keras.losses.LogCosh()(t[None], p[None]),
    )


POINTS = [
    cross_entropy_point([20.0, 0.0], 0),
    cross_entropy_point([1000.0, 990.0], 0),
    Point(
        "binary cross-entropy, logit 40, yes",
        [40.0],
        [1.0],
        "binary_cross_entropy",
        binary_surprise,
        F.binary_cross_entropy_with_logits,
        lambda p, t: optax.sigmoid_binary_cross_entropy(p, t).mean(),
        lambda p, t: keras.losses.BinaryCrossentropy(from_logits=True)(t[None], p[None]),
    ),
    Point(
        "binary cross-entropy, probability 1e-9, yes",
        [1e-9],
        [1.0],
        "binary_crossentropy",
        lambda p, t: -mp.log(mp.mpf(p[0])),
        F.binary_cross_entropy,
        None,
        lambda p, t: keras.losses.BinaryCrossentropy()(t[None], p[None]),
    ),
    log_cosh_point(1e-4),
    log_cosh_point(3e-4),
    Point(
        "KL divergence, logits [0, 0, 3], target [0, 0.5, 0.5]",
        [0.0, 0.0, 3.0],
        [0.0, 0.5, 0.5],
        "kl_divergence",
        divergence,
        lambda p, t: F.kl_div(F.log_softmax(p, -1)[None], t[None], reduction="batchmean"),
        lambda p, t: optax.kl_divergence(jax.nn.log_softmax(p), t),
        lambda p, t: keras.losses.KLDivergence()(t[None], keras.ops.softmax(p)[None]),
    ),
    Point(
        "squared logarithmic error, 1e-6 against 0",
        [1e-6],
        [0.0],
        "squared_logarithmic_error",
        lambda p, t: mp.log1p(mp.mpf(p[0])) ** 2,
        None,
        None,
        lambda p, t: keras.losses.MeanSquaredLogarithmicError()(t[None], p[None]),
    ),
    Point(
        "negative cosine, zero prediction",
        [0.0, 0.0],
        [1.0, 0.0],
        "cosine_similarity",
        lambda p, t: mp.mpf(0),
        lambda p, t: -F.cosine_similarity(p[None], t[None]).mean(),
        lambda p, t: -optax.cosine_similarity(p[None], t[None]).mean(),
        lambda p, t: keras.losses.CosineSimilarity()(t[None], p[None]),
    ),
]


def in_torch(function: Callable, point: Point) -> tuple[float, np.ndarray]:
    prediction = torch.tensor(point.prediction, dtype=torch.float32, requires_grad=True)
    value = function(prediction, torch.tensor(point.target))
    value.backward()
    return value.item(), prediction.grad.numpy()


def in_jax(function: Callable, point: Point) -> tuple[float, np.ndarray]:
    prediction = jnp.asarray(point.prediction, jnp.float32)
    value, gradient = jax.value_and_grad(lambda p: function(p, jnp.asarray(point.target)))(
        prediction
    )
    return float(value), np.asarray(gradient)


def true_gradient(point: Point) -> list[mp.mpf]:
    inputs = [mp.mpf(float(np.float32(x))) for x in point.prediction]
    step, slopes = mp.mpf(10) ** -20, []
    for index in range(len(inputs)):
        up, down = list(inputs), list(inputs)
        up[index] += step
        down[index] -= step
        slopes.append(
            (point.truth(up, point.target) - point.truth(down, point.target)) / (2 * step)
        )
    return slopes


def cell(result: tuple[float, np.ndarray] | None, truth: mp.mpf, slopes: list[mp.mpf]) -> str:
    """The value, and how far value and gradient are off; bold where one is wrong by over 0.1 %."""
    if result is None:
        return "–"
    value, gradient = result
    finite = np.isfinite(value) and np.isfinite(gradient).all()
    errors = [off(value, truth), *(off(float(g), s) for g, s in zip(gradient, slopes, strict=True))]
    if not finite:
        return f"**{number(value)}, gradient {'NaN' if np.isnan(gradient).any() else 'infinite'}**"
    worst = max(errors[1:])
    off_by = f"off {percent(worst)}" if any(slopes) else f"up to {number(worst)}"
    text = f"{number(value)}, gradient " + ("right" if worst < 1e-3 else off_by)
    return f"**{text}**" if max(errors) > 1e-3 else text


def off(value: float, truth: mp.mpf) -> float:
    if truth == 0:
        return abs(value)
    return float(abs((mp.mpf(value) - truth) / truth))


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share > 0.1 else f"{100 * share:.2g} %"


def number(value: float) -> str:
    return f"{value + 0.0:.4g}"  # no negative zero


def table() -> str:
    names = {"PyTorch": "torch", "optax": "optax", "Keras": "keras"}
    heads = [f"{title} {version(name)}" for title, name in names.items()]
    lines = [
        f"| point (float32) | truth | Lossary | {' | '.join(heads)} |",
        "|---|---|---|---|---|---|",
    ]
    for point in POINTS:
        inputs = [float(np.float32(x)) for x in point.prediction]
        truth = point.truth(inputs, point.target)
        # At a zero vector the cosine has no derivative; 0 is the finite answer.
        slopes = true_gradient(point) if any(inputs) else [mp.mpf(0)] * len(inputs)
        loss = Loss(point.name)
        ours = in_torch(lambda p, t, loss=loss: loss(p[None], t[None]), point)
        peers = [
            point.torch and in_torch(point.torch, point),
            point.optax and in_jax(point.optax, point),
            point.keras and in_torch(point.keras, point),
        ]
        cells = [cell(result, truth, slopes) for result in (ours, *peers)]
        lines.append(f"| {point.title} | {mp.nstr(truth, 4)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    text = table()
    if "--write" not in sys.argv[1:]:
        print(text)
        return
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    print(f"{README.name}: {len(POINTS)} points", file=sys.stderr)


if __name__ == "__main__":
    main()
