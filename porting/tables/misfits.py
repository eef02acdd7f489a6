"""Names and misfits grouped by pattern, so that a thousand of them fit on a screen."""

import re
from collections.abc import Iterable, Sequence

LINES = 18  # of a list of misfits; with a line before and after it there are 20
# a whole part of a name, or a row in brackets: `blocks.3.gamma`, `gamma[3]`, but not `fc1`
_INDEX = re.compile(r"(?<![^.\[])\d+(?![^.\]])")
_NUMBER = re.compile(r"\d+")
# what is wrong with one name -> with several
_PLURALS = {
    "nothing in the checkpoint fills it": "not in the file",
    "matches no rule": "without a rule",
    "no family knows it": "known to no family",
}


def pattern_of(name: str) -> str:
    """The name with `*` for every index: `stages.*.blocks.*.gamma`."""
    return _INDEX.sub("*", name)


def grouped_names(names: Iterable[str], shown: int = 8) -> list[str]:
    """Names by pattern with their number, `blocks.*.gamma (36)`; a name alone is itself.

    Args:
        names: of tensors, or of other things in a file.
        shown: number of groups, before one text that counts the rest.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(pattern_of(name), []).append(name)
    texts = [
        f"{pattern} ({len(group)})" if len(group) > 1 else group[0]
        for pattern, group in groups.items()
    ]
    rest = sum(len(group) for group in list(groups.values())[shown:])
    return [*texts[:shown], f"and {rest} more"] if rest else texts


def grouped_misfits(misfits: Sequence[str], lines: int = LINES) -> list[str]:
    """Misfits by pattern with their number, in at most `lines` and one that counts the rest.

    Args:
        misfits: texts `name shape: what is wrong`.
        lines: number of groups to show.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for text in misfits:
        name, wrong = _split(text)
        groups.setdefault((pattern_of(name), _NUMBER.sub("*", wrong)), []).append(text)
    shown = [
        f"{pattern}: {_count(group)}" if len(group) > 1 else group[0]
        for (pattern, _), group in list(groups.items())[:lines]
    ]
    rest = sum(len(group) for group in list(groups.values())[lines:])
    return [*shown, f"and {rest} more misfits"] if rest else shown


def _split(text: str) -> tuple[str, str]:
    """The name of a misfit, and what is wrong with it."""
    subject, _, wrong = text.partition(": ")
    return (subject.partition(" ")[0], wrong) if wrong else (text, "")


def _count(group: Sequence[str]) -> str:
    wrong = _split(group[0])[1]
    plural = _PLURALS.get(wrong)
    return f"{len(group)} {plural}" if plural else f"{len(group)} times, first {wrong}"
