"""Which of many sampled lines become the prompts: distinct, all classes, none of them too often."""

import math
import re
from collections import Counter
from collections.abc import Iterable

from porting.stages.prompts import grammar
from porting.stages.prompts.grammar import CLASSES, Sentence


class Selection:
    """Takes lines in order until there are enough; depends on the lines and nothing else.

    A line passes if it parses and is new. Two rules then keep the set balanced. As many of the
    places that are left are kept for missing classes as namings are missing: when only those are
    left, a line must name its share of them. And a line is surplus if each class it names is named
    by a quarter of all prompts already; streets and cars may exceed that beside rarer things.

    Args:
        count: prompts that are needed.
        min_per_class: prompts that name each class, at least.
        loose: see `sentences.parse`.
        known: lines that count as accepted before, such as the examples a model saw.
    """

    def __init__(
        self, count: int, min_per_class: int, *, loose: bool = False, known: Iterable[str] = ()
    ):
        self.count, self._min, self._loose = count, min_per_class, loose
        self._cap = max(min_per_class, math.ceil(count / 4))
        self._seen = {_key(line) for line in known}
        self.accepted: list[Sentence] = []
        self.lines = 0
        self.per_class: Counter[str] = Counter()
        self.rejects: Counter[str] = Counter()
        self.examples: dict[str, str] = {}  # reason -> the first line

    @property
    def complete(self) -> bool:
        """Whether no more lines are needed."""
        return len(self.accepted) == self.count

    def missing(self) -> dict[str, int]:
        """The classes that are named too rarely, and by how many prompts."""
        short = {name: self._min - self.per_class[name] for name in CLASSES}
        return {name: number for name, number in short.items() if number > 0}

    def add(self, line: str) -> Sentence | None:
        """Judges one line; returns the sentence if it is taken."""
        self.lines += 1
        found = grammar.parse(line, loose=self._loose)
        if isinstance(found, Sentence):
            found = self._wanted(found)
        if isinstance(found, str):
            self.rejects[found] += 1
            self.examples.setdefault(found, line)
            return None
        self._seen.add(_key(found.text))
        self.per_class.update(found.classes)
        self.accepted.append(found)
        return found

    def _wanted(self, sentence: Sentence) -> Sentence | str:
        if _key(sentence.text) in self._seen:
            return "duplicate"
        missing, places = self.missing(), self.count - len(self.accepted)
        lack, gain = sum(missing.values()), len(set(sentence.classes) & set(missing))
        if lack >= places and gain * places < lack:
            return "surplus"
        if all(self.per_class[name] >= self._cap for name in sentence.classes):
            return "surplus"
        return sentence

    def report(self) -> dict:
        """What was taken and refused and why, as JSON."""
        return {
            "accepted": len(self.accepted),
            "lines": self.lines,
            "rejects": {
                reason: {"count": self.rejects[reason], "meaning": grammar.REASONS[reason],
                         "example": self.examples[reason][:200]}
                for reason in grammar.REASONS
                if self.rejects[reason]
            },
            "prompts_per_class": {name: self.per_class[name] for name in CLASSES},
            "missing": self.missing(),
        }  # fmt: skip


def _key(text: str) -> str:
    return re.sub(r"[^a-z]+", " ", text.casefold()).strip()
