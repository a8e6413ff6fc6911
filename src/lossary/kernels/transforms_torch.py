# mypy: disable-error-code="no-untyped-call"
"""Transformations of PyTorch in progress, in which kernels leave the work to the definition."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def transformed() -> str | None:
    """Why a transformation in progress needs the definition; None if there is none."""
    if torch.compiler.is_compiling():
        return "torch.compile compiles the definition"
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transformation differentiates the definition"
    if forward_ad._current_level >= 0:
        return "forward-mode derivatives go through the definition"
    if torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None:
        return "a tracing mode looks at every operation"
    return None


def undisturbed(*arrays: torch.Tensor) -> bool:
    """Whether nothing looks at every operation or differentiates forward, whatever the arrays."""
    return (
        forward_ad._current_level < 0
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
    )
