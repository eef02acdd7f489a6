"""Opens a checkpoint of any common format as numpy arrays, without torch.

    .pt .pth .bin     torch: zip, older stream, TorchScript
    .safetensors      Hugging Face                 .pkl           Detectron2
    .npz              numpy
    a folder          one file, or the shards of one model; or the index of these
                      ours: weights, or a run with checkpoints

Large files are memory-mapped: a tensor takes memory only when it is used.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from porting.files import formats, locate
from porting.files.entries import find_state_dict
from porting.files.folders import INDEX, indexed_files, weight_files
from porting.files.trees import by_dotted_path

_SHOWN = 8  # starts of names in a message
PROVENANCE = "provenance.json"


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Origin of weights.

    Attributes:
        file: name of the file or folder; not its path, so that reports reveal nothing of a disk.
        format: file format.
        bytes: size, over all files of a folder.
        sha256: hash of the file; of a folder: name -> hash.
        entry: key of the state dict in the file, such as "model" or "state_dict.model"; "" where
            the tensors are at the top.
        prefix: prefix that was cut off every name, such as "module.", or "".
        beside: keys of the file that were not read: optimizer, iteration, ...
        package: distribution and version of the package that holds the file, or "".
        url: URL of the file, or "".
        licence: licence that a weights folder states, or "".
        parts: top-level keys of a file with several state dicts; the names begin with them.
        alternatives: entries of other state dicts of the same model in the file, such as an EMA.
    """

    file: str
    format: str
    bytes: int = 0
    sha256: str | dict[str, str] = ""
    entry: str = ""
    prefix: str = ""
    beside: tuple[str, ...] = ()
    package: str = ""
    url: str = ""
    licence: str = ""
    parts: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which tensors of a file are read.

    Attributes:
        entry: key of the state dict, or keys joined by dots; "" follows the usual ones.
        prefix: start of the names that are read, as in the file; it is cut off.
        drop: regular expressions; tensors with a match anywhere in their names are not read.
    """

    entry: str = ""
    prefix: str = ""
    drop: tuple[str, ...] = ()


EVERYTHING = Selection()


def open_checkpoint(
    file: str | Path, selection: Selection = EVERYTHING
) -> tuple[dict[str, np.ndarray], Provenance]:
    """Opens the state dict of a checkpoint.

    Args:
        file: a path, `package:name`, a URL or `hf://org/name`, see `porting.files.locate`.
        selection: the tensors to read.

    Returns:
        The tensors by name, in the file's order, and their provenance. Nested `model` and
        `state_dict` entries are opened, and a common `module.` is cut off.

    Raises:
        UnsafePickleError: the file asks to run code; the message names it.
        ValueError: damaged, of an unknown format, or without what `selection` names.
    """
    located = locate.locate(str(file))
    path = located.path
    if _is_ours(path):
        return _selected(*_open_ours(path), selection)
    is_index = path.name.endswith(INDEX)
    files = weight_files(path) if path.is_dir() else indexed_files(path) if is_index else [path]
    content: dict[str, Any] = {}
    file_format = ""
    for part in files:
        read, file_format = formats.read(part)
        if not isinstance(read, Mapping):
            raise ValueError(f"{part} holds a {type(read).__name__}, not a dict of tensors.")
        content.update(read)
    found = find_state_dict(content, path, selection.entry)
    hashes = {part.name: sha256(part) for part in files}
    provenance = Provenance(
        path.name,
        file_format,
        sum(part.stat().st_size for part in files),
        hashes if path.is_dir() or is_index else hashes[path.name],
        entry=found.entry,
        beside=found.beside,
        package=located.package,
        url=located.url,
        parts=found.parts,
        alternatives=found.alternatives,
    )
    state = found.tensors
    if all(name.startswith("module.") for name in state):
        state, provenance = below_prefix(state, provenance, "module.")
    return _selected(state, provenance, selection)


def below_prefix(
    state: Mapping[str, Any], provenance: Provenance, prefix: str
) -> tuple[dict[str, Any], Provenance]:
    """The tensors whose names begin with `prefix`, without it.

    The provenance records the prefix, and the other tensors as not read.
    """
    cut = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    others = [name for name in state if not name.startswith(prefix)]
    provenance = _without(provenance, others)
    return cut, dataclasses.replace(provenance, prefix=provenance.prefix + prefix)


def _without(provenance: Provenance, names: list[str]) -> Provenance:
    """Records tensors as not read."""
    entry = f"{provenance.entry}." if provenance.entry else ""
    names = [entry + provenance.prefix + name for name in names]
    return dataclasses.replace(provenance, beside=(*provenance.beside, *names))


def _selected(
    state: dict[str, Any], provenance: Provenance, selection: Selection
) -> tuple[dict[str, Any], Provenance]:
    """The tensors below the selection's prefix, without the dropped ones."""
    if selection.entry and not provenance.entry:
        raise ValueError(f"{provenance.file} is a weights folder or run; leave --entry out.")
    if selection.prefix:
        prefix = selection.prefix.removesuffix(".") + "."
        # also as the file has it, where a common `module.` is already cut off
        prefix = prefix.removeprefix(provenance.prefix)
        if prefix and not any(name.startswith(prefix) for name in state):
            starts = dict.fromkeys(f"{name.split('.')[0]}." for name in state if "." in name)
            listed = ", ".join(list(starts)[:_SHOWN]) + (", ..." if len(starts) > _SHOWN else "")
            raise ValueError(
                f"{provenance.file} has no name that begins with {prefix!r}; there are: {listed}."
            )
        state, provenance = below_prefix(state, provenance, prefix)
    for pattern in selection.drop:
        try:
            dropped = {name: None for name in state if re.search(pattern, name)}
        except re.error as error:
            raise ValueError(f"--drop {pattern!r} is no regular expression: {error}.") from error
        if not dropped:
            raise ValueError(
                f"--drop {pattern!r} matches no name of {provenance.file}; `inspect` lists them."
            )
        state = {name: tensor for name, tensor in state.items() if name not in dropped}
        provenance = _without(provenance, list(dropped))
    return state, provenance


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_hash(tensor: np.ndarray) -> str:
    """SHA-256 of a tensor's values in row-major order, whatever its memory layout."""
    values = np.ascontiguousarray(tensor).reshape(-1)
    return hashlib.sha256(values.view(np.uint8).data).hexdigest()


def summary(state: Mapping[str, Any]) -> str:
    """`296 tensors, 4,700,112 numbers`."""
    total = sum(tensor.size for tensor in state.values())
    return f"{len(state):,} tensors, {total:,} numbers"


def read_headers(
    file: str | Path, selection: Selection = EVERYTHING
) -> tuple[dict[str, Any], Provenance]:
    """`open_checkpoint` for shapes and dtypes alone: reads no values of a weights folder."""
    path = Path(str(file))
    if not (path / PROVENANCE).exists():
        return open_checkpoint(file, selection)
    from clouds_jax.weights import describe_weights  # loads JAX, which other formats do not need

    return _selected(*_ours(path, describe_weights(path), "clouds_jax weights"), selection)


def _is_ours(path: Path) -> bool:
    return (path / PROVENANCE).exists() or (path / "checkpoints").is_dir()


def _open_ours(folder: Path) -> tuple[dict[str, np.ndarray], Provenance]:
    """Opens a weights folder, or a run with checkpoints; names are paths in the model."""
    if (folder / PROVENANCE).exists():
        from clouds_jax.weights import load_weights

        return _ours(folder, load_weights(folder)[0], "clouds_jax weights")
    from clouds_jax.training.checkpoint import load_run

    return _ours(folder, load_run(folder)[0], "clouds_jax run")


def _ours(
    folder: Path, tree: Mapping[str, Any], file_format: str
) -> tuple[dict[str, Any], Provenance]:
    state = by_dotted_path(tree)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    # Orbax distributes the arrays over files as it likes; their provenance identifies weights.
    hashes = {file.name: sha256(file) for file in folder.glob(PROVENANCE)}
    licence = ""
    if (folder / PROVENANCE).exists():
        licence = json.loads((folder / PROVENANCE).read_text()).get("licence", "")
    return state, Provenance(folder.name, file_format, size, hashes, licence=licence)
