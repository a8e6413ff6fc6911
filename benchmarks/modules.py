"""PyTorch's modules and ours in their place, on tensors as they come in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import lossary.torch
from benchmarks.steps import Step, Workload, torch_step

Arrays = tuple[torch.Tensor, ...]


def _contenders(
    name: str, arrays: Callable[[], Arrays], learned: tuple[int, ...] = (0,), **options: Any
) -> dict[str, Callable[[], Step]]:
    def step(library: Any, wrap: Callable[..., Any]) -> Callable[[], Step]:
        def made() -> Step:
            torch.manual_seed(0)
            given = [array.detach() for array in arrays()]
            leaves = [given[place].requires_grad_() for place in learned]
            module = wrap(getattr(library, name)(**options))
            return torch_step(lambda: module(*given), *leaves)

        return made

    return {
        "lossary": step(lossary.torch, lambda module: module),
        "torch eager": step(torch.nn, lambda module: module),
        "torch.compile": step(torch.nn, torch.compile),
        "lossary, compiled": step(lossary.torch, torch.compile),
    }


def _ignoring(target: torch.Tensor) -> torch.Tensor:
    target.view(-1)[::10] = -100
    return target


def _shifted() -> Arrays:
    logits, labels = torch.randn(8, 257, 2000), torch.randint(0, 2000, (8, 257))
    return logits[:, :-1].transpose(1, 2), labels[:, 1:]


def _pixels() -> Arrays:
    return torch.randn(8, 21, 128, 128), _ignoring(torch.randint(0, 21, (8, 128, 128)))


def _halves() -> Arrays:
    return torch.randn(2048, 8000).bfloat16(), torch.randint(0, 8000, (2048,))


def _labels() -> Arrays:
    return torch.randn(4096, 80), (torch.rand(4096, 80) > 0.9).float()


def _column() -> Arrays:
    return torch.randn(64, 3, 40, 40, 6)[..., 4], (torch.rand(64, 3, 40, 40) > 0.9).float()


def _log_probabilities() -> Arrays:
    return torch.randn(4096, 1000).log_softmax(-1), torch.randint(0, 1000, (4096,))


def _counts() -> Arrays:
    return torch.randn(4096, 80), torch.poisson(torch.rand(4096, 80) * 5)


def _noisy() -> Arrays:
    return torch.randn(4096, 80), torch.randn(4096, 80), torch.rand(4096, 80) + 0.1


def _embeddings() -> Arrays:
    return torch.randn(4096, 256), torch.randn(4096, 256), torch.randn(4096, 256)


def _pairs() -> Arrays:
    first, second, _ = _embeddings()
    return first, second, torch.sign(torch.randn(4096))


def _speech() -> Arrays:
    shares = torch.randn(200, 32, 64).log_softmax(-1)
    return shares, torch.randint(1, 64, (32, 30)), torch.full((32,), 200), torch.full((32,), 30)


MODULES = {
    "shifted": Workload("CrossEntropyLoss, next token, 8 x 256 x 2000", _contenders(
        "CrossEntropyLoss", _shifted
    ), 15),
    "pixels": Workload("CrossEntropyLoss, pixels, 8 x 21 x 128 x 128", _contenders(
        "CrossEntropyLoss", _pixels, weight=torch.linspace(0.5, 2.0, 21)
    ), 15),
    "halves": Workload("CrossEntropyLoss, bfloat16, 2048 x 8000", _contenders(
        "CrossEntropyLoss", _halves
    ), 15),
    "labels": Workload("BCEWithLogitsLoss, pos_weight, 4096 x 80", _contenders(
        "BCEWithLogitsLoss", _labels, pos_weight=torch.linspace(1.0, 9.0, 80)
    ), 30),
    "column": Workload("BCEWithLogitsLoss, x[..., 4] of 64 x 3 x 40 x 40 x 6", _contenders(
        "BCEWithLogitsLoss", _column
    ), 30),
    "probabilities": Workload("BCELoss, 4096 x 80", _contenders(
        "BCELoss", lambda: (torch.rand(4096, 80) * 0.98 + 0.01, _labels()[1])
    ), 30),
    "weighted": Workload("BCEWithLogitsLoss, weight of each label, 4096 x 80", _contenders(
        "BCEWithLogitsLoss", _labels, weight=torch.linspace(0.5, 2.0, 80)
    ), 30),
    "log_probabilities": Workload("NLLLoss, 4096 x 1000", _contenders(
        "NLLLoss", _log_probabilities
    ), 30),
    "counts": Workload("PoissonNLLLoss, full, 4096 x 80", _contenders(
        "PoissonNLLLoss", _counts, full=True
    ), 30),
    "noise": Workload("GaussianNLLLoss, 4096 x 80", _contenders(
        "GaussianNLLLoss", _noisy, (0, 2)
    ), 30),
    "triplets": Workload("TripletMarginLoss, 4096 x 256", _contenders(
        "TripletMarginLoss", _embeddings, (0, 1, 2)
    ), 15),
    "pairs": Workload("CosineEmbeddingLoss, 4096 x 256", _contenders(
        "CosineEmbeddingLoss", _pairs, (0, 1)
    ), 15),
    "labels_apart": Workload("MultiMarginLoss, 4096 x 80", _contenders(
        "MultiMarginLoss", lambda: (torch.randn(4096, 80), torch.randint(0, 80, (4096,)))
    ), 30),
    "speech": Workload("CTCLoss, 200 x 32 x 64, 30 labels", _contenders("CTCLoss", _speech), 15),
}  # fmt: skip
