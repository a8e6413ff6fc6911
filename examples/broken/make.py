"""Ten broken cases: ``python examples/broken/make.py`` writes them, then

    lossary doctor examples/broken/*.npz

walks through what is wrong with each. Arrays and settings carry the names of ``lossary.examine``'s
arguments; ``explanation`` says what a person did wrong.
"""

from pathlib import Path

import numpy as np


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def cases() -> dict[str, dict[str, object]]:
    chance = np.random.default_rng(0)
    classes = chance.integers(0, 10, 512)
    logits = (3 * np.eye(10)[classes] + chance.normal(size=(512, 10))).astype(np.float32)
    truth = chance.normal(20, 4, 512).astype(np.float32)
    estimate = (truth + chance.normal(0, 1, 512)).astype(np.float32)
    yes = chance.integers(0, 2, 512)
    score = (2 * yes - 1 + chance.normal(size=512)).astype(np.float32)
    tokens = chance.integers(0, 30, (32, 25))
    language = (5 * np.eye(30)[tokens] + chance.normal(size=(32, 25, 30))).astype(np.float32)
    lengths = np.maximum(1, (25 * np.linspace(0.05, 1, 32) ** 2).astype(int))
    uneven = np.where(np.arange(25) < lengths[:, None], tokens, -100)
    gaps = np.where(chance.random(512) < 0.03, np.nan, truth)
    outliers = np.where(np.arange(512) % 200 == 11, 1000 * truth, truth)
    map_of_scores = chance.normal(size=(4, 12, 12, 5)).astype(np.float32)
    return {
        "01_softmax_twice": {
            "prediction": softmax(logits),
            "target": classes,
            "loss": "cross_entropy",
            "explanation": "the network ends in softmax and the loss applies it again",
        },
        "02_column_against_row": {
            "prediction": estimate[:, None],
            "target": truth,
            "loss": "mse",
            "explanation": "Linear(..., 1) gives a column, the targets are a row",
        },
        "03_labels_from_one": {
            "prediction": logits,
            "target": classes + 1,
            "loss": "cross_entropy",
            "explanation": "labels count from 1",
        },
        "04_mask_of_255": {
            "prediction": score,
            "target": 255.0 * yes,
            "loss": "binary_cross_entropy",
            "explanation": "an image file's white is 255, not 1",
        },
        "05_classes_last": {
            "prediction": map_of_scores,
            "target": chance.integers(0, 5, (4, 12, 12)),
            "loss": "cross_entropy",
            "axis": 1,
            "explanation": "channels last, and the loss reads axis 1",
        },
        "06_missing_targets": {
            "prediction": estimate,
            "target": gaps.astype(np.float32),
            "loss": "mse",
            "explanation": "3 % of the targets are missing and nothing masks them",
        },
        "07_hinge_on_zero_one": {
            "prediction": score,
            "target": yes.astype(np.float32),
            "loss": "hinge",
            "explanation": "hinge labels are -1 and 1",
        },
        "08_mean_of_means": {
            "prediction": (language * np.linspace(0.1, 1, 32)[:, None, None]).astype(np.float32),
            "target": uneven,
            "loss": "cross_entropy",
            "ignore": -100,
            "accumulation": 8,
            "explanation": "eight micro-batches of unequal length are averaged, then averaged "
            "again",
        },
        "09_outliers": {
            "prediction": estimate,
            "target": outliers.astype(np.float32),
            "loss": "mse",
            "explanation": "three rows are in another unit",
        },
        "10_shifted_twice": {
            "prediction": language,
            "target": np.concatenate([tokens[:, 1:], np.full((32, 1), -100)], axis=1),
            "loss": "cross_entropy",
            "ignore": -100,
            "explanation": "the data pipeline and the model both shift the labels",
        },
    }


if __name__ == "__main__":
    folder = Path(__file__).parent
    for name, case in cases().items():
        np.savez_compressed(
            folder / f"{name}.npz", **{key: np.asarray(value) for key, value in case.items()}
        )
