"""From a folder of weights back to the checkpoint it was made of."""

import collections
import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  numpy knows the name "bfloat16" through it
import numpy as np

from clouds_jax.weights import load_weights
from porting.conversion.convert import Conversion, save
from porting.conversion.streaming import bits_equal
from porting.files.open import open_checkpoint, tensor_hash, without_prefix
from porting.tables import get_table
from porting.tables.rules import ConversionError, invert_rules


@dataclasses.dataclass(frozen=True)
class _Described:
    """Shape and type of a tensor of the original."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Inverted:
    """A checkpoint made of a folder of weights.

    Attributes:
        state: the tensors, in the original's order.
        source: of the folder's provenance: where the original came from.
        same: how many of them have the hash of the original's.
        missing: name -> why the conversion had left it out.
    """

    state: dict[str, np.ndarray]
    source: dict[str, Any]
    same: int
    missing: dict[str, str]


def invert(folder: Path, *, original: str | None = None) -> Inverted:
    """Makes the checkpoint anew that a folder of weights was converted from.

    Args:
        folder: of weights.
        original: the checkpoint itself, for the tensors that the conversion left out.

    Raises:
        ConversionError: weights and provenance do not fit each other, or `original` is another.
    """
    pass

    tree, provenance = load_weights(folder)
    if "tensors" not in provenance:
        raise ValueError(f"{folder} was not written by `convert`: its provenance names no tensors.")
    table = get_table(provenance["table"]["name"])
    if table.version != provenance["table"]["version"]:
        raise ValueError(
            f"{folder} was converted with version {provenance['table']['version']} of the table"
            f" {table.name}, this is version {table.version}; convert the original anew."
        )
    known: dict[str, Any] = provenance["tensors"] | provenance["dropped"]
    names = {name: _described(known[name]) for name in provenance.get("order", known)}
    state = invert_rules(tree, table.rules, names)
    missing = {name: known[name]["why"] for name in names if name not in state}
    if original:
        state |= _taken(original, provenance, missing)
        missing = {}
    same = sum(tensor_hash(tensor) == known[name]["sha256"] for name, tensor in state.items())
    ordered = {name: state[name] for name in names if name in state}
    return Inverted(ordered, provenance["source"], same, missing)


def _described(entry: Mapping[str, Any]) -> _Described:
    return _Described(tuple(entry["shape"]), np.dtype(entry["dtype"]))


def _taken(
    original: str, provenance: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """The tensors of these names, from the original checkpoint."""
    state, found = open_checkpoint(original)
    prefix = provenance["source"]["prefix"].removeprefix(found.prefix)
    state, _ = without_prefix(state, found, prefix)
    misfits = []
    for name in names:
        if name not in state:
            misfits.append(f"{name}: not in {original}")
        elif tensor_hash(state[name]) != provenance["dropped"][name]["sha256"]:
            misfits.append(f"{name}: another than in {provenance['source']['file']}")
    if misfits:
        raise ConversionError(misfits)
    return {name: state[name] for name in names}


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a roundtrip has compared.

    Attributes:
        same: tensors that came back bit for bit: all that the table does not leave out.
        by_dtype: the same by type.
        dropped: reason -> how many tensors the table leaves out and cannot make anew.
    """

    same: int
    by_dtype: dict[str, int]
    dropped: dict[str, int]


def roundtrip(made: Conversion, weights: Path | None = None) -> Counts:
    """Converts to a folder, reads it, makes the checkpoint anew and compares every bit.

    Args:
        made: the conversion.
        weights: a folder that was converted before; None makes a temporary one.

    Raises:
        ConversionError: all tensors that do not come back.
    """
    if weights is None:
        with tempfile.TemporaryDirectory() as folder:
            save(made, Path(folder) / "weights")
            return roundtrip(made, Path(folder) / "weights")
    back = invert(weights)
    wrong = [f"{name}: not in {weights}" for name in made.plan.used if name not in back.state]
    wrong += [
        f"{name}: does not come back bit for bit"
        for name, tensor in back.state.items()
        if name not in made.state or not bits_equal(tensor, made.state[name])
    ]
    if wrong:
        raise ConversionError(wrong)
    return Counts(
        same=len(back.state),
        by_dtype=dict(collections.Counter(str(t.dtype) for t in back.state.values())),
        dropped=dict(collections.Counter(back.missing.values())),
    )
