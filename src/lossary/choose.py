"""Which implementation runs: the definition, or a kernel of the manifest that supports the call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lossary.contract import Array, Contract, LossError
from lossary.xp import library, tracing

if TYPE_CHECKING:
    from lossary.kernels import Kernel

DEFINITION = "definition"


def verdicts(
    contract: Contract,
    implementation: str,
    arrays: Mapping[str, Array],
    parameters: Mapping[str, Any],
) -> list[tuple[Kernel, str | None]]:
    """Each kernel of this loss on these arrays, with the reason why it does not run, or None."""
    from lossary import kernels

    named = None if implementation == "auto" else implementation
    size = math.prod(next(iter(arrays.values())).shape)
    found = []
    for kernel in kernels.find(contract.name, library(*arrays.values()), named):
        reason = kernel.supports(*arrays.values(), **parameters)
        if reason is None and named is None and size < kernel.from_size:
            reason = f"{size} elements; it pays from {kernel.from_size} on"
        found.append((kernel, reason))
    return found


def choose(
    contract: Contract,
    implementation: str,
    arrays: Mapping[str, Array],
    parameters: Mapping[str, Any],
) -> Kernel | None:
    """The kernel that runs; None for the definition. An error if one asked for by name declines."""
    if implementation == DEFINITION:
        return None
    if tracing(*arrays.values()):  # a compiler or a transformation wants the definition
        if implementation == "auto":
            return None
        raise LossError(
            f"{contract.name}: implementation={implementation!r} was asked for, but a compiler or "
            "a transformation traces this call; use implementation='auto'"
        )
    found = verdicts(contract, implementation, arrays, parameters)
    for kernel, reason in found:
        if reason is None:
            return kernel
    if implementation == "auto":
        return None
    reasons = "; ".join(reason for _, reason in found if reason) or (
        f"there is none of that name for {library(*arrays.values())} arrays"
    )
    raise LossError(
        f"{contract.name}: implementation={implementation!r} was asked for, but {reasons}; "
        "use implementation='auto'"
    )


def explain(
    contract: Contract,
    implementation: str,
    arrays: Mapping[str, Array],
    parameters: Mapping[str, Any],
) -> str:
    """One line on what runs, and one per kernel that does not, with its reason."""
    where = library(*arrays.values())
    if implementation == DEFINITION:
        return f"{contract.name} on {where}: the definition, as asked for"
    found = verdicts(contract, implementation, arrays, parameters)
    runs = next((kernel.name for kernel, reason in found if reason is None), "the definition")
    lines = [f"{contract.name} on {where}: {runs}"]
    lines += [f"  not {kernel.name}: {reason}" for kernel, reason in found if reason is not None]
    if not found:
        lines.append(f"  no kernel of this loss for {where} arrays")
    return "\n".join(lines)
