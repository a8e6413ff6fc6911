"""Pages by what people type, found by the words of the pages themselves: the rarer, the heavier."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossary.doctor.registry import Check

# A page that shares less than this much of a phrase with what was typed is not shown.
LEAST = 0.4
# A phrase of whose telling words the pages hold less than this much is about something else.
KNOWN = 0.35
# What counts in a page: a phrase that people type, a sentence that describes the fault, the rest.
PHRASE, SENTENCE, BODY = 1.0, 0.8, 0.5
# Words typed that a phrase lacks weigh less than words of the phrase that were not typed: whole
# error messages are pasted, with types, shapes and file names.
TYPED_ONLY, PHRASE_ONLY = 0.15, 0.4
# Words that say nothing about a fault, however rare they are in the pages.
_EVERYWHERE = frozenset(
    "torch pytorch lightning keras tensorflow tf jax numpy python error".split()
)


def words(text: str) -> frozenset[str]:
    """The stems and numbers of a text; ``NLLLoss`` is nllloss, nll and loss."""
    text = text.replace("’", "'").replace("'", "").replace("_", " ")
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    found = re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?|[a-z]+", f"{text} {parts}".lower())
    return frozenset(_stem(word) for word in found if word not in _EVERYWHERE)


def _stem(word: str) -> str:
    """A word without the endings of number and tense."""
    if word[0].isdigit():
        return word.replace(",", "")
    for ending, other in (("ies", "y"), ("sses", "ss"), ("ss", "ss"), ("us", "us"), ("s", "")):
        if word.endswith(ending) and len(word) > 3:
            word = word.removesuffix(ending) + other
            break
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) > len(ending) + 3:
            word = word.removesuffix(ending)
            if word[-1] == word[-2] and word[-1] not in "ls":
                word = word[:-1]
            break
    return word.removesuffix("e") if len(word) > 4 else word


# Words of any sentence: they help to rank pages, and say nothing of what a phrase is about.
_GRAMMAR = frozenset(
    _stem(word)
    for word in (
        "a an the this that these those it its i my we our you your he his they their some any all "
        "each every other another one of in on at to for from with without by as into over under "
        "about after before between out up down off and or but if than then so not no only too "
        "also just very more most is are was were be been do does did have has had can could "
        "should would will may must there here how what why when where which who use used using "
        "get make want need"
    ).split()
)


def _same_number(one: str, other: str) -> bool:
    """Whether one decimal number is the other, rounded or cut off."""
    digits = min(len(text.partition(".")[2]) for text in (one, other))
    if not digits:
        return False
    difference = abs(float(one) - float(other)) * 10**digits
    return difference < (1.01 if digits > 2 else 0.51)


class Index:
    """The words of all pages, with their weights."""

    def __init__(self, checks: Iterable[Check]) -> None:
        self.checks = list(checks)
        self.phrases = {item.name: _phrases(item) for item in self.checks}
        self.body = {item.name: words(f"{item.name} {item.page}") for item in self.checks}
        pages = Counter(word for body in self.body.values() for word in body)
        count = len(self.checks)
        self.weight = {word: math.log(1 + count / times) for word, times in pages.items()}
        self.rarest = math.log(1 + count)
        self.numbers = [word for word in self.weight if "." in word]

    def find(self, text: str) -> list[Check]:
        """Checks whose pages describe ``text``, best first."""
        typed = {self._known(word) for word in words(text)}
        telling = typed - _GRAMMAR
        if not telling or self._mass(telling & self.weight.keys()) < KNOWN * self._mass(telling):
            return []
        near = [item for item in self.checks if telling & self.body[item.name]]
        scores = {item.name: self._score(typed, item.name) for item in near}
        found = [item for item in near if scores[item.name] >= LEAST]
        return sorted(found, key=lambda item: -scores[item.name])

    def _known(self, word: str) -> str:
        if word in self.weight or "." not in word:
            return word
        same = [number for number in self.numbers if _same_number(word, number)]
        return min(same, key=lambda number: abs(float(number) - float(word)), default=word)

    def _mass(self, chosen: Iterable[str]) -> float:
        return sum(self.weight.get(word, self.rarest) for word in chosen)

    def _score(self, typed: set[str], name: str) -> float:
        best = 0.0
        for phrase, factor in self.phrases[name]:
            shared = self._mass(typed & phrase)
            if shared:
                missed = TYPED_ONLY * self._mass(typed - phrase)
                missed += PHRASE_ONLY * self._mass(phrase - typed)
                best = max(best, factor * shared / (shared + missed))
        covered = self._mass(typed & self.body[name]) / max(1e-9, self._mass(typed))
        return best + BODY * covered * best


@cache
def index_of(checks: tuple[Check, ...]) -> Index:
    """The index of these checks, made once."""
    return Index(checks)


def _phrases(check: Check) -> list[tuple[frozenset[str], float]]:
    from lossary.doctor.pages import parts

    told = parts(check)
    sentences = [check.summary, told["Symptom"], told["Cause"]]
    clauses = [clause for text in sentences for clause in re.split(r"[.;:](?:\s|$)", text)]
    named = [(check.name, PHRASE), *((phrase, PHRASE) for phrase in check.searches)]
    texts = [*named, *((clause, SENTENCE) for clause in clauses)]
    return [(words(text), factor) for text, factor in texts if words(text)]
