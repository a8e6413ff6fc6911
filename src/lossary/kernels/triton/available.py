"""Whether Triton can be used here, found out without importing it."""

from __future__ import annotations

import functools
import importlib.metadata
import os

TESTED = (3, 2)  # from this version on


def interpreted() -> bool:
    """Whether Triton's interpreter was asked for: slow, exact in meaning, on any device."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def why_not() -> str | None:
    """None, or why kernels compiled by Triton cannot run in this process."""
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "triton is not installed: pip install triton"
    if tuple(int(part) for part in version.split(".")[:2]) < TESTED:
        return f"triton {version} is older than {'.'.join(map(str, TESTED))}, the oldest tested"
    return None
