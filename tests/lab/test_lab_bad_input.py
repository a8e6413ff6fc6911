"""Bad input gets one line that says what came and what to do; nothing is trained."""

import re

import numpy as np
import pytest

from lossary.advice import describe
from lossary.contract import LossError
from lossary.cost import Objective
from lossary.evaluate import Loss
from lossary.lab import compare, images
from lossary.lab.choose import fitted, fitted_all, split_names
from lossary.lab.data import from_arrays, read
from lossary.lab.heads import head_for
from lossary.lab.run import Settings, run
from lossary.lab.split import split

GOOD = "a,b,y\n" + "".join(f"{i},{i * 7 % 11},{i % 2}\n" for i in range(40))


def write(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(pattern, *arguments, **keywords):
    with pytest.raises(LossError) as caught:
        read(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    assert re.search(pattern, message), message


@pytest.mark.parametrize(
    ("text", "target", "pattern"),
    [
        ("", "y", "is empty"),
        ("a,b,y\n", "y", "no rows"),
        (GOOD, "z", "no column 'z'; it has"),
        (GOOD, None, "say which column to predict"),
        ("a,b,a\n1,2,3\n", "a", "'a' occurs 2 times"),
        ("a,b,y\n1,2\n1,2,3,4,5\n", "y", "cannot be read as csv"),
        (
            "a,y\n1,\n,2\n3,1\n",
            "y",
            r"2 of 3 rows hold missing.*first rows 1, 2; say --drop-missing",
        ),
        ("a,y\n1,inf\n2,2\n3,1\n", "y", r"1 of 3 rows hold missing or infinite"),
        ("a,y\n" + "1,yes\n" * 30, "y", "every value is 'yes'"),
        ("a,y\n" + "1,3.5\n" * 30, "y", "every value is 3.5|at least two"),
        ("a,y\n" + "".join(f"{i},name {i}\n" for i in range(60)), "y", "nearly all unique texts"),
        ("a,y\n" + "".join(f"{i},{'word ' * 12}{i}\n" for i in range(60)), "y", "free text"),
        (
            "a,y\n" + "".join(f"{i},2020-01-{i % 28 + 1:02}\n" for i in range(60)),
            "y",
            "holds dates",
        ),
        (
            "a,y\n" + "".join(f"{i},{i if i != 7 else 'seven'}\n" for i in range(60)),
            "y",
            "mixes numbers and texts: 1 texts, the first 'seven' in row 8",
        ),
        ("y\n" + "1\n2\n" * 30, "y", "no column is left"),
        (b"a,\0y\n1,2\n", "y", "is not text"),
    ],
)
def test_a_bad_table_gets_one_line(tmp_path, text, target, pattern):
    refused(pattern, write(tmp_path, text), target)


def test_too_many_columns_are_counted(tmp_path):
    header = ",".join(f"c{i}" for i in range(100_000))
    refused("100000 columns", write(tmp_path, header + "\n"), "c1")
    np.savez(tmp_path / "wide.npz", x=np.zeros((2, 100_000), np.uint8), y=np.arange(2))
    refused("100000 columns", tmp_path / "wide.npz")
    with pytest.raises(LossError, match="100000 columns"):
        from_arrays(np.zeros((2, 100_000)), [0, 1])


def test_arrays_without_rows(tmp_path):
    np.savez(tmp_path / "none.npz", x=np.zeros((0, 3)), y=np.zeros(0))
    refused("none.npz: has no rows", tmp_path / "none.npz")
    with pytest.raises(LossError, match="arrays: has no rows"):
        from_arrays(np.zeros((0, 3)), [])


def test_a_million_classes_are_counted(tmp_path):
    rows = "".join(f"{i % 7},{i}\n" for i in range(1_000_000))
    refused("1000000 classes; the lab takes at most", write(tmp_path, "a,y\n" + rows), "y",
            task="classes")  # fmt: skip
    with pytest.raises(LossError, match=r"1000000 classes; the lab takes at most 1000"):
        describe(np.arange(1_000_000), task="classes")


def test_millions_of_texts_are_counted_not_sorted(tmp_path, monkeypatch):
    """Neither sorting nor the search for dates may meet them: both take half a minute."""
    rows = "".join(f"{i % 7},label{i},{i % 2}\n" for i in range(200_000))
    path = write(tmp_path, "a,y,z\n" + rows)

    def sorts(*arguments, **keywords):
        raise AssertionError("millions of texts are being sorted")

    with monkeypatch.context() as patched:
        patched.setattr(np, "unique", sorts)
        refused(
            "20000 different texts in 20000 of 200000 rows look like nearly all unique", path, "y"
        )
        with pytest.raises(LossError, match="20000 different texts in 20000 of 200000 rows"):
            describe(np.array([f"label{k}" for k in range(200_000)], dtype=object))
    assert "column 'y' has 200000 different texts" in read(path, "z").notes[0]


def test_columns_left_out_are_named_where_none_is_left(tmp_path):
    rows = "".join(f"{i},5;{i * 3 % 7}\n" for i in range(60))
    refused(
        "no column is left to predict y from; column 'a' has 60 different texts",
        write(tmp_path, "a;y\n" + rows),
        "y",
    )


@pytest.mark.parametrize(
    ("texts", "columns"),
    [
        (["2020-01-31", "2021-12-01"], ["day: season, cosine", "day: season, sine"]),
        (["31/01/2020", "01/12/2021"], ["day: season, cosine", "day: season, sine"]),
        (
            ["2020-01-31T10:30:00", "2021-12-01T23:00:00"],
            [f"day: {part}, {wave}" for part in ("season", "hour") for wave in ("cosine", "sine")],
        ),
        (["2020-01-31", "soon"], ["day = 2020-01-31", "day = soon"]),
    ],
)
def test_dates_are_told_from_texts(tmp_path, texts, columns):
    rows = "".join(f"{texts[i % 2]},{i % 3}\n" for i in range(60))
    assert read(write(tmp_path, "day,y\n" + rows), "y").columns == tuple(columns)


def test_a_text_after_thousands_of_numbers_is_read(tmp_path):
    rows = "".join(f"{i},{i % 2}\n" for i in range(12_000)) + "many,1\n"
    refused("column 'a' has 12001 different texts", write(tmp_path, "a,y\n" + rows), "y")
    missing = "".join(f"{i},{i % 2}\n" for i in range(12_000)) + "NA,1\n"
    data = read(write(tmp_path, "a,y\n" + missing), "y", drop_missing=True)
    assert len(data.features) == 12_000


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [
        ({"seeds": 0}, "seeds=0: give a whole number from 1 up"),
        ({"epochs": -1}, "epochs=-1: give a whole number"),
        ({"batch": 2.5}, r"batch=2\.5: give a whole number"),
        ({"hidden": (0,)}, r"hidden=\(0,\): give units per layer"),
        ({"rate": float("nan")}, "rate=nan: give a learning rate above 0"),
        ({"noise": (2,)}, r"noise=\(2,\): each share lies between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense_get_one_line(settings, pattern):
    with pytest.raises(LossError, match=pattern):
        Settings(**settings)


@pytest.mark.parametrize(
    ("harm", "name"), [("outliers", "wine"), ("imbalance", "diabetes"), ("label noise", "diabetes")]
)
def test_a_harm_that_does_not_apply_is_refused_before_training(harm, name):
    settings = Settings(seeds=1, **{harm.removeprefix("label "): (0.1,)})
    with pytest.raises(LossError, match=f"{harm}: does not apply to a"):
        run(read(name), ["squared_error"], settings, note=lambda *_: pytest.fail("trained"))


def test_files_that_are_not_there_or_not_data(tmp_path):
    refused("no such file; give a file, or one of the sets digits", tmp_path / "nothing.csv", "y")
    refused("cannot read .docx files", write(tmp_path, "x", "a.docx"), "y")
    refused("cannot be read as parquet", write(tmp_path, "not parquet", "a.parquet"), "y")
    refused("is not a readable .npz", write(tmp_path, "not npz", "a.npz"), "y")
    refused("holds no pictures", tmp_path)
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object), y=np.array([1]))
    refused("is not a readable .npz", tmp_path / "objects.npz", "y")


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "cat").mkdir()
    write(tmp_path / "cat", "no picture", "broken.png")
    with pytest.raises(LossError, match=r"broken\.png: is not a readable picture"):
        images.read_folder(tmp_path)


def test_a_bom_and_semicolons_are_read(tmp_path):
    text = "\ufeff" + GOOD.replace(",", ";")
    data = read(write(tmp_path, text), "y")
    assert data.columns == ("a", "b")
    assert data.target.task == "binary"


def test_missing_rows_are_dropped_on_request(tmp_path):
    data = read(write(tmp_path, GOOD + "5,,1\n"), "y", drop_missing=True)
    assert len(data.features) == 40
    assert data.notes == ("dropped 1 of 41 rows with missing values",)


def test_dates_categories_and_unique_texts(tmp_path):
    rows = "".join(
        f"2020-{i % 12 + 1:02}-01,{'red' if i % 3 else 'blue'},id {i},{i * 0.5}\n"
        for i in range(80)
    )
    data = read(write(tmp_path, "day,colour,id,y\n" + rows), "y")
    assert data.columns == (
        "day: season, cosine",
        "day: season, sine",
        "colour = blue",
        "colour = red",
    )
    assert data.target.task == "real"
    assert "column 'id' has 80 different texts" in data.notes[0]


def test_rare_classes_and_few_rows_are_refused(tmp_path):
    rare = read(write(tmp_path, "a,y\n" + "1,x\n2,z\n" * 30 + "3,w\n"), "y")
    with pytest.raises(LossError, match="class 'w' has 1 rows"):
        split(rare, [0])
    few = read(write(tmp_path, "a,y\n1,0\n2,1\n3,0\n4,1\n"), "y")
    with pytest.raises(LossError, match="4 rows are too few"):
        split(few, [0])


def test_losses_that_do_not_fit_say_so():
    target = describe(np.arange(30) * 0.5)
    with pytest.raises(
        LossError, match=r"cross_entropy: compares class logits with classes.*real target"
    ):
        head_for(fitted("cross_entropy", target), target)
    with pytest.raises(LossError, match="did you mean"):
        fitted("cros_entropy", target)
    with pytest.raises(LossError, match="not understood; write huber:parameter=value"):
        fitted("huber:delta", target)
    with pytest.raises(LossError, match="outside"):
        fitted("huber:delta=-1", target)


def test_classes_that_the_first_look_misses_are_counted_all_the_same():
    rows = np.arange(100_000)
    described = describe(np.array(["a", "b", "c"])[rows % 3])
    assert described.labels == ("a", "b", "c")
    hidden = np.where(rows % 5, rows, 0).astype(str)  # every fifth row, those looked at, is "0"
    with pytest.raises(LossError, match="80001 different texts in 100000 rows look like nearly"):
        describe(hidden)
    with pytest.raises(LossError, match="at least 2000 classes; the lab takes at most 1000"):
        describe(np.array([f"class {row % 2000}" for row in rows // 5]))


@pytest.mark.parametrize(
    "item",
    [
        "huber:reduction=sum",
        "huber:delta=2,reduction=batch_mean",
        "huber:ignore=3",
        "squared_error+0.5*huber:reduction=sum",
        Loss("huber", reduction="sum"),
        Loss("huber", ignore=3),
        Objective(a=(1.0, Loss("squared_error")), b=(0.5, Loss("huber", reduction="none"))),
    ],
    ids=str,
)
def test_settings_that_training_would_ignore_are_refused(item):
    data = from_arrays(np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) * 0.5)
    said = r"^huber.*: (reduction|ignore)=\w+ would be ignored, since .*; leave it out$"
    with pytest.raises(LossError, match=said):
        fitted_all([item], data.target)
    with pytest.raises(LossError, match=said):
        compare((data.features, data.target.values), losses=[item], sweep=True, seeds=2)


def test_a_loss_of_probabilities_is_trained_on_its_logits():
    target = describe(np.arange(30) % 2)
    alone, alias, given = fitted_all(
        [
            "binary_cross_entropy:predictions=probabilities",
            "BinaryCrossentropy",
            Loss("binary_cross_entropy", predictions="probabilities", implementation="definition"),
        ],
        target,
    ).values()
    assert alone == alias == Loss("binary_cross_entropy")
    assert given == Loss("binary_cross_entropy", implementation="definition")


def test_names_and_settings_are_told_apart():
    assert split_names("a,huber:delta=2,reduction=sum,ldam:class_counts=(1,2),b") == [
        "a",
        "huber:delta=2,reduction=sum",
        "ldam:class_counts=(1,2)",
        "b",
    ]
