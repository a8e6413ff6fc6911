"""Which array library is this? Found from the type in hand; nothing new is imported.

A value of type X proves that X's library is loaded, so looking up its namespace never loads a
framework that the user did not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from lossary.contract import Array, LossError

_HOMES = {
    "numpy": "array_api_compat.numpy",
    "ml_dtypes": "array_api_compat.numpy",
    "cupy": "array_api_compat.cupy",
    "torch": "lossary.xp.torch",
    "jax": "lossary.xp.jax",
    "jaxlib": "lossary.xp.jax",
    "dask": "array_api_compat.dask.array",
    "tensorflow": "lossary.xp.tensorflow",
    "array_api_strict": "array_api_strict",
}
_LIBRARIES = {
    "array_api_compat.numpy": "numpy",
    "array_api_compat.cupy": "cupy",
    "lossary.xp.torch": "torch",
    "lossary.xp.jax": "jax",
    "array_api_compat.dask.array": "dask",
    "lossary.xp.tensorflow": "tensorflow",
    "array_api_strict": "array_api_strict",
}
_FOUND: dict[type, ModuleType] = {}
_NUMBERS = (bool, int, float, type(None), tuple)
_SIGNATURES: dict[type, Callable[..., tuple[Any, ...] | None]] = {}


def namespace(*arrays: Array) -> Any:
    """The array namespace of the arguments; numbers, tuples and None do not count."""
    found: ModuleType | None = None
    for array in arrays:
        kind = type(array)
        if kind in _NUMBERS:
            continue
        xp = _FOUND.get(kind) or _find(kind)
        # Compared by identity: hashing modules breaks torch.compile.
        if found is not None and xp is not found:
            raise LossError(
                f"arrays of two libraries came together: {library_name(found)} and "
                f"{library_name(xp)}; convert one of them"
            )
        found = xp
    if found is None:
        raise LossError("no array came, only numbers; pass arrays")
    return found


def _find(kind: type) -> ModuleType:
    for base in kind.__mro__:  # subclasses such as torch.nn.Parameter are found too
        home = _HOMES.get(base.__module__.partition(".")[0])
        if home == "lossary.xp.torch":  # a statement, which torch.compile can trace
            from lossary.xp import torch as found

            if not found.is_compiling():
                _FOUND[kind] = found
            return found
        if home:
            return _FOUND.setdefault(kind, import_module(home))
    home = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    raise LossError(
        f"{home}{kind.__qualname__} is not an array of a supported library; pass an array of NumPy "
        "(numpy.asarray makes one), PyTorch, JAX, TensorFlow, CuPy or Dask"
    )


def get_ready() -> None:
    """Find torch's namespace, if torch is loaded: its compiler cannot trace the first search."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "nn") and torch.Tensor not in _SIGNATURES:
        home: Any = _find(torch.Tensor)
        _find(torch.nn.Parameter)
        _SIGNATURES.update({torch.Tensor: home.signature, torch.nn.Parameter: home.signature})


def library_name(xp: ModuleType) -> str:
    """The short name of a namespace: numpy, torch, jax, tensorflow, cupy, dask."""
    return _LIBRARIES[xp.__name__]


def library(*arrays: Array) -> str:
    """The short name of the arrays' library."""
    return library_name(namespace(*arrays))


def is_array(value: Any) -> bool:
    """Whether ``value`` is an array of a supported library."""
    if type(value) in _NUMBERS:
        return False
    try:
        namespace(value)
    except LossError:
        return False
    return True


def device(array: Array) -> Any:
    """The device to create companions of ``array`` on; None where the library follows by itself."""
    return array.device if library(array) in ("torch", "cupy") else None


def tracing(array: Array) -> bool:
    """Whether a compiler or a transformation stands between us and the values."""
    name = library(array)
    if name == "torch":
        import torch

        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return True
        return type(array) not in (torch.Tensor, torch.nn.Parameter)
    if name == "jax":
        import jax

        return isinstance(array, jax.core.Tracer)
    if name == "tensorflow":
        return not hasattr(array, "numpy")
    return name == "dask"


def signature(
    arrays: tuple[Array, ...], same: Array | None = None, beside: tuple[Array | None, ...] = ()
) -> tuple[Any, ...] | None:
    """Libraries, dtypes, shapes, gaps and kind of device, as a key; None where values are traced.

    ``same`` is in the key by its values, as long as whoever keeps the key keeps the array: None
    where a library does not say whether they have changed. ``beside`` are constants, or not there.
    """
    first = type(arrays[0])
    quick = _SIGNATURES.get(first)
    if quick is not None:
        return quick(arrays, same, beside)
    if same is not None or any(array is not None for array in beside):
        return None
    try:
        if first in _NUMBERS or tracing(arrays[0]):
            return None
        key = []
        for array in arrays:
            kind = type(array)
            if kind is not first and (kind in _NUMBERS or tracing(array)):
                return None
            key.append((kind, array.dtype, tuple(array.shape)))
    except LossError:  # no array at all: the checks that follow say so, and name the loss
        return None
    return tuple(key)


def visible(array: Array) -> bool:
    """Whether the values can be looked at now, without a compiler or a device transfer."""
    if tracing(array):
        return False
    return library(array) != "torch" or array.device.type == "cpu"


def to_numpy(array: Array) -> np.ndarray:
    """The values as a NumPy array (copied only where the library must)."""
    if library(array) == "torch":
        array = array.detach()
        if array.dtype.itemsize == 2 and str(array.dtype) == "torch.bfloat16":
            array = array.float()  # NumPy has no bfloat16; float32 holds it exactly
        array = array.cpu().resolve_conj().resolve_neg().numpy()
    return np.asarray(array)
