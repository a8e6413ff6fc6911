"""The lab: trains networks on your data under several losses and shows what each loss did."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("compare", "read"):
        from lossary.lab import compare as comparison
        from lossary.lab.data import read

        return {"compare": comparison.compare, "read": read}[name]
    raise AttributeError(name)
