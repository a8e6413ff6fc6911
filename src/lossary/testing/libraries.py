"""The array libraries that losses are proved on: arrays in, values and gradients out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module, util
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.xp import to_numpy

Function = Callable[..., Any]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Library:
    """One way of running a loss. ``compiled`` ones trace and run what a compiler made."""

    name: str
    package: str
    differentiates: bool = True
    compiled: bool = False

    def array(self, values: Any) -> Any:
        """A NumPy array as this library's."""
        return _ARRAY[self.package](np.asarray(values, order="C"))

    def arrays(self, arrays: Arrays) -> dict[str, Any]:
        """Several arrays at once, by name."""
        return {name: self.array(values) for name, values in arrays.items()}

    def numpy(self, array: Any) -> np.ndarray:
        """A result as a NumPy array."""
        if isinstance(array, (float, int, np.ndarray, np.generic)):
            return np.asarray(array)
        return np.asarray(to_numpy(array))

    def values(self, function: Function, arrays: Arrays) -> np.ndarray:
        """``function(**arrays)``, compiled where this library compiles."""
        compiled = _VALUES.get(self.name)
        run = compiled(function) if compiled else function
        return self.numpy(run(**self.arrays(arrays)))

    def values_and_gradients(
        self, function: Function, arrays: Arrays, wrt: Sequence[str]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Values of ``function(**arrays)``, and the gradient of their sum by each of ``wrt``."""
        return self.of_each(function, [arrays], wrt)[0]

    def once(self, function: Function) -> Function:
        """``function``, for arrays of a shape of their own: there eager JAX takes longest."""
        return _jitted(function) if self.name == "jax" else function

    def of_each(
        self, function: Function, batches: Sequence[Arrays], wrt: Sequence[str]
    ) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """The same of several batches, for which torch.compile makes one program."""
        given = [self.arrays(arrays) for arrays in batches]
        return [
            (
                self.numpy(values),
                {name: self.numpy(slope) for name, slope in zip(wrt, slopes, strict=True)},
            )
            for values, slopes in _GRADIENTS[self.name](function, given, tuple(wrt))
        ]


LIBRARIES = {
    library.name: library
    for library in (
        Library("numpy", "numpy", differentiates=False),
        Library("array-api-strict", "array_api_strict", differentiates=False),
        Library("torch", "torch"),
        Library("torch-compile", "torch", compiled=True),
        Library("jax", "jax"),
        Library("jax-jit", "jax", compiled=True),
        Library("tensorflow", "tensorflow"),
        Library("tensorflow-function", "tensorflow", compiled=True),
    )
}


def library_of(name: str) -> Library:
    """The library of this name, set up; an error if it is not installed: never a skip."""
    name = name.replace("_", "-")
    if name not in LIBRARIES:
        raise LossError(f"library {name!r} is not known; it can be {', '.join(LIBRARIES)}")
    library = LIBRARIES[name]
    if util.find_spec(library.package) is None:
        raise LossError(
            f"library {name} was asked for but {library.package} is not installed: "
            f"pip install {library.package.replace('_', '-')}"
        )
    _set_up(library.package)
    return library


@cache
def _set_up(package: str) -> None:
    if package == "jax":
        # Without this JAX silently computes float64 in float32.
        import_module("jax").config.update("jax_enable_x64", True)
    elif package == "tensorflow":
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with suppress(RuntimeError):  # where TensorFlow runs already, it keeps its threads
            import_module("tensorflow").config.threading.set_intra_op_parallelism_threads(1)
    elif package == "torch":
        import_module("torch").set_num_threads(1)
    elif package == "array_api_strict":
        import_module("array_api_strict").set_array_api_strict_flags(
            boolean_indexing=False, data_dependent_shapes=False
        )


def _torch_array(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(values if values.flags.writeable else values.copy())


_ARRAY: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": lambda values: values,
    "array_api_strict": lambda values: import_module("array_api_strict").asarray(values),
    "torch": _torch_array,
    "jax": lambda values: import_module("jax.numpy").asarray(values),
    "tensorflow": lambda values: import_module("tensorflow").convert_to_tensor(values),
}


# -- compiled forms ---------------------------------------------------------------------------

# Batches of one shape share a program: compiling costs a hundred times more than running it.
_KEPT = 16


@lru_cache(1)
def _torch_compiled(function: Function) -> Function:
    import torch

    torch.compiler.reset()  # else the variants of many losses exhaust the recompile limit
    # Sums over the few classes and features of these batches are compiled as those of many are:
    # unrolled, they would be other programs, and take several times as long to make.
    options: dict[str, Any] = {"unroll_reductions_threshold": 1}
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


@lru_cache(_KEPT)
def _jitted(function: Function) -> Function:
    import jax

    return jax.jit(function)


@lru_cache(_KEPT)
def _graph(function: Function) -> Function:
    import tensorflow as tf

    return tf.function(function, autograph=False)


_VALUES: dict[str, Callable[[Function], Function]] = {
    "torch-compile": _torch_compiled,
    "jax-jit": _jitted,
    "tensorflow-function": _graph,
}


# -- gradients of the sum of the values -------------------------------------------------------


def _torch_gradients(function: Function, batches: list[Any], wrt: tuple[str, ...]) -> Any:
    import torch

    leaves = [{name: arrays[name].detach().requires_grad_() for name in wrt} for arrays in batches]
    made = function(*(arrays | own for arrays, own in zip(batches, leaves, strict=True)))
    sums = [values.sum() for values in made if values.requires_grad]
    flat = [leaf for own in leaves for leaf in own.values()]
    found = torch.autograd.grad(sums, flat, allow_unused=True) if sums else [None] * len(flat)
    slopes = iter(
        torch.zeros_like(leaf) if slope is None else slope
        for slope, leaf in zip(found, flat, strict=True)
    )
    return [(values, [next(slopes) for _ in wrt]) for values in made]


@lru_cache(_KEPT)
def _of_each(function: Function) -> Function:
    return lambda *batches: [function(**arrays) for arrays in batches]


def _eager_torch_gradients(function: Function, batches: list[Any], wrt: tuple[str, ...]) -> Any:
    return _torch_gradients(_of_each(function), batches, wrt)


def _compiled_torch_gradients(function: Function, batches: list[Any], wrt: tuple[str, ...]) -> Any:
    return _torch_gradients(_torch_compiled(_of_each(function)), batches, wrt)


@lru_cache(_KEPT)
def _jax_program(function: Function, wrt: tuple[str, ...]) -> Function:
    import jax

    def program(moving: dict[str, Any], fixed: dict[str, Any]) -> Any:
        def summed(moving: dict[str, Any]) -> Any:
            values = function(**{**fixed, **moving})
            return values.sum(), values

        gradients, values = jax.grad(summed, has_aux=True)(moving)
        return values, [gradients[name] for name in wrt]

    return program


def _jax_gradients(function: Function, batches: list[Any], wrt: tuple[str, ...]) -> Any:
    return _by_jax(_jax_program(function, wrt), batches, wrt)


def _jitted_gradients(function: Function, batches: list[Any], wrt: tuple[str, ...]) -> Any:
    return _by_jax(_jitted(_jax_program(function, wrt)), batches, wrt)


def _by_jax(program: Function, batches: list[Any], wrt: tuple[str, ...]) -> Any:
    for arrays in batches:
        moving = {name: arrays[name] for name in wrt}
        yield program(moving, {name: arrays[name] for name in arrays if name not in wrt})


def _of_tape(function: Function, arrays: dict[str, Any], wrt: tuple[str, ...]) -> Any:
    import tensorflow as tf

    leaves = [arrays[name] for name in wrt]
    with tf.GradientTape() as tape:
        tape.watch(leaves)
        values = function(**arrays)
    found = tape.gradient(values, leaves, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return values, [tf.convert_to_tensor(gradient) for gradient in found]


def _tape_gradients(function: Function, batches: list[Any], wrt: tuple[str, ...]) -> Any:
    return [_of_tape(function, arrays, wrt) for arrays in batches]


@lru_cache(_KEPT)
def _tape_program(function: Function, wrt: tuple[str, ...]) -> Function:
    return lambda arrays: _of_tape(function, arrays, wrt)


def _graph_gradients(function: Function, batches: list[Any], wrt: tuple[str, ...]) -> Any:
    # As Keras does: definitions have no Python branch on array values, so nothing needs rewriting.
    return [_graph(_tape_program(function, wrt))(arrays) for arrays in batches]


_GRADIENTS: dict[str, Callable[..., Any]] = {
    "torch": _eager_torch_gradients,
    "torch-compile": _compiled_torch_gradients,
    "jax": _jax_gradients,
    "jax-jit": _jitted_gradients,
    "tensorflow": _tape_gradients,
    "tensorflow-function": _graph_gradients,
}
