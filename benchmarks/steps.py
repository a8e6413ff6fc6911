"""What a workload is, and how one step of a contender is made.

A step is value and gradient. Contenders that cannot run are left out by raising ``MissingError``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch

Step = Callable[[], Any]
IN_A_ROW = 20  # small steps: one alone would be timed with cold caches
# The machine's rates that the traffic of a loss is held against.
BYTES_PER_NUMBER = {"copy": 8, "two reads, one write": 12}


class MissingError(Exception):
    """A peer that is not installed here."""


@dataclass(frozen=True)
class Workload:
    """``contenders(name)`` makes the step of one contender on fresh inputs of its library."""

    title: str
    contenders: dict[str, Callable[[], Step]]
    repeats: int = 7
    bytes_moved: int = 0  # what any algorithm must read and write
    small: dict[str, Callable[[], Step]] | None = None  # the same, small: measure memory too
    _: KW_ONLY
    settings: tuple[str, ...] = ("default", "no page faults")
    block: int = 1  # steps in a row


def torch_step(function: Callable[..., torch.Tensor], *leaves: torch.Tensor) -> Step:
    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        function().backward()

    return step


def compiled(loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A function of a user's own that calls the loss, for torch.compile."""

    def function(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return loss(prediction, target)

    return torch.compile(function, fullgraph=True)


def jax_step(function: Callable[..., Any], *arrays: np.ndarray, learned: int = 1) -> Step:
    """The mean and its gradient by the first ``learned`` arrays, compiled here for their shapes."""
    try:
        import jax
        import jax.numpy as jnp
    except ImportError as error:
        raise MissingError("jax") from error
    given = tuple(jnp.asarray(array) for array in arrays)
    mean = jax.value_and_grad(lambda *a: jnp.mean(function(*a)), tuple(range(learned)))
    compiled = jax.jit(mean).lower(*given).compile()
    return lambda: jax.block_until_ready(compiled(*given))


def optax_loss(name: str) -> Any:
    try:
        import optax
    except ImportError as error:
        raise MissingError("optax") from error
    return getattr(optax.losses, name)
