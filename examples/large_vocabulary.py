"""Next words out of 32,000: the last layer and its loss as one function.

The logits of a batch, one per token and word, are larger than everything else in this network. The
same network learns twice, each time in a process of its own: with all logits and cross_entropy, and
with linear_cross_entropy, which makes them slice by slice and keeps none. Text: the source of
Python's standard library. The last layer's weight is the embedding's ("tied").
"""

import collections
import re
import resource
import subprocess
import sys
import sysconfig
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import torch

from lossary import Loss

WORDS, FEATURES, BATCH, LENGTH, STEPS = 32_000, 128, 32, 64, 12


def words() -> Iterator[str]:
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield from re.findall(r"\w+|[^\w\s]", file.read_text("utf-8"))


def text() -> torch.Tensor:
    """The text as indices of its commonest words; 0 stands for all others."""
    common = collections.Counter(words()).most_common(WORDS - 1)
    place = {word: i for i, (word, _) in enumerate(common, start=1)}
    return torch.frombuffer(array("q", (place.get(word, 0) for word in words())), dtype=torch.int64)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(WORDS, FEATURES)
        torch.nn.init.normal_(self.embedding.weight, std=FEATURES**-0.5)
        self.memory = torch.nn.GRU(FEATURES, FEATURES, batch_first=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.memory(self.embedding(tokens))[0]


def train(sliced: bool) -> None:
    torch.manual_seed(0)
    tokens, network = text(), Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    whole, slices = Loss("cross_entropy"), Loss("linear_cross_entropy")
    course, before, seconds = [], peak(), 0.0
    for _ in range(STEPS):
        start = torch.randint(len(tokens) - LENGTH - 1, (BATCH, 1))
        batch = tokens[start + torch.arange(LENGTH + 1)]
        begin = time.perf_counter()
        hidden, target, weight = network(batch[:, :-1]), batch[:, 1:], network.embedding.weight
        loss = slices(hidden, weight, target) if sliced else whole(hidden @ weight.T, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds += time.perf_counter() - begin
        course.append(loss.item())
    name = "linear_cross_entropy" if sliced else "all logits"
    print(
        f"{name:<21} loss {course[0]:.3f} to {course[-1]:.3f}   "
        f"{seconds / STEPS:.2f} s a step   {peak() - before:4.0f} MiB more at the peak"
    )


def peak() -> float:
    """The most memory that this process has had, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    if sys.argv[1:]:
        train(sys.argv[1] == "sliced")
    else:
        for way in ("whole", "sliced"):
            subprocess.run([sys.executable, __file__, way], check=True)
