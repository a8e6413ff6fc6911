"""``python -m lossary.torch`` prints the drop-in table of docs/torch.md."""

import inspect

from lossary.contract import REGISTRY, contracts
from lossary.torch.conventions import host_of
from lossary.torch.module import module_class

_LEGACY = ("size_average", "reduce")


def drop_in_table() -> str:
    """PyTorch's loss modules, and what stands in for them, as a Markdown table."""
    contracts()
    rows = ["| `torch.nn` | `lossary.torch` | loss | beyond PyTorch |", "|---|---|---|---|"]
    hosts = {key: host_of(key) for key in REGISTRY}
    for key, host in sorted(hosts.items(), key=lambda item: getattr(item[1], "__name__", "")):
        if host is None:
            continue
        theirs = dict(inspect.signature(host.__init__).parameters)
        ours = inspect.signature(module_class(key)).parameters
        shown = ", ".join(
            f"{name}={item.default!r}"
            for name, item in theirs.items()
            if name not in ("self", *_LEGACY)
        )
        more = ", ".join(f"`{name}`" for name in ours if name not in theirs)
        rows.append(
            f"| `{host.__name__}({shown})` | `{module_class(key).__name__}` "
            f"| `{REGISTRY[key][0].name}` | {more} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    print(drop_in_table())
