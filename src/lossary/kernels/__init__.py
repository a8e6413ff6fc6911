"""Other implementations of the same signatures: faster or leaner, never different in meaning.

``find(loss, library)`` gives the :class:`Kernel` objects of a loss in order of preference, where
``<loss>_of_<form>`` names a loss of predictions that arrive in another form;
importing this package or calling ``find`` imports no toolchain. For a kernel to run, three
questions are asked:

1. ``kernel.supports(*arrays, **parameters)``: None, or the one-line reason why not (dtype, layout,
   device, a toolchain that is missing, a transformation in progress). The arrays are the
   definition's inputs in its order. It looks at shapes and flags, never at values. A kernel asked
   for by name that declines is an error. One with ``kernel.halves`` takes half precision as it is:
   its values, and the weights, are float32, and its gradients, of the predictions' dtypes, are
   rounded once.
2. ``kernel.from_size`` and ``kernel.below``: ``auto`` takes the kernel from that many prediction
   elements on (or whatever ``kernel.size(*arrays)`` counts) and for fewer than that many, as
   measured.
3. What is wanted:

   - ``kernel.values(*arrays, **parameters)``: the unreduced units, differentiable by the framework,
     any order of derivative;
   - ``kernel.scaled_sum(*arrays, factor, weights=None, **parameters)``: the differentiable scalar
     ``factor * sum(weights * values)``, its gradients written in the same pass. The mean passes
     ``factor = 1/n``, the weighted mean ``1 / sum(weights)``. ``weights`` has the shape of the
     units; a unit of weight 0 is absent: its prediction and target are not read into the result,
     whatever they hold, so a mask or an ignored target is passed as weights and nothing needs to be
     blanked before (where units meet each other, as rows of a batch, it still meets them);
   - ``kernel.value_and_grad(*arrays, factor, weights=None, **parameters)``: (that sum, its gradient
     by the prediction, or a tuple if there are several) for libraries without a tape of their own:
     NumPy and eager JAX.

Each of the three is None where a kernel does not offer it. A kernel that ``skips`` takes weights
of 1 and 0 for ``values``, too: 0 is absent, its value is 0. A kernel may offer a shortcut besides:
``kernel.prepare(*arrays, factor, ignore=None, divisor=None, **parameters)`` returns a function of
such arrays: the scaled sum for arrays of these shapes and dtypes, or the values if ``factor`` is
None. It is called where ``kernel.ready(*arrays)``, the part of ``supports`` that shapes and dtypes
do not decide, is true. Units whose class index is ``ignore`` are absent; ``divisor`` says that the
sum is divided by the others' "count" or "weight" (of their class) instead. Where the kernel
``weighs``, that function takes ``weights`` and a ``mask`` of the units' leading dimensions, and
divides by the count or weight of the units that count. Second derivatives, ``vmap`` and ``jvp`` go
through the definition, which the kernels find in the registry by the loss's name; a kernel that is
``traced`` (by JAX) does them itself.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from lossary.contract import contract_of
from lossary.kernels import formulas


@dataclass(frozen=True)
class Kernel:
    """One implementation of one loss for one library; see the package's docstring."""

    name: str
    loss: str
    library: str
    supports: Callable[..., str | None]
    values: Callable[..., Any] | None = None
    scaled_sum: Callable[..., Any] | None = None
    value_and_grad: Callable[..., Any] | None = None
    from_size: int = 0
    below: float = math.inf
    device: str | None = None  # the only kind of device that it runs on
    ready: Callable[..., bool] | None = None
    prepare: Callable[..., Callable[..., Any]] | None = None
    skips: bool = False  # ``values`` takes ``weights``, of which 0 means absent
    weighs: bool = False  # what ``prepare`` returns takes ``weights`` and ``mask``
    size: Callable[..., int] | None = None  # what these two count, if not prediction elements
    counted: str = "elements"  # what ``explain`` calls these
    traced: bool = False  # runs inside of JAX's transformations
    halves: bool = False  # takes half precision as it is; computes and returns float32 values

    def declines_size(self, *arrays: Any) -> str | None:
        """Why ``auto`` leaves arrays of this size to others; None if it does not."""
        size = self.size(*arrays) if self.size else math.prod(arrays[0].shape)
        if size < self.from_size:
            return f"{size} {self.counted}; it pays from {self.from_size} on"
        return f"{size} {self.counted}; it pays below {self.below}" if size >= self.below else None


def _formulas() -> tuple[str, ...]:
    return tuple(name for name, _ in inspect.getmembers(formulas, inspect.isfunction))


@functools.cache
def manifest() -> dict[tuple[str, str], tuple[str, ...]]:
    """(loss, library) -> "toolchain.module" of each implementation, in order of preference."""
    rows: dict[tuple[str, str], tuple[str, ...]] = {
        (loss, library): (f"numba.on_{library}",)
        for loss in (*_formulas(), *WHOLE_ARRAY)
        for library in ("numpy", "torch", "jax")
    }
    for loss in {*_formulas()} - {*WHOLE_ARRAY} | {"cross_entropy"}:
        rows[loss, "torch"] += ("triton.on_torch",)
    for key in NATIVE:
        rows[key] = ("native.on_torch", *rows[key])
    for loss in CHUNKED:
        for library in ("torch", "jax"):
            rows[loss, library] = (f"chunked.on_{library}",)
    return rows


# Losses whose units read more than one number; the numba module that holds each.
WHOLE_ARRAY: dict[str, str] = {
    "cross_entropy": "softmax",
    "kl_divergence": "divergences",
    "jensen_shannon": "divergences",
    "kl_divergence_of_log_probabilities": "divergences",
    "dice_cross_entropy": "dice",
    "cross_entropy_of_log_probabilities": "picked",
    "multi_margin": "margins",
    "multilabel_margin": "margins",
    "triplet": "distances",
    "cosine_embedding": "distances",
    "contrastive": "distances",
    "ctc": "ctc",
}
# Losses whose largest intermediate is made slice by slice.
CHUNKED = ("linear_cross_entropy", "info_nce", "siglip", "supervised_contrastive")
# The frameworks' own operations of the same meaning that are exact; the small arrays' choice.
NATIVE: tuple[tuple[str, str], ...] = tuple(
    (loss, "torch")
    for loss in (
        "squared_error",
        "absolute_error",
        "huber",
        "smooth_l1",
        "cross_entropy_of_log_probabilities",
    )
)


@functools.cache
def inputs_of(name: str) -> tuple[str, ...]:
    """The arrays of the loss that the manifest calls ``name``, in the definition's order."""
    return tuple(contract_of(name.partition("_of_")[0]).inputs)


@functools.cache
def differentiated(name: str) -> tuple[int, ...]:
    """Which of its arrays kernels differentiate by: the places of the predictions."""
    contract = contract_of(name.partition("_of_")[0])
    return tuple(tuple(contract.inputs).index(each) for each in contract.predictions)


def definition(name: str) -> Callable[..., Any]:
    """The definition that the manifest's ``name`` stands in for."""
    loss, _, arrival = name.partition("_of_")
    contract = contract_of(loss)
    return contract.forms[arrival] if arrival else contract.compute


def find(loss: str, library: str, name: str | None = None) -> tuple[Kernel, ...]:
    """The kernels of ``loss`` on arrays of ``library``, all or those called ``name``."""
    modules = manifest().get((loss, library), ())
    if name is not None:
        modules = tuple(module for module in modules if module.partition(".")[0] == name)
    return tuple(_module(module).kernel(loss) for module in modules)


def _module(path: str) -> ModuleType:
    return importlib.import_module(f"lossary.kernels.{path}")
