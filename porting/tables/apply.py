"""Applies a rule table to a checkpoint, and to a model's weights on the way back.

`apply_rules` is strict: exactly one rule per source tensor, exactly the model's paths, shapes and
dtypes, and all misfits of a file in one error. `invert_rules` reads the same table backwards, bit
for bit.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from porting.files.trees import Tree, by_dotted_path, flatten, nest
from porting.tables.misfits import LINES, grouped_misfits
from porting.tables.rules import (
    Address,
    Rule,
    addresses_of,
    rules_for_file,
    rules_for_name,
    shapes_after,
)

# Casting these up to float32 loses nothing, and casting the result down again is exact.
WIDENED = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


class ConversionError(ValueError):
    """All misfits between a checkpoint and a model; the text groups them by pattern.

    Args:
        misfits: texts `name shape: what is wrong`.
        head: first line of the text; "" counts the misfits.
        tail: last line of the text, or "".
        lines: groups that the text shows.
    """

    def __init__(
        self, misfits: Sequence[str], *, head: str = "", tail: str = "", lines: int = LINES
    ):
        self.misfits = tuple(misfits)
        self._head = head or f"{len(misfits)} misfit" + "s" * (len(misfits) != 1) + ":"
        self._tail = tail
        shown = grouped_misfits(misfits, lines)
        self.is_complete = len(shown) == len(misfits)
        super().__init__(self._text(shown))

    def in_full(self) -> str:
        """The text with every misfit."""
        return self._text(self.misfits)

    def _text(self, shown: Sequence[str]) -> str:
        lines = [self._head, *(f"  {text}" for text in shown)]
        return "\n".join([*lines, self._tail] if self._tail else lines)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a table does with a checkpoint, from names, shapes and dtypes alone.

    Attributes:
        used: source name -> its rule and the targets it fills.
        dropped: source name -> the rule that drops it.
        misfits: all that does not fit; empty for a clean plan.
    """

    used: dict[str, tuple[Rule, tuple[Address, ...]]]
    dropped: dict[str, Rule]
    misfits: tuple[str, ...]


def plan(source: Mapping[str, Any], rules: Sequence[Rule], shapes: Tree) -> Plan:
    """Finds the targets of each source tensor, and all misfits.

    Args:
        source: name -> anything with `shape` and `dtype`.
        rules: the table.
        shapes: nested dict of the model's leaves, anything with `shape` and `dtype`.
    """
    wanted = by_dotted_path(shapes)
    used: dict[str, tuple[Rule, tuple[Address, ...]]] = {}
    dropped: dict[str, Rule] = {}
    misfits: list[str] = []
    filled: dict[Address, str] = {}
    refused: dict[str, list[str]] = {}  # reason -> names
    rules = rules_for_file(rules, source)
    for name, tensor in source.items():
        matches = rules_for_name(name, rules)
        if len(matches) != 1:
            patterns = " and ".join(repr(rule.pattern) for rule, _ in matches)
            count = f"{len(matches)} rules: {patterns}" if matches else "no rule"
            misfits.append(f"{name} {tuple(tensor.shape)}: matches {count}")
            continue
        rule, match = matches[0]
        if rule.refused:
            refused.setdefault(rule.why, []).append(name)
            continue
        if rule.target is None:
            dropped[name] = rule
            continue
        addresses = addresses_of(rule, match)
        used[name] = rule, addresses
        misfits += _misfits_of(name, tensor, rule, addresses, wanted)
        for address in addresses:
            if address in filled:
                misfits.append(f"{name}: {address} is already filled by {filled[address]}")
            filled.setdefault(address, name)
    for why, names in refused.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        misfits.append(f"{names[0]}{more}: {why}")
    misfits += _unfilled(wanted, filled)
    return Plan(used, dropped, tuple(misfits))


def value_misfits(name: str, tensor: np.ndarray, plan: Plan) -> list[str]:
    """What is wrong with the values of a source tensor, where its shape and dtype fit."""
    rule = plan.dropped.get(name)
    if rule is not None and rule.value is not None and not np.all(tensor == rule.value):
        return [f"{name}: must be {rule.value:g} everywhere to be left out ({rule.why})"]
    if name in plan.used:
        bad = tensor.size - np.count_nonzero(np.isfinite(tensor))
        if bad:
            return [f"{name}: {bad} of {tensor.size} values are not finite"]
    return []


def apply_rules(source: Mapping[str, np.ndarray], rules: Sequence[Rule], shapes: Tree) -> Tree:
    """Converts a checkpoint's tensors to the model's weights.

    Args:
        source: state dict.
        rules: the table.
        shapes: nested dict of the model's leaves (shape and dtype), as from `nnx.eval_shape`.

    Returns:
        Nested dict of numpy arrays with exactly the paths, shapes and dtypes of `shapes`.

    Raises:
        ConversionError: lists every tensor without a rule or with several, every wrong shape or
            dtype, every value that may not be dropped, every target that nothing fills.
    """
    planned = plan(source, rules, shapes)
    misfits = list(planned.misfits)
    for name, tensor in source.items():
        misfits += value_misfits(name, tensor, planned)
    if misfits:
        raise ConversionError(misfits)

    tree = nest({path: np.empty(leaf.shape, leaf.dtype) for path, leaf in flatten(shapes)})
    leaves = by_dotted_path(tree)
    for name, (rule, addresses) in planned.used.items():
        for address, part in zip(addresses, rule.layout.forward(source[name]), strict=True):
            leaves[address.path][... if address.index is None else address.index] = part
    return tree


def invert_rules(
    tree: Tree, rules: Sequence[Rule], names: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Restores the checkpoint's tensors from the model's weights: the inverse of `apply_rules`.

    Args:
        tree: nested dict of the model's weights.
        rules: the table.
        names: source name -> anything with `shape` and `dtype`, for all tensors to be restored.

    Returns:
        State dict in the order of `names`, without the tensors that the table drops and whose value
        it does not know.

    Raises:
        ConversionError: lists names without a rule, missing weights, wrong shapes, and values that
            a narrower source dtype cannot hold.
    """
    leaves = by_dotted_path(tree)
    state, misfits = {}, []
    rules = rules_for_file(rules, names)
    for name, tensor in names.items():
        shape, dtype = tuple(tensor.shape), np.dtype(tensor.dtype)
        matches = rules_for_name(name, rules)
        if len(matches) != 1:
            misfits.append(f"{name} {shape}: matches {len(matches)} rules")
            continue
        rule, match = matches[0]
        if rule.target is None:
            if rule.value is not None:
                state[name] = np.full(shape, rule.value, dtype)
            continue
        addresses = addresses_of(rule, match)
        missing = [str(a) for a in addresses if a.path not in leaves]
        if missing:
            misfits.append(f"{name} {shape}: the model has no {', '.join(missing)}")
            continue
        parts = [leaves[a.path] if a.index is None else leaves[a.path][a.index] for a in addresses]
        wide = np.ascontiguousarray(rule.layout.backward([np.asarray(part) for part in parts]))
        # a linear layer may be a 1x1 convolution in the file: axes of length 1 at the end
        ones = shape[wide.ndim :] if wide.shape == shape[: wide.ndim] else ()
        is_same = bool(ones) and set(ones) == {1}
        narrow = wide.reshape(shape if is_same or not shape else wide.shape).astype(dtype)
        if narrow.shape != shape:
            misfits.append(f"{name}: is {shape} in the checkpoint, {narrow.shape} when made anew")
        elif not np.array_equal(narrow.astype(wide.dtype), wide.reshape(narrow.shape)):
            misfits.append(f"{name}: {dtype} cannot hold the {wide.dtype} weights exactly")
        state[name] = narrow
    if misfits:
        raise ConversionError(misfits)
    return state


def _misfits_of(
    name: str, tensor: Any, rule: Rule, addresses: Sequence[Address], wanted: Mapping[str, Any]
) -> list[str]:
    """What does not fit between one source tensor and its targets."""
    layout, shape, dtype = rule.layout, tuple(tensor.shape), np.dtype(tensor.dtype)
    parts = shapes_after(layout, shape)
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


def _unfilled(wanted: Mapping[str, Any], filled: Mapping[Address, str]) -> list[str]:
    """Targets, or rows of stacked targets, that no source tensor fills."""
    rows_by_path: dict[str, set[int | None]] = {}
    for address in filled:
        rows_by_path.setdefault(address.path, set()).add(address.index)
    misfits = []
    for path, leaf in wanted.items():
        shape, rows = tuple(leaf.shape), rows_by_path.get(path, set())
        if not rows:
            misfits.append(f"{path} {shape}: nothing in the checkpoint fills it")
        elif None not in rows:
            misfits += [
                f"{path}[{row}] {shape[1:]}: nothing in the checkpoint fills it"
                for row in range(shape[0] if shape else 0)
                if row not in rows
            ]
    return misfits
