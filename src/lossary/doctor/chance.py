"""The states of random generators: given back as they were, whoever drew from them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import CellType
from typing import Any

import numpy as np

OURS = 1_405_691_767  # a seed of TensorFlow's under which hardly anybody draws

# The global generators that a ``same_chance`` around this one gives back.
_HELD: ContextVar[tuple[Any, ...]] = ContextVar("_HELD", default=())


@contextmanager
def same_chance(seed: int | None = None, parts: Iterable[Any] = ()) -> Iterator[None]:
    """Give the states of all random generators back; between, the global ones start from ``seed``.

    Those of Python, NumPy, PyTorch on CPU and CUDA, Keras and TensorFlow, and those that the
    ``parts`` of a loss hold. JAX has none: its keys are arguments. With a ``seed``, within another
    ``same_chance``, the global ones are given back by that alone: each look at a loss starts anew.
    """
    around = () if seed is None else _HELD.get()
    fresh = [item for item in _global() if not any(item is other for other in around)]
    held = [item for part in parts for item in _held(part)]
    back = [_restorer(item) for item in (*fresh, *held)]
    back += [_without_keras_generator(), _apart_in_tensorflow()]
    if seed is not None:
        _start(seed)
    token = _HELD.set((*around, *fresh))
    try:
        yield
    finally:
        _HELD.reset(token)
        for restore in back:
            restore()


def _global() -> list[Any]:
    """The global generators of the libraries that this process has loaded."""
    # That of NumPy is what other people's code draws from.
    found = [random, np.random]
    torch = sys.modules.get("torch")
    if torch:
        found.append(torch.default_generator)
        if torch.cuda.is_initialized():  # before, it has drawn nothing, and asking would start it
            found += torch.cuda.default_generators
    found += filter(None, [_keras_generator(), _tensorflow_generator()])
    return found


def _start(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch = sys.modules.get("torch")
    for generator in _global()[2:]:
        if torch and isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        else:
            generator.state.assign(0 * generator.state.numpy() + seed)


def _held(part: Any) -> list[Any]:
    """Generators among the attributes of a loss, in the closure and in the module of its code."""
    function = getattr(part, "forward", None) or getattr(part, "call", None) or part
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    module = getattr(function, "__globals__", {})
    cells = getattr(function, "__closure__", None) or ()
    kept = [*getattr(part, "__dict__", {}).values(), *map(module.get, names)]
    kept += [cell.cell_contents for cell in cells if cell != CellType()]  # an empty one has none
    return [item for item in kept if _is_generator(item)]


def _is_generator(item: Any) -> bool:
    torch = sys.modules.get("torch")
    kinds: tuple[type, ...] = (random.Random, np.random.Generator, np.random.RandomState)
    kinds += (torch.Generator,) if torch else ()
    # A SeedGenerator of Keras, a Generator of TensorFlow.
    seeds = type(item).__name__.endswith("Generator") and hasattr(item, "state")
    return isinstance(item, kinds) or (seeds and hasattr(item.state, "assign"))


def _restorer(generator: Any) -> Callable[[], Any]:
    """What puts a generator back to its present state."""
    if hasattr(generator, "setstate"):
        return partial(generator.setstate, generator.getstate())
    if hasattr(generator, "set_state"):
        return partial(generator.set_state, generator.get_state())
    if isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        return partial(setattr, bits, "state", bits.state)
    return partial(generator.state.assign, generator.state.numpy())


# Keras and TensorFlow keep theirs where no public function looks without making one.


def _keras_generator() -> Any:
    module = sys.modules.get("keras.src.backend.common.global_state")
    return module and module.get_global_attribute("global_seed_generator")


def _without_keras_generator() -> Callable[[], None]:
    """Forget the generator that the first draw makes, from a number of Python's generator."""
    module: Any = sys.modules.get("keras.src.backend.common.global_state")
    if module is None or _keras_generator() is not None:
        return lambda: None
    return partial(module.set_global_attribute, "global_seed_generator", None)


def _tensorflow_generator() -> Any:
    module: Any = sys.modules.get("tensorflow.python.ops.stateful_random_ops")
    return module and module.global_generator


def _apart_in_tensorflow() -> Callable[[], None]:
    """Let TensorFlow draw from another seed: its operations keep a state for every seed."""
    module: Any = sys.modules.get("tensorflow.python.eager.context")
    context = module and module.context_safe()
    if context is None or context._seed is None:  # each operation draws afresh
        return lambda: None
    seed, stream = context._seed, context._rng
    context._seed, context._rng = OURS, random.Random(OURS)

    def restore() -> None:
        context._seed, context._rng = seed, stream

    return restore
