"""Selects prompts from sampled lines: distinct, all classes present, none too frequent."""

import math
import re
from collections import Counter
from collections.abc import Iterable

from porting.stages.prompts import grammar
from porting.stages.prompts.grammar import CLASSES, Sentence


class Selection:
    """Accepts lines in order until there are enough; depends on the lines alone.

    A line passes if it parses and is new. Two rules then keep the set balanced. Of the remaining
    places, one is reserved for every mention of a class that is still missing: when no others are
    left, a line must name its share of them. And a line is surplus if a quarter of all prompts name
    each of its classes already; streets and cars may exceed that beside rarer things.

    Args:
        count: number of prompts.
        min_per_class: smallest number of prompts that name each class.
        loose: see `grammar.parse`.
        known: lines that count as accepted before, such as the examples in a model's input.

    Attributes:
        accepted: accepted sentences, in order.
        lines: number of lines judged.
        per_class: number of accepted sentences that name each class.
        rejects: number of rejected lines by reason.
        examples: first rejected line of each reason.
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
        self.examples: dict[str, str] = {}

    @property
    def complete(self) -> bool:
        """Whether no more lines are needed."""
        return len(self.accepted) == self.count

    def missing(self) -> dict[str, int]:
        """Class -> number of prompts that are still missing for it."""
        short = {name: self._min - self.per_class[name] for name in CLASSES}
        return {name: number for name, number in short.items() if number > 0}

    def add(self, line: str) -> Sentence | None:
        """Judges one line; returns the sentence if it is accepted."""
        self.lines += 1
        result = grammar.parse(line, loose=self._loose)
        if isinstance(result, Sentence):
            result = self._balance(result)
        if isinstance(result, str):
            self.rejects[result] += 1
            self.examples.setdefault(result, line)
            return None
        self._seen.add(_key(result.text))
        self.per_class.update(result.classes)
        self.accepted.append(result)
        return result

    def _balance(self, sentence: Sentence) -> Sentence | str:
        """The sentence, or why the set does not need it."""
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
        """Counts of accepted and rejected lines with reasons, as plain JSON."""
        return {
            "accepted": len(self.accepted),
            "lines": self.lines,
            "rejects": {
                reason: {
                    "count": self.rejects[reason],
                    "meaning": meaning,
                    "example": self.examples[reason][:200],
                }
                for reason, meaning in grammar.REASONS.items()
                if self.rejects[reason]
            },
            "prompts_per_class": {name: self.per_class[name] for name in CLASSES},
            "missing": self.missing(),
        }


def _key(text: str) -> str:
    return re.sub(r"[^a-z]+", " ", text.casefold()).strip()
