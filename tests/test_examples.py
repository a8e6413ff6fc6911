"""Each example runs as a reader runs it, in a process of its own, and shows what it promises."""

import multiprocessing
import os
import re
import runpy
import sys
from itertools import pairwise
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
# Processes that come from one with nothing but these libraries loaded: each would load them.
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["torch._dynamo", "sklearn.datasets", "matplotlib.pyplot"])


def run(name, *arguments, folder):
    process = FRESH.Process(target=_run, args=(str(EXAMPLES / name), arguments, folder))
    process.start()
    process.join(300)
    process.kill()
    process.join()
    errors = (folder / "errors").read_text()
    assert process.exitcode == 0, errors
    assert "Traceback" not in errors
    return (folder / "shown").read_text()


def _run(script, arguments, folder):
    os.chdir(folder)
    for stream, name in ((1, "shown"), (2, "errors")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv[:] = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def losses(text):
    return [float(number) for number in re.findall(r"^epoch +\d+ +loss ([\d.]+)$", text, re.M)]


def number(text, before):
    """The number after a phrase."""
    return float(re.search(re.escape(before) + r"\s+(-?[\d.]+)", text).group(1))


@pytest.mark.parametrize(
    ("name", "ours", "simple", "larger_is_better"),
    [
        ("real_number", "mean error on new patients", "always saying the mean", False),
        ("yes_or_no", "right on new patients", "always saying yes", True),
        ("one_of_many", "right on new digits", "guessing", True),
    ],
)
def test_first_lessons_learn_and_beat_the_simplest_answer(
    name, ours, simple, larger_is_better, tmp_path
):
    text = run(f"first_lesson_{name}.py", folder=tmp_path)
    course = losses(text)
    assert len(course) == 7
    assert all(after < before for before, after in pairwise(course))
    gain = number(text, ours) - number(text, simple)
    assert gain > 10 if larger_is_better else gain < -10
    if name == "one_of_many":  # indices and one-hot rows are taken alike
        assert number(text, "loss by class index") == number(text, "one-hot")


def test_training_by_hand_prints_a_falling_loss_and_agrees_with_lossary(tmp_path):
    text = run("training_by_hand.py", folder=tmp_path)
    course = losses(text)
    assert len(course) == 15
    assert course[-1] < course[0] / 10
    assert number(text, "right on new digits") > 95
    by_hand = number(text, "loss on new digits, by hand")
    assert by_hand == pytest.approx(number(text, "loss on new digits, Lossary"), abs=1e-6)


def test_training_by_hand_uses_numpy_alone_to_train():
    code = (EXAMPLES / "training_by_hand.py").read_text()
    imported = set(re.findall(r"^(?:from|import) (\w+)", code, re.M))
    assert imported == {"numpy", "sklearn", "lossary"}


def test_outliers_move_the_squared_line_more_and_draw_it(tmp_path):
    text = run("outliers.py", "picture.png", folder=tmp_path)
    moved = dict(re.findall(r"^(\w+) .*line moved ([\d.]+)$", text, re.M))
    assert float(moved["squared_error"]) > 5 * float(moved["absolute_error"])
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_custom_loss_trains_towards_what_it_prices(tmp_path):
    text = run("custom_loss.py", folder=tmp_path)
    mean = number(text, "mean demand")
    assert number(text, "stock by squared_error") == pytest.approx(mean, abs=0.02)
    assert number(text, "stock by shortage ") > mean + 1
    assert number(text, "stock by shortage, price=20") > number(text, "stock by shortage ") + 1
    assert number(text, "plain function on NumPy") == 1


def test_a_large_vocabulary_learns_the_same_without_its_logits(tmp_path):
    whole, sliced = run("large_vocabulary.py", folder=tmp_path).splitlines()
    course = [re.search(r"loss ([\d.]+) to ([\d.]+)", line).groups() for line in (whole, sliced)]
    for before, after in zip(*course, strict=True):
        assert float(after) == pytest.approx(float(before), abs=0.01)
    first, last = map(float, course[1])
    assert last < first - 2
    assert number(sliced, "a step") < 0.5 * number(whole, "a step")
