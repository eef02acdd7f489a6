"""Finds what a training program has put before the names of a family: `_orig_mod.`, `student.`, ...

No prefix is known by name: one is found by how many names fit a family's rules without it.
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Collection, Iterator

from porting.tables import Table
from porting.tables.misfits import pattern_of

_DEPTH = 4  # dots in the longest prefix


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A family that some names of a checkpoint fit once a prefix is cut off.

    Attributes:
        table: rules of the family.
        prefix: the start of these names, "" or up to and with a dot.
        used: number of names with a target.
        unknown: number of names in the checkpoint without the prefix or without a rule.
    """

    table: Table
    prefix: str
    used: int
    unknown: int


class Names:
    """The names of a checkpoint, cut at every dot.

    Args:
        names: of all tensors.
    """

    def __init__(self, names: Collection[str]):
        self._total = len(names)
        # Names that differ in an index alone fit the same rules, so one of each pattern is tried.
        self._examples: dict[str, str] = {}
        self._prefixes: dict[str, collections.Counter[str]] = {}
        for name in names:
            for prefix in _prefixes(name):
                rest = name[len(prefix) :]
                pattern = pattern_of(rest)
                self._examples.setdefault(pattern, rest)
                self._prefixes.setdefault(pattern, collections.Counter())[prefix] += 1

    def candidates(self, table: Table) -> list[Candidate]:
        """The prefixes under which names fit a family, the best first; a short one among equals."""
        target, known = _patterns(table)
        used: collections.Counter[str] = collections.Counter()
        without_target: collections.Counter[str] = collections.Counter()
        for pattern, example in self._examples.items():
            if target.fullmatch(example):
                used += self._prefixes[pattern]
            elif known.fullmatch(example):
                without_target += self._prefixes[pattern]
        found = [
            Candidate(table, prefix, count, self._total - count - without_target[prefix])
            for prefix, count in used.items()
        ]
        return sorted(found, key=rank)


def rank(candidate: Candidate) -> tuple[int, int, int]:
    """The better the smaller."""
    return candidate.unknown, -candidate.used, len(candidate.prefix)


def apart(prefix: str, other: str) -> bool:
    """Whether no name begins with both prefixes."""
    return not prefix.startswith(other) and not other.startswith(prefix)


def _prefixes(name: str) -> Iterator[str]:
    """Yields "" and every start of a name that ends in a dot."""
    yield ""
    end = 0
    for _ in range(_DEPTH):
        end = name.find(".", end) + 1
        if not end:
            return
        yield name[:end]


@functools.cache
def _patterns(table: Table) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of all names with a target, and of all others that the rules know."""

    def joined(has_target: bool) -> re.Pattern[str]:
        rules = [rule for rule in table.rules if (rule.target is not None) == has_target]
        return re.compile("|".join(f"(?:{rule.pattern})" for rule in rules) or r"(?!)")

    return joined(True), joined(False)
