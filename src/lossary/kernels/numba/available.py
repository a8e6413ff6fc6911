"""Whether Numba can be used here, found out without importing it."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import tempfile
from pathlib import Path

TESTED = (0, 60)  # from this version on


@functools.cache
def why_not() -> str | None:
    """None, or why kernels compiled by Numba cannot run in this process."""
    try:
        version = importlib.metadata.version("numba")
    except importlib.metadata.PackageNotFoundError:
        return "numba is not installed: pip install lossary[fast]"
    if tuple(int(part) for part in version.split(".")[:2]) < TESTED:
        return f"numba {version} is older than {'.'.join(map(str, TESTED))}, the oldest tested"
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return "NUMBA_DISABLE_JIT is set"
    return (
        None
        if _cache_writable()
        else "numba's cache directory cannot be written; set NUMBA_CACHE_DIR"
    )


def _cache_writable() -> bool:
    # Numba's own order: NUMBA_CACHE_DIR, beside the source, the user's cache directory.
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    user = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "numba"
    places = [Path(chosen)] if chosen else [Path(__file__).parent / "__pycache__", user]
    return any(_writable(place) for place in places)


def _writable(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False
