"""Restores a checkpoint from the weights folder that it was converted to."""

import collections
import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  numpy knows the name "bfloat16" through it
import numpy as np

from clouds_jax.weights import load_weights
from porting.conversion.conversion import Conversion
from porting.conversion.convert import save
from porting.conversion.streaming import bits_equal
from porting.files.open import Selection, below_prefix, open_checkpoint, tensor_hash
from porting.tables import get_table
from porting.tables.apply import ConversionError, invert_rules


@dataclasses.dataclass(frozen=True)
class _TensorSpec:
    """Shape and dtype of a tensor of the original."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Inverted:
    """A checkpoint restored from a weights folder.

    Attributes:
        state: tensors by name, in the order of the original.
        source: provenance of the original, as the folder keeps it.
        same: number of tensors whose hash is that of the original.
        missing: name of each tensor that the conversion dropped -> its reason.
    """

    state: dict[str, np.ndarray]
    source: dict[str, Any]
    same: int
    missing: dict[str, str]


def invert(folder: Path, *, original: str | None = None) -> Inverted:
    """Restores the checkpoint that a weights folder was converted from.

    Args:
        folder: a weights folder.
        original: the checkpoint itself, to take the tensors from that the conversion dropped.

    Raises:
        ConversionError: weights and provenance do not fit each other, or `original` is another
            checkpoint.
        ValueError: `convert` did not write the folder, or wrote it with another table version.
    """
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
    specs = {name: _spec(known[name]) for name in provenance.get("order", known)}
    state = invert_rules(tree, table.rules, specs)
    missing = {name: known[name]["why"] for name in specs if name not in state}
    if original:
        state |= _take_from(original, provenance, missing)
        missing = {}
    same = sum(tensor_hash(tensor) == known[name]["sha256"] for name, tensor in state.items())
    ordered = {name: state[name] for name in specs if name in state}
    return Inverted(ordered, provenance["source"], same, missing)


def _spec(entry: Mapping[str, Any]) -> _TensorSpec:
    return _TensorSpec(tuple(entry["shape"]), np.dtype(entry["dtype"]))


def _take_from(
    original: str, provenance: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """The tensors of these names, taken from the original checkpoint."""
    origin = provenance["source"]
    state, source = open_checkpoint(original, Selection(entry=origin["entry"]))
    state, _ = below_prefix(state, source, origin["prefix"].removeprefix(source.prefix))
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
class RoundtripCounts:
    """Tensors that a roundtrip compared.

    Attributes:
        same: number of tensors restored bit for bit: all that the table does not drop.
        by_dtype: the same, by dtype.
        dropped: reason -> number of tensors that the table drops and cannot restore.
    """

    same: int
    by_dtype: dict[str, int]
    dropped: dict[str, int]


def roundtrip(conversion: Conversion, weights: Path | None = None) -> RoundtripCounts:
    """Converts to a folder, restores the checkpoint from it and compares every bit.

    Args:
        conversion: without misfits.
        weights: a folder with the converted weights; None writes a temporary one.

    Raises:
        ConversionError: lists all tensors that are not restored exactly.
    """
    if weights is None:
        with tempfile.TemporaryDirectory() as folder:
            save(conversion, Path(folder) / "weights")
            return roundtrip(conversion, Path(folder) / "weights")
    source, restored = conversion.state, invert(weights)
    misfits = [
        f"{name}: not in {weights}" for name in conversion.plan.used if name not in restored.state
    ]
    misfits += [
        f"{name}: does not come back bit for bit"
        for name, tensor in restored.state.items()
        if name not in source or not bits_equal(tensor, source[name])
    ]
    if misfits:
        raise ConversionError(misfits)
    return RoundtripCounts(
        same=len(restored.state),
        by_dtype=dict(collections.Counter(str(t.dtype) for t in restored.state.values())),
        dropped=dict(collections.Counter(restored.missing.values())),
    )
