"""Denoising scikit-learn's two sample photographs with a small network, all seeds as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lossary.evaluate import Loss
from lossary.lab.need import need
from lossary.lab.network import Adam, Modules

SIDE = 32
NOISE = 0.1
STEPS = 400
BATCH = 8


def denoise(name: str, seeds: Sequence[int], rate: float = 0.002) -> dict[str, np.ndarray]:
    """PSNR and SSIM per seed on the right halves, after training on the left halves."""
    pictures = [
        torch.from_numpy(np.asarray(image, dtype=np.float32).mean(-1) / 255)
        for image in need("sklearn.datasets").load_sample_images().images
    ]
    middle = pictures[0].shape[1] // 2
    train = torch.stack([picture[:, :middle] for picture in pictures])
    test = torch.stack([_patches(picture[:, middle:]) for picture in pictures]).flatten(0, 1)
    loss = Loss(name)
    stack = Modules(_network, None, 1, list(seeds))
    optimiser = Adam(stack.parameters, [rate] * len(seeds))
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    for _ in range(STEPS):
        clean = torch.stack([_crops(train, draw) for draw in draws])
        noisy = clean + NOISE * torch.stack(
            [torch.randn(clean.shape[1:], generator=draw) for draw in draws]
        )
        restored = stack.forward(noisy).requires_grad_()
        value = loss.values(restored, clean).flatten(1).mean(1).sum()
        stack.backward(*torch.autograd.grad(value, restored))
        optimiser.step()
    noise = torch.randn(test.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        many = (test + NOISE * noise)[None].expand(len(seeds), *test.shape)
        restored = stack.forward(many).clamp(0, 1)
        error = ((restored - test) ** 2).flatten(1).mean(1)
        likeness = [1 - Loss("ssim")(picture, test) for picture in restored]
    psnr = (-10 * torch.log10(error)).numpy().astype(float)
    return {"PSNR": psnr, "SSIM": torch.stack(likeness).numpy().astype(float)}


class Denoiser(torch.nn.Module):
    """Three convolutions that learn what to take away from the noisy picture."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 12, 5, padding=2),
            torch.nn.ReLU(),
            torch.nn.Conv2d(12, 12, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(12, 1, 3, padding=1),
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Noisy pictures (batch, 1, height, width) to clean ones."""
        return rows - self.layers(rows)


def _network(inputs: object, width: int) -> torch.nn.Module:
    return Denoiser()


def _crops(pictures: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """(BATCH, 1, SIDE, SIDE) at random places."""
    _, height, width = pictures.shape
    which = torch.randint(0, len(pictures), (BATCH,), generator=draw).tolist()
    tops = torch.randint(0, height - SIDE, (BATCH,), generator=draw).tolist()
    lefts = torch.randint(0, width - SIDE, (BATCH,), generator=draw).tolist()
    return torch.stack(
        [
            pictures[k, top : top + SIDE, left : left + SIDE][None]
            for k, top, left in zip(which, tops, lefts, strict=True)
        ]
    )


def _patches(picture: torch.Tensor, side: int = 64) -> torch.Tensor:
    """Every whole patch, (patches, 1, side, side)."""
    found = picture.unfold(0, side, side).unfold(1, side, side)
    return found.reshape(-1, 1, side, side)
