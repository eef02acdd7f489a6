"""Nested dicts of arrays, and the paths of their leaves."""

from collections.abc import Iterator, Mapping
from typing import Any

# Nested; the keys are those of nnx.to_pure_dict: names, or numbers for the members of a list.
Tree = dict[Any, Any]


def flatten(tree: Mapping, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Yields (path, leaf) for every leaf; a path is the tuple of keys that leads to it."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, (*path, key))
        else:
            yield (*path, key), value


def nest(leaves: Mapping[tuple, Any]) -> Tree:
    """The nested dict with these leaves by path; the inverse of `flatten`."""
    tree: Tree = {}
    for path, leaf in leaves.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return tree


def by_dotted_path(tree: Mapping) -> dict[str, Any]:
    """The leaves by path in dots: `encoder.stem.conv.kernel`."""
    return {".".join(map(str, path)): leaf for path, leaf in flatten(tree)}
