"""The lab from Python: whatever data and model are at hand, with validation rows of one's own."""

import multiprocessing
import os
import re
import resource
import sys

import numpy as np
import pandas
import polars
import pytest
import torch

from lossary.contract import LossError
from lossary.lab import compare
from lossary.lab.data import load, read
from lossary.lab.files import write_files
from lossary.lab.model import load_model
from lossary.lab.network import Modules
from lossary.lab.run import Settings, make_plan
from lossary.lab.split import split

torch.set_num_threads(1)
QUICK = {"seeds": 2, "epochs": 3, "rate": 0.01}


@pytest.fixture(scope="module")
def wine():
    data = read("wine")
    order = np.random.default_rng(0).permutation(178)
    features, target = data.features[order], data.target.values[order]
    return (features[:130], target[:130]), (features[130:], target[130:])


def test_validation_rows_judge_every_seed_and_train_none(wine):
    data = load(*wine)
    assert data.held_out == 48
    parts = split(data, [0, 1])
    for seed in range(2):
        assert parts.test.rows[seed].tolist() == list(range(130, 178))
        seen = {*parts.train.rows[seed], *parts.validation.rows[seed]}
        assert seen == set(range(130))
    assert make_plan(data, Settings()).batch == 8  # of 104 training rows
    assert data.digest != load((data.features, data.target.values)).digest


def test_arrays_tensors_and_frames_give_the_same_account(wine):
    account = compare(*wine, losses=["cross_entropy"], **QUICK)
    wanted = account["tables"]["as is"]["losses"]["cross_entropy"]["best"]
    assert "judged on the 48 validation rows" in account["data"]["notes"][-1]
    tensors = [tuple(torch.from_numpy(item) for item in side) for side in wine]
    sides = [(tensors, {})]
    for frame in (polars.DataFrame, pandas.DataFrame):
        tables = [
            frame({f"c{k}": x[:, k] for k in range(13)} | {"sort": y.astype(np.int64)})
            for x, y in wine
        ]
        sides.append((tables, {"target": "sort"}))
    for (train, validation), more in sides:
        again = compare(train, validation, losses=["cross_entropy"], **QUICK, **more)
        assert again["tables"]["as is"]["losses"]["cross_entropy"]["best"] == wanted


def test_files_for_both_sides(tmp_path):
    text = "a,b,y\n" + "".join(f"{i % 7},{i % 5},{i * 0.5}\n" for i in range(60))
    for name in ("train.csv", "validation.csv"):
        (tmp_path / name).write_text(text)
    data = load(tmp_path / "train.csv", tmp_path / "validation.csv", "y")
    assert (len(data.features), data.held_out, data.name) == (120, 60, "train.csv")


def test_missing_rows_are_dropped_on_their_own_side():
    train = polars.DataFrame({"a": [1.0, None] * 30, "y": [0.5 * k for k in range(60)]})
    data = load(train, train, "y", drop_missing=True)
    assert (len(data.features), data.held_out) == (60, 30)


def test_without_training(wine):
    features, target = wine[0]
    chances = np.full((130, 3), 1 / 3)
    account = compare((features, target), predictions=chances, losses=["cross_entropy"])
    assert account["losses"]["cross_entropy"]["value"] == pytest.approx(np.log(3), rel=1e-5)


def test_a_storage_keeps_what_python_found(wine, tmp_path):
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    first = compare(*wine, losses=["cross_entropy"], storage=url, **QUICK)
    again = compare(*wine, losses=["cross_entropy"], storage=url, **QUICK)
    assert again["tables"] == first["tables"]


def write_cramped(account, folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        write_files(account, folder)
    except LossError as error:
        wanted = rf"--output {folder}: cannot be written: .*File too large.*"
        os._exit(7 if re.fullmatch(wanted, str(error)) else 8)


def test_a_folder_that_cannot_be_written_or_is_full_gets_one_line(wine, tmp_path):
    account = compare(*wine, losses=["cross_entropy"], **QUICK)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LossError, match=r"--output .*file: cannot be written"):
        write_files(account, tmp_path / "file")
    process = multiprocessing.get_context("fork").Process(
        target=write_cramped, args=(account, tmp_path / "report")
    )
    process.start()
    process.join()
    assert process.exitcode == 7


@pytest.mark.parametrize(
    ("arguments", "settings", "pattern"),
    [
        (((np.ones(5), np.ones(5)),), {}, r"train: features have shape \(5,\)"),
        (
            ((np.ones((30, 2)), np.arange(30)), (np.ones((30, 3)), np.arange(30))),
            {},
            "train and validation: features have shapes",
        ),
        (((np.ones((30, 2)), np.arange(30)), "file.csv"), {}, "train: is a tuple; expected"),
        (({"a": 1},), {}, "train: is a dict; expected a pair"),
        ((polars.DataFrame({"y": []}),), {"target": "y"}, "train: has columns but no rows"),
        (
            (polars.DataFrame({"a": [1], "y": [1]}), polars.DataFrame({"b": [1], "y": [1]})),
            {"target": "y"},
            "columns differ: a, b",
        ),
        (
            (pandas.DataFrame([[1, 2], [3, 4]], columns=["y", "y"]),),
            {"target": "y"},
            "column 'y' occurs 2 times",
        ),
        (
            (pandas.DataFrame({"a": [1, "two", 3.0], "y": [1, 2, 3]}),),
            {"target": "y"},
            "train: a column mixes types",
        ),
        (("wine",), {"losses": "cross_entropy"}, r"expected a list of names"),
        (("wine",), {"losses": ["cross_entropy"], "epoch": 3}, "no setting 'epoch'; it can be see"),
    ],
)
def test_bad_input_gets_one_line(arguments, settings, pattern):
    with pytest.raises(LossError, match=pattern) as caught:
        compare(*arguments, **settings)
    assert "\n" not in str(caught.value)


class Recurrent(torch.nn.Module):
    """vmap has no rule for recurrent layers."""

    def __init__(self, outputs):
        super().__init__()
        self.memory = torch.nn.GRU(1, 4, batch_first=True)
        self.last = torch.nn.Linear(4, outputs)

    def forward(self, rows):
        return self.last(self.memory(rows[..., None])[0][:, -1])


def normalised(inputs, outputs):
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(8, outputs),
    )


def test_functions_of_this_process_are_models(wine, tmp_path):
    def build(inputs, outputs):
        return Recurrent(outputs)

    account = compare(*wine, losses=["cross_entropy"], model=build, **QUICK)
    assert "build" in account["plan"]["model"]
    account = compare(
        *wine, losses=["cross_entropy"], model=lambda i, o: normalised(i, o), seeds=2, epochs=12,
        rate=0.03,
    )  # fmt: skip
    scores = account["tables"]["as is"]["losses"]["cross_entropy"]["best"]["accuracy"]
    assert min(scores) > 0.8


def test_dropout_rests_and_averages_stand_still_while_judging():
    stack = Modules(normalised, 4, 3, [0, 1])
    rows = torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(0))
    stack.forward(rows)
    means = stack._buffers["1.running_mean"].clone()
    assert means.abs().min() > 0
    with torch.no_grad():
        torch.testing.assert_close(stack.forward(rows), stack.forward(rows))
    torch.testing.assert_close(stack._buffers["1.running_mean"], means)


def test_stacked_recurrent_modules_equal_one_alone():
    rows = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    both, alone = (Modules(lambda i, o: Recurrent(o), 4, 3, seeds) for seeds in ([0, 1], [1]))
    torch.testing.assert_close(both.forward(rows)[1:], alone.forward(rows[1:]))
    for stack in (both, alone):
        stack.backward(torch.ones(len(stack.parameters[0]), 5, 3))
    for several, one in zip(both.parameters, alone.parameters, strict=True):
        torch.testing.assert_close(several.grad[1:], one.grad)


def test_a_module_in_the_folder_is_found_and_its_faults_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    (tmp_path / "of_this_folder.py").write_text("def build(inputs, outputs):\n    return inputs\n")
    assert load_model("of_this_folder:build")(1, 2) == 1
    (tmp_path / "broken_here.py").write_text("def build(:\n")
    with pytest.raises(LossError, match="--model broken_here:build: SyntaxError: invalid syntax"):
        load_model("broken_here:build")
    with pytest.raises(LossError, match="--model of_this_folder:other: AttributeError"):
        load_model("of_this_folder:other")


def no_parameters(inputs, outputs):
    return torch.nn.Flatten()


def wrong_rows(inputs, outputs):
    return torch.nn.Linear(inputs + 1, outputs)


def wrong_width(inputs, outputs):
    return torch.nn.Linear(inputs, outputs + 1)


def whatever(inputs, outputs, sizes=iter(range(2, 100))):
    return torch.nn.Linear(inputs, next(sizes))


@pytest.mark.parametrize(
    ("model", "pattern"),
    [
        (no_parameters, "without parameters"),
        (wrong_rows, r"its forward raised RuntimeError on rows of shape \(8, 13\)"),
        (wrong_width, r"outputs of shape \(8, 4\) for a batch of 8; expected \(8, 3\)"),
        (whatever, "modules with unlike parameters"),
    ],
)
def test_a_model_that_does_not_fit_gets_one_line(wine, model, pattern):
    with pytest.raises(LossError, match=f"model: .*{pattern}") as caught:
        compare(*wine, losses=["cross_entropy"], model=model, **QUICK)
    assert "\n" not in str(caught.value)
