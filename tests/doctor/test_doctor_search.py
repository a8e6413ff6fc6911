"""What people type finds the page that helps, first."""

import csv
from pathlib import Path

import pytest

from lossary.doctor import all_checks
from lossary.doctor.registry import search
from lossary.doctor.search import words

# Symptoms as typed, and messages as frameworks print them: the pages that may come first.
with (Path(__file__).parent / "typed.csv").open(encoding="utf-8") as file:
    TYPED = {row["typed"]: row["pages"].split() for row in csv.DictReader(file)}


def test_there_are_enough_phrases() -> None:
    assert len(TYPED) > 250
    assert {page for pages in TYPED.values() for page in pages} >= set(all_checks())


@pytest.mark.parametrize("typed", TYPED)
def test_the_right_page_comes_first(typed: str) -> None:
    found = search(typed)
    assert found, "nothing"
    assert found[0].name in TYPED[typed], [item.name for item in found[:4]]


def test_every_phrase_of_a_page_finds_it() -> None:
    """A page is among the first three for each phrase that it lists."""
    for check in all_checks().values():
        for phrase in (check.name, *check.searches):
            assert check in search(phrase)[:3], phrase


def test_nonsense_finds_nothing() -> None:
    for typed in ("qqqq", "", "install pytorch", "!?"):
        assert search(typed) == []


OFF_TOPIC = """
git merge conflict in main branch; weather tomorrow in paris; why is the sky blue
docker compose port already in use; set up a virtual environment on windows; how to train a dog
how do I center a div in css; how to read a csv file in pandas; regex to match an email address
kubernetes pod stuck in pending; how to resize an image with pillow; how do i cook rice
javascript promise never resolves; how many layers should my network have; nginx returns 502
plot a confusion matrix with seaborn; mouse cursor is missing
dataloader num_workers deadlock; why does my car make a noise; the battery does not charge
""".replace("\n", ";").split(";")


@pytest.mark.parametrize("typed", filter(None, map(str.strip, OFF_TOPIC)))
def test_what_is_not_about_losses_finds_nothing(typed: str) -> None:
    assert [item.name for item in search(typed)] == []


def test_words() -> None:
    assert words("NLLLoss masked, classes") == words("nllloss NLL loss mask class")
    assert words("num_items_in_batch") == words("num items in batch")
    assert words("decreasing predicted losses 1,000") == words("decrease predict loss 1000")
