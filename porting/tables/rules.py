"""Rule tables: which source tensor becomes which of ours, used in both directions.

A table is a sequence of `Rule`. `apply_rules` reads it from the checkpoint to the model and is
strict: exactly one rule per source tensor, exactly the model's paths, shapes and dtypes, and every
misfit of a file in one error. `invert_rules` reads the same table from the model back to the
checkpoint, bit for bit.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from porting.files.trees import Tree, by_dotted_path, flatten, nest
from porting.tables.layouts import Layout, identity

# Casting these up to float32 loses nothing, and casting the result down again is exact.
WIDENED = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


class ConversionError(ValueError):
    """All that does not fit between a checkpoint and a model."""

    def __init__(self, misfits: Sequence[str]):
        self.misfits = tuple(misfits)
        count = f"{len(misfits)} misfit" + "s" * (len(misfits) != 1)
        super().__init__("\n".join([f"{count}:", *(f"  {text}" for text in misfits)]))


@dataclasses.dataclass(frozen=True)
class Rule:
    r"""Where the source tensors of one pattern go.

    Attributes:
        pattern: must match the whole name (`re.fullmatch`).
        target: a template (`stages.\1.gamma`), a function of the match that returns one, or None
            for tensors that are left out. `path[n]` is row n of a stacked target;
            `{a,b}.kernel` are two targets, filled by a layout with two parts.
        layout: how the numbers are stored on both sides.
        why: the reason, where target is None.
        value: for tensors left out: the number all their elements must have. Such a tensor is
            checked, and made anew on the way back.
        when: pattern of a name; the rule holds only for files that have such a name. For names
            that mean two things.
    """

    pattern: str
    target: str | Callable[[re.Match], str] | None
    layout: Layout = identity
    why: str = ""
    value: float | None = None
    when: str = ""

    def __post_init__(self):
        if (self.target is None) != bool(self.why):
            raise ValueError(f"Rule {self.pattern!r}: a tensor is left out with a reason, or used.")


@dataclasses.dataclass(frozen=True)
class Address:
    """A target, or row `index` of a stacked one."""

    path: str
    index: int | None = None

    def __str__(self) -> str:
        return self.path if self.index is None else f"{self.path}[{self.index}]"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a table would do to a checkpoint; made from names, shapes and dtypes alone.

    Attributes:
        used: source name -> its rule and the targets it fills.
        dropped: source name -> the rule that leaves it out.
        misfits: what does not fit; empty for a clean plan.
    """

    used: dict[str, tuple[Rule, tuple[Address, ...]]]
    dropped: dict[str, Rule]
    misfits: tuple[str, ...]


def prefixed(rules: Iterable[Rule], source: str, target: str) -> tuple[Rule, ...]:
    """The same rules for a checkpoint whose names begin with `source` (a pattern without groups),
    and a model whose paths begin with `target`.
    """

    def moved(rule: Rule) -> Rule:
        new: str | Callable[[re.Match], str] | None = rule.target
        if callable(rule.target):
            old = rule.target
            new = lambda match: target + old(match)  # noqa: E731
        elif rule.target is not None:
            new = target + rule.target
        return dataclasses.replace(rule, pattern=source + f"(?:{rule.pattern})", target=new)

    return tuple(moved(rule) for rule in rules)


def plan(source: Mapping[str, Any], rules: Sequence[Rule], want: Tree) -> Plan:
    """Says what each source tensor becomes, and what does not fit.

    Args:
        source: name -> anything with `shape` and `dtype`.
        rules: the table.
        want: nested dict of the model's leaves, anything with `shape` and `dtype`.
    """
    wanted = by_dotted_path(want)
    used: dict[str, tuple[Rule, tuple[Address, ...]]] = {}
    dropped: dict[str, Rule] = {}
    misfits: list[str] = []
    filled: dict[Address, str] = {}
    rules = _that_hold(rules, source)
    for name, tensor in source.items():
        found = _rules_of(name, rules)
        if len(found) != 1:
            many = (
                "no rule"
                if not found
                else f"{len(found)} rules: " + " and ".join(repr(rule.pattern) for rule, _ in found)
            )
            misfits.append(f"{name} {tuple(tensor.shape)}: matches {many}")
            continue
        rule, match = found[0]
        if rule.target is None:
            dropped[name] = rule
            continue
        addresses = _addresses(rule, match)
        used[name] = rule, addresses
        misfits += _misfits_of(name, tensor, rule, addresses, wanted)
        for address in addresses:
            if address in filled:
                misfits.append(f"{name}: {address} is already filled by {filled[address]}")
            filled.setdefault(address, name)
    misfits += _unfilled(wanted, filled)
    return Plan(used, dropped, tuple(misfits))


def apply_rules(source: Mapping[str, np.ndarray], rules: Sequence[Rule], want: Tree) -> Tree:
    """The model's weights, made of a checkpoint's tensors.

    Args:
        source: state dict.
        rules: the table.
        want: nested dict of the model's leaves (shape and dtype), as from `nnx.eval_shape`.

    Returns:
        Nested dict of numpy arrays with exactly the paths, shapes and dtypes of `want`.

    Raises:
        ConversionError: lists every tensor without a rule or with several, every wrong shape or
            dtype, every value that may not be left out, every target that nothing fills.
    """
    planned = plan(source, rules, want)
    misfits = list(planned.misfits)
    for name, rule in planned.dropped.items():
        if rule.value is not None and not np.all(source[name] == rule.value):
            misfits.append(f"{name}: must be {rule.value:g} everywhere to be left out ({rule.why})")
    for name in planned.used:
        bad = source[name].size - np.count_nonzero(np.isfinite(source[name]))
        if bad:
            misfits.append(f"{name}: {bad} of {source[name].size} values are not finite")
    if misfits:
        raise ConversionError(misfits)

    tree = nest({path: np.empty(leaf.shape, leaf.dtype) for path, leaf in flatten(want)})
    leaves = by_dotted_path(tree)
    for name, (rule, addresses) in planned.used.items():
        for address, part in zip(addresses, rule.layout.forward(source[name]), strict=True):
            leaves[address.path][... if address.index is None else address.index] = part
    return tree


def invert_rules(tree: Tree, rules: Sequence[Rule], names: Mapping[str, Any]) -> dict:
    """The checkpoint's tensors, made of the model's weights: the way back of `apply_rules`.

    Args:
        tree: nested dict of the model's weights.
        rules: the table.
        names: source name -> anything with `shape` and `dtype`: what to make. Provenance keeps it.

    Returns:
        State dict in the order of `names`, without the tensors that the table leaves out and
        whose value it does not know.

    Raises:
        ConversionError: lists names without a rule, missing weights, shapes that do not come out,
            and numbers that a narrower source dtype cannot hold.
    """
    leaves = by_dotted_path(tree)
    state, misfits = {}, []
    rules = _that_hold(rules, names)
    for name, tensor in names.items():
        shape, dtype = tuple(tensor.shape), np.dtype(tensor.dtype)
        found = _rules_of(name, rules)
        if len(found) != 1:
            misfits.append(f"{name} {shape}: matches {len(found)} rules")
            continue
        rule, match = found[0]
        if rule.target is None:
            if rule.value is not None:
                state[name] = np.full(shape, rule.value, dtype)
            continue
        addresses = _addresses(rule, match)
        missing = [str(a) for a in addresses if a.path not in leaves]
        if missing:
            misfits.append(f"{name} {shape}: the model has no {', '.join(missing)}")
            continue
        parts = [leaves[a.path] if a.index is None else leaves[a.path][a.index] for a in addresses]
        wide = np.ascontiguousarray(rule.layout.backward([np.asarray(part) for part in parts]))
        narrow = wide.reshape(wide.shape if shape else ()).astype(dtype)
        if narrow.shape != shape:
            misfits.append(f"{name}: is {shape} in the checkpoint, {narrow.shape} when made anew")
        elif not np.array_equal(narrow.astype(wide.dtype), wide.reshape(narrow.shape)):
            misfits.append(f"{name}: {dtype} cannot hold the {wide.dtype} weights exactly")
        state[name] = narrow
    if misfits:
        raise ConversionError(misfits)
    return state


def shapes_of(source: Mapping[str, Any], rules: Sequence[Rule]) -> dict[str, tuple[int, ...]]:
    """Address, as text -> shape that the checkpoint has for it; what does not fit is left out."""
    shapes = {}
    rules = _that_hold(rules, source)
    for name, tensor in source.items():
        found = _rules_of(name, rules)
        if len(found) != 1 or found[0][0].target is None:
            continue
        rule, match = found[0]
        parts = _shapes_after(rule.layout, tuple(tensor.shape))
        if not isinstance(parts, str):
            shapes.update(zip(map(str, _addresses(rule, match)), parts, strict=True))
    return shapes


def match_counts(names: Collection[str], rules: Sequence[Rule]) -> tuple[int, int]:
    """How many names go somewhere, and how many have no rule or several."""
    rules = _that_hold(rules, names)
    found = [_rules_of(name, rules) for name in names]
    used = sum(len(one) == 1 and one[0][0].target is not None for one in found)
    return used, sum(len(one) != 1 for one in found)


def _that_hold(rules: Sequence[Rule], names: Collection[str]) -> tuple[Rule, ...]:
    """The rules for a file with these names."""

    def holds(rule: Rule) -> bool:
        return not rule.when or any(re.fullmatch(rule.when, name) for name in names)

    return tuple(rule for rule in rules if holds(rule))


def _rules_of(name: str, rules: Sequence[Rule]) -> list[tuple[Rule, re.Match]]:
    matches = ((rule, re.fullmatch(rule.pattern, name)) for rule in rules)
    return [(rule, match) for rule, match in matches if match]


def _addresses(rule: Rule, match: re.Match) -> tuple[Address, ...]:
    """The targets of one source tensor, in the order of the layout's parts."""
    text = rule.target(match) if callable(rule.target) else match.expand(str(rule.target))
    choice = re.search(r"\{(.*?)\}", text)
    texts = [text]
    if choice:
        texts = [text.replace(choice[0], part) for part in choice[1].split(",")]
    addresses = []
    for one in texts:
        path, _, row = one.partition("[")
        addresses.append(Address(path, int(row.rstrip("]")) if row else None))
    return tuple(addresses)


def _misfits_of(
    name: str, tensor: Any, rule: Rule, addresses: Sequence[Address], wanted: Mapping[str, Any]
) -> list[str]:
    """What does not fit between one source tensor and its targets."""
    layout, shape, dtype = rule.layout, tuple(tensor.shape), np.dtype(tensor.dtype)
    parts = _shapes_after(layout, shape)
    if isinstance(parts, str):
        return [f"{name} {shape}: {parts}"]
    misfits = []
    for address, part in zip(addresses, parts, strict=True):
        leaf = wanted.get(address.path)
        if leaf is None:
            misfits.append(f"{name} {shape}: the model has no {address.path}")
            continue
        rows = tuple(leaf.shape)
        if address.index is not None:
            if not rows or address.index >= rows[0]:
                misfits.append(f"{name}: {address} is outside {address.path} {rows} in the model")
                continue
            rows = rows[1:]
        if part != rows:
            misfits.append(f"{name}: {address} is {rows} in the model, {part} after {layout.name}")
        if dtype != leaf.dtype and not (dtype in WIDENED and leaf.dtype == np.float32):
            misfits.append(f"{name}: {address} is {leaf.dtype} in the model, {dtype} in the file")
    return misfits


def _shapes_after(layout: Layout, shape: tuple[int, ...]) -> list[tuple[int, ...]] | str:
    """Shapes of the parts that a layout makes of a tensor, or why it cannot."""
    if layout.rank is not None and len(shape) != layout.rank:
        return f"{layout.name} needs {layout.rank} axes"
    try:
        # A layout only moves numbers, so a view without memory tells the shapes.
        parts = layout.forward(np.broadcast_to(np.zeros((), np.uint8), shape))
    except ValueError as error:
        return f"does not fit {layout.name}: {error}"
    return [part.shape for part in parts]


def _unfilled(wanted: Mapping[str, Any], filled: Mapping[Address, str]) -> list[str]:
    """Targets, or rows of stacked targets, that no source tensor fills."""
    by_path: dict[str, set[int | None]] = {}
    for address in filled:
        by_path.setdefault(address.path, set()).add(address.index)
    misfits = []
    for path, leaf in wanted.items():
        shape, have = tuple(leaf.shape), by_path.get(path, set())
        if not have:
            misfits.append(f"{path} {shape}: nothing in the checkpoint fills it")
        elif None not in have:
            misfits += [
                f"{path}[{row}] {shape[1:]}: nothing in the checkpoint fills it"
                for row in range(shape[0] if shape else 0)
                if row not in have
            ]
    return misfits
