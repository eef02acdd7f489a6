"""Rules: which source tensor becomes which of ours, and in which layout.

A table is a sequence of `Rule`, read in both directions: from the checkpoint to the model and back
(`porting.tables.apply`). This module matches names against rules.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from porting.tables.layouts import Layout, identity


@dataclasses.dataclass(frozen=True)
class Rule:
    r"""Where the source tensors of one pattern go.

    Attributes:
        pattern: regular expression that must match the whole name (`re.fullmatch`).
        target: a template (`stages.\1.gamma`), a function of the match that returns one, or None
            for tensors that are dropped. `path[n]` is row n of a stacked target; `{a,b}.kernel` are
            two targets, filled by a layout with two parts.
        layout: how the values are stored on both sides.
        why: the reason, where target is None.
        value: for dropped tensors: the value that all their elements must have. Such a tensor is
            checked, and restored on the way back.
        refused: for dropped tensors: they are a misfit, and `why` says what to do.
        when: pattern of a name; the rule holds only for files that have such a name. For names that
            mean two things.
    """

    pattern: str
    target: str | Callable[[re.Match], str] | None
    layout: Layout = identity
    why: str = ""
    value: float | None = None
    refused: bool = False
    when: str = ""

    def __post_init__(self):
        if (self.target is None) != bool(self.why):
            raise ValueError(f"Rule {self.pattern!r}: a tensor is left out with a reason, or used.")

    def holds_for(self, names: Collection[str]) -> bool:
        """Whether the rule's condition is met by a file with these names."""
        return not self.when or any(re.fullmatch(self.when, name) for name in names)


@dataclasses.dataclass(frozen=True)
class Address:
    """A target, or row `index` of a stacked one."""

    path: str
    index: int | None = None

    def __str__(self) -> str:
        return self.path if self.index is None else f"{self.path}[{self.index}]"


def prefixed(rules: Iterable[Rule], source: str, target: str) -> tuple[Rule, ...]:
    """The same rules for longer names on both sides.

    Args:
        rules: to be copied.
        source: pattern without groups that the names of the checkpoint begin with.
        target: start of the paths in the model.
    """

    def with_prefix(rule: Rule) -> Rule:
        new: str | Callable[[re.Match], str] | None = rule.target
        if callable(rule.target):
            old = rule.target
            new = lambda match: target + old(match)  # noqa: E731
        elif rule.target is not None:
            new = target + rule.target
        return dataclasses.replace(rule, pattern=source + f"(?:{rule.pattern})", target=new)

    return tuple(with_prefix(rule) for rule in rules)


def rules_for_file(rules: Sequence[Rule], names: Collection[str]) -> tuple[Rule, ...]:
    """The rules that hold for a file with these names."""
    return tuple(rule for rule in rules if rule.holds_for(names))


def rules_for_name(name: str, rules: Sequence[Rule]) -> list[tuple[Rule, re.Match]]:
    """All rules that match a name; exactly one in a good table."""
    matches = ((rule, re.fullmatch(rule.pattern, name)) for rule in rules)
    return [(rule, match) for rule, match in matches if match]


def addresses_of(rule: Rule, match: re.Match) -> tuple[Address, ...]:
    """The targets of one source tensor, in the order of the layout's parts."""
    text = rule.target(match) if callable(rule.target) else match.expand(str(rule.target))
    choice = re.search(r"\{(.*?)\}", text)
    texts = [text]
    if choice:
        texts = [text.replace(choice[0], part) for part in choice[1].split(",")]
    addresses = []
    for address in texts:
        path, _, row = address.partition("[")
        addresses.append(Address(path, int(row.rstrip("]")) if row else None))
    return tuple(addresses)


def shapes_after(layout: Layout, shape: tuple[int, ...]) -> list[tuple[int, ...]] | str:
    """Shapes of the parts that a layout makes of a tensor, or why it cannot."""
    if layout.rank is not None and len(shape) != layout.rank:
        return f"{layout.name} needs {layout.rank} axes"
    try:
        # A layout only moves values, so a view without memory shows the shapes.
        parts = layout.forward(np.broadcast_to(np.zeros((), np.uint8), shape))
    except ValueError as error:
        return f"does not fit {layout.name}: {error}"
    return [part.shape for part in parts]


def shapes_by_target(
    source: Mapping[str, Any], rules: Sequence[Rule]
) -> dict[str, tuple[int, ...]]:
    """Address, as text -> its shape by the checkpoint; tensors that do not fit are skipped."""
    shapes = {}
    rules = rules_for_file(rules, source)
    for name, tensor in source.items():
        matches = rules_for_name(name, rules)
        if len(matches) != 1 or matches[0][0].target is None:
            continue
        rule, match = matches[0]
        parts = shapes_after(rule.layout, tuple(tensor.shape))
        if not isinstance(parts, str):
            shapes.update(zip(map(str, addresses_of(rule, match)), parts, strict=True))
    return shapes


def match_counts(names: Collection[str], rules: Sequence[Rule]) -> tuple[int, int]:
    """Number of names with a target, and of names that no rule or several rules match."""
    rules = rules_for_file(rules, names)
    matches = [rules_for_name(name, rules) for name in names]
    used = sum(len(found) == 1 and found[0][0].target is not None for found in matches)
    return used, sum(len(found) != 1 for found in matches)
