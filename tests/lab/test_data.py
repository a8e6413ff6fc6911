"""Every kind of file gives the same numbers; several labels, counts and pictures find their
task.
"""

import numpy as np
import polars
import pytest
from PIL import Image

from lossary.lab import compare
from lossary.lab.data import read

RANDOM = np.random.default_rng(0)
FRAME = polars.DataFrame(
    {
        "a": RANDOM.normal(size=90),
        "b": RANDOM.integers(0, 5, 90),
        "kind": [["red", "blue", "green"][k % 3] for k in range(90)],
    }
)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "arrow"])
def test_every_format_gives_the_same_data(tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    if suffix == "csv":
        FRAME.write_csv(path)
    elif suffix == "tsv":
        FRAME.write_csv(path, separator="\t")
    elif suffix == "parquet":
        FRAME.write_parquet(path)
    else:
        FRAME.write_ipc(path)
    data = read(path, "kind")
    np.testing.assert_allclose(data.features, FRAME.select("a", "b").to_numpy(), rtol=1e-6)
    assert data.target.labels == ("blue", "green", "red")
    assert data.target.values[:3].tolist() == [2, 0, 1]


def test_arrays_in_npz_tables_and_pictures(tmp_path):
    np.savez(tmp_path / "table.npz", x=FRAME["a"].to_numpy()[:, None], y=FRAME["b"].to_numpy() / 2)
    assert read(tmp_path / "table.npz").target.task == "real"
    pixels = RANDOM.integers(0, 255, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", x=pixels, y=np.arange(40) % 2)
    data = read(tmp_path / "pictures.npz")
    assert data.features.shape == (40, 3, 8, 8)
    assert data.features.max() <= 1


def test_a_folder_of_pictures_is_a_task_of_its_folders(tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for k in range(12):
            shade = RANDOM.integers(0, 100, (10, 12, 3)) + 100 * (kind == "dog")
            Image.fromarray(shade.astype(np.uint8)).save(tmp_path / kind / f"{k}.png")
    data = read(tmp_path)
    assert data.features.shape == (24, 3, 32, 32)
    assert data.target.labels == ("cat", "dog")
    assert "24 pictures scaled to 32 x 32" in data.notes[0]


def test_several_label_columns_train(tmp_path):
    a = RANDOM.normal(size=200)
    table = polars.DataFrame({"a": a, "hot": (a > 0).astype(int), "cold": (a < 0.5).astype(int)})
    table.write_csv(tmp_path / "labels.csv")
    data = read(tmp_path / "labels.csv", "hot,cold")
    assert data.target.task == "multi-label"
    assert data.target.labels == ("hot", "cold")
    losses = ["binary_cross_entropy", "squared_error", "hinge"]
    account = compare(data, losses=losses, seeds=2, epochs=20, rate=0.01)
    for name in losses:
        row = account["tables"]["as is"]["losses"][name]
        assert np.mean(row["best"]["macro F1"]) > 0.9


def test_counts_train_under_their_own_losses(tmp_path):
    a = RANDOM.normal(size=300)
    polars.DataFrame({"a": a, "n": RANDOM.poisson(np.exp(1 + a))}).write_csv(tmp_path / "n.csv")
    data = read(tmp_path / "n.csv", "n")
    assert data.target.task == "count"
    losses = ["poisson_nll", "negative_binomial_nll", "poisson_deviance", "squared_error"]
    account = compare(data, losses=losses, seeds=2, epochs=20, rate=0.01, metric="Poisson deviance")
    part = account["tables"]["as is"]
    constant = np.mean(account["baselines"]["constant: mean"]["Poisson deviance"])
    for name in losses[:3]:
        assert np.mean(part["losses"][name]["best"]["Poisson deviance"]) < 0.5 * constant
