"""Finds the state dict in the content of a checkpoint: `model`, `state_dict`, `model_ema`, ..."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Keys under which training programs save the weights beside other things.
_ENTRIES = ("model", "state_dict", "model_state", "model_state_dict")
_DEPTH = 3  # of nested dicts that are searched
_SHOWN = 8  # keys in a message
_SHARE = 0.5  # of equal tensors in two state dicts of one model

_Path = tuple[str, ...]  # keys that lead to a dict


@dataclasses.dataclass(frozen=True)
class StateDict:
    """The state dict of a file.

    Attributes:
        tensors: by name, in the file's order.
        entry: keys that lead to it, joined by dots; "" where the tensors are at the top.
        parts: keys of several state dicts that were joined; the names begin with them.
        beside: keys of the file that were not read.
        alternatives: entries of other state dicts of the same model, such as an EMA; none where
            `entry` is "".
    """

    tensors: dict[str, np.ndarray]
    entry: str
    parts: _Path
    beside: tuple[str, ...]
    alternatives: tuple[str, ...]


def find_state_dict(content: Mapping[str, Any], path: Path, entry: str = "") -> StateDict:
    """The state dict of a file.

    Args:
        content: nested dicts with tensors, and whatever else was saved.
        path: file, for the errors.
        entry: key of the state dict, or keys joined by dots; "" follows the usual ones.

    Raises:
        ValueError: there are no tensors, there is no such entry, or none of the usual ones leads to
            the tensors; the message lists what there is.
    """
    found = dict(_dicts_with_tensors(content))
    if not found:
        keys = ", ".join(map(str, list(content)[:_SHOWN])) or "an empty dict"
        more = f" and {len(content) - _SHOWN} more" if len(content) > _SHOWN else ""
        raise ValueError(f"{path} has no tensors, only: {keys}{more}.")
    at = _at(content, found, path, entry) if entry else ()
    inner = _value(content, at)
    while step := _next_step(found, at):
        at, inner = (*at, step), inner[step]
    below = {key[len(at)]: len(names) for key, names in found.items() if _is_child(key, at)}
    own = len(found.get(at, ()))
    if not own and not below:
        raise ValueError(
            f"{path} has state dicts at: {_listed(found)}; choose one with --entry NAME."
        )
    parts = tuple(below) if own < sum(below.values()) else ()
    tensors = _tensors(inner)
    for part in parts:
        tensors |= {f"{part}.{name}": value for name, value in _tensors(inner[part]).items()}
    read = {at, *((*at, part) for part in parts)}
    beside = [*_beside(content, at), *(".".join((*at, str(key))) for key in _rest(inner, parts))]
    beside += [".".join((*at, part, str(key))) for part in parts for key in _rest(inner[part], ())]
    kinds = _kinds(tensors)
    alternatives = tuple(
        ".".join(key)
        for key in found
        if at and key not in read and _is_same_model(kinds, content, key)
    )
    return StateDict(tensors, ".".join(at), parts, tuple(beside), alternatives)


def _dicts_with_tensors(content: Mapping, at: _Path = ()) -> Iterator[tuple[_Path, list[str]]]:
    """Yields the path and the tensors' names of every dict that has tensors itself."""
    names = list(_tensors(content))
    if names:
        yield at, names
    for key, value in content.items():
        # an optimizer's state has numbers as keys
        if isinstance(value, Mapping) and isinstance(key, str) and len(at) < _DEPTH:
            yield from _dicts_with_tensors(value, (*at, key))


def _tensors(content: Mapping) -> dict[str, np.ndarray]:
    return {
        str(name): np.asarray(value)
        for name, value in content.items()
        if isinstance(value, np.ndarray | np.generic)
    }


def _at(content: Mapping, found: Mapping[_Path, Any], path: Path, entry: str) -> _Path:
    """The keys that lead to a named entry."""
    at = (entry,) if entry in content else tuple(entry.split("."))
    if not any(key[: len(at)] == at for key in found):
        raise ValueError(f"{path} has no entry {entry!r} with tensors; it has: {_listed(found)}.")
    return at


def _listed(found: Mapping[_Path, list[str]]) -> str:
    """`model (296 tensors), model_ema (296 tensors)`."""
    return ", ".join(f"{'.'.join(key)} ({len(names)} tensors)" for key, names in found.items())


def _value(content: Mapping, at: _Path) -> Any:
    for key in at:
        content = content[key]
    return content


def _next_step(found: Mapping[_Path, list[str]], at: _Path) -> str:
    """The key that leads on to the state dict; "" where it is, or where several keys lead on."""
    below: collections.Counter[str] = collections.Counter()
    for key, names in found.items():
        if len(key) > len(at) and _below(key, at):
            below[key[len(at)]] += len(names)
    if usual := next((entry for entry in _ENTRIES if entry in below), ""):
        return usual
    own = len(found.get(at, ()))
    return next(iter(below)) if len(below) == 1 and own < below.total() else ""


def _below(key: _Path, at: _Path) -> bool:
    return key[: len(at)] == at


def _is_child(key: _Path, at: _Path) -> bool:
    return len(key) == len(at) + 1 and _below(key, at)


def _beside(content: Mapping, at: _Path) -> Iterator[str]:
    """Yields the keys beside those of a path, joined by dots."""
    for depth, step in enumerate(at):
        for key in content:
            if key != step:
                yield ".".join((*at[:depth], str(key)))
        content = content[step]


def _rest(content: Mapping, parts: _Path) -> list[Any]:
    """The keys of a dict that are neither tensors nor parts."""
    return [k for k, v in content.items() if not isinstance(v, np.ndarray | np.generic)
            and k not in parts]  # fmt: skip


def _kinds(tensors: Mapping[str, np.ndarray]) -> collections.Counter:
    """Ends of the names with shapes: these are the same whatever wraps the model."""
    return collections.Counter(
        (name.rpartition(".")[2], tensor.shape) for name, tensor in tensors.items()
    )


def _is_same_model(kinds: collections.Counter, content: Mapping, key: _Path) -> bool:
    others = _kinds(_tensors(_value(content, key)))
    return (kinds & others).total() >= _SHARE * kinds.total()
