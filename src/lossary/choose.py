"""Which implementation runs: the definition, or a kernel of the manifest that supports the call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lossary.contract import Array, Contract, LossError
from lossary.xp import device as xp_device
from lossary.xp import library

if TYPE_CHECKING:
    from lossary.kernels import Kernel

DEFINITION = "definition"


def traced(
    name: str, reduction: str, parameters: Mapping[str, Any], ignore: float | None
) -> Callable[..., Any] | None:
    """What torch.compile is to trace instead of the definition, if torch is loaded by now."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "nn"):
        return None
    from lossary import kernels

    if (name, "torch") not in kernels.manifest():
        return None
    from lossary.kernels import in_graph

    return in_graph.traced(name, reduction, parameters, ignore)


def in_graphs(name: str) -> str:
    """What runs inside of graphs of torch.compile, where something is traced."""
    from lossary.kernels import in_graph

    return in_graph.where_it_runs(name)


def name_of(contract: Contract, arrival: str | None) -> str:
    """The loss as the manifest calls it: with the form in which its predictions arrive."""
    return contract.name if arrival is None else f"{contract.name}_of_{arrival}"


def candidates(
    name: str, implementation: str, arrays: Mapping[str, Array], *, traced: bool = False
) -> tuple[Kernel, ...]:
    """The kernels that may run on arrays of this library and size; ``traced`` by a compiler."""
    if implementation == DEFINITION:
        return ()
    where = library(*arrays.values())
    if traced and where != "jax":  # there, compilers take the definition
        return ()
    from lossary import kernels

    named = None if implementation == "auto" else implementation
    found = kernels.find(name, where, named)
    if traced:
        fixed = all(isinstance(n, int) for array in arrays.values() for n in array.shape)
        found = tuple(item for item in found if item.traced and fixed)
    if named is not None:
        return found
    device = getattr(xp_device(next(iter(arrays.values()))), "type", "cpu")
    return tuple(
        item
        for item in found
        if item.device in (None, device) and item.declines_size(*arrays.values()) is None
    )


def choose(
    name: str,
    implementation: str,
    kernels: tuple[Kernel, ...],
    arrays: Mapping[str, Array],
    parameters: Mapping[str, Any],
) -> Kernel | None:
    """The kernel that runs; None for the definition. An error if one asked for by name declines."""
    reasons = []
    for kernel in kernels:
        reason = kernel.supports(*arrays.values(), **parameters)
        if reason is None:
            return kernel
        reasons.append(reason)
    if implementation in ("auto", DEFINITION):
        return None
    why = "; ".join(reasons) or f"there is none of that name for {library(*arrays.values())} arrays"
    raise LossError(
        f"{name}: implementation={implementation!r} was asked for, but {why}; "
        "use implementation='auto'"
    )


def explain(
    name: str,
    implementation: str,
    arrays: Mapping[str, Array],
    parameters: Mapping[str, Any],
) -> str:
    """One line on what runs, and one per kernel that does not, with its reason."""
    from lossary import kernels

    where = library(*arrays.values())
    if implementation == DEFINITION:
        return f"{name} on {where}: the definition, as asked for"
    named = None if implementation == "auto" else implementation
    runs, lines = "the definition", []
    for kernel in kernels.find(name, where, named):
        reason = kernel.supports(*arrays.values(), **parameters)
        if reason is None and named is None:
            reason = kernel.declines_size(*arrays.values())
        if reason is None and runs != "the definition":
            reason = f"{runs} is quicker here"
        if reason is not None:
            lines.append(f"  not {kernel.name}: {reason}")
        else:
            runs = kernel.name
    if runs == "the definition" and not lines:
        lines.append(f"  no kernel of this loss for {where} arrays")
    return "\n".join([f"{name} on {where}: {runs}", *lines])
