"""Pictures in one folder per class, read to one size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lossary.contract import LossError
from lossary.lab.need import need

SUFFIXES = (".png", ".jpg", ".jpeg")


def read_folder(path: Path, size: int = 32) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Pixels (n, 3, size, size) in [0, 1], the folder name of each, and notes."""
    image = need("PIL.Image")
    folders = sorted(item for item in path.iterdir() if item.is_dir())
    files = [
        (file, folder.name)
        for folder in folders
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise LossError(
            f"{path}: holds no pictures; expected one folder per class with "
            f"{', '.join(SUFFIXES)} files"
        )
    pixels = []
    for file, _ in files:
        try:
            with image.open(file) as picture:
                small = picture.convert("RGB").resize((size, size))
        except OSError as error:
            raise LossError(f"{file}: is not a readable picture ({error})") from None
        pixels.append(np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 255)
    names = np.array([name for _, name in files])
    return np.stack(pixels), names, (f"{len(files)} pictures scaled to {size} x {size}",)
