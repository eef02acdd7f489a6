"""Opens a checkpoint of any common format as numpy arrays, without torch.

    .pt .pth .bin     torch: zip, older stream, TorchScript
    .safetensors      Hugging Face                 .pkl           Detectron2
    .npz              numpy
    a folder          Hugging Face: one file, or several with an index
                      ours: weights, or a run with checkpoints

Large files are memory-mapped: a tensor takes memory only when it is used.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from porting.files import formats, locate
from porting.files.trees import by_dotted_path

# Keys under which training programs save the weights beside other things.
_ENTRIES = ("model", "state_dict", "model_state", "model_state_dict")
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

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return dataclasses.asdict(self)


def open_checkpoint(file: str | Path) -> tuple[dict[str, np.ndarray], Provenance]:
    """Opens the state dict of a checkpoint.

    Args:
        file: a path, `package:name`, a URL or `hf://org/name`, see `porting.files.locate`.

    Returns:
        The tensors by name, in the file's order, and their provenance. Nested `model` and
        `state_dict` entries are opened, and a common `module.` is cut off.

    Raises:
        UnsafePickleError: the file asks to run code; the message names it.
        ValueError: damaged, or of an unknown format.
    """
    located = locate.locate(str(file))
    path = located.path
    if (path / PROVENANCE).exists() or (path / "checkpoints").is_dir():
        return _open_ours(path)
    files = _files_of(path) if path.is_dir() else [path]
    content: dict[str, Any] = {}
    file_format = ""
    for part in files:
        read, file_format = formats.read(part)
        if not isinstance(read, Mapping):
            raise ValueError(f"{part} holds a {type(read).__name__}, not a dict of tensors.")
        content.update(read)
    state, provenance = _state_dict(content, path)
    hashes = {part.name: sha256(part) for part in files}
    return state, dataclasses.replace(
        provenance,
        format=file_format,
        bytes=sum(part.stat().st_size for part in files),
        sha256=hashes if path.is_dir() else hashes[path.name],
        package=located.package,
        url=located.url,
    )


def without_prefix(
    state: Mapping[str, np.ndarray], provenance: Provenance, prefix: str
) -> tuple[dict[str, np.ndarray], Provenance]:
    """Cuts `prefix` off the front of every name, and records it in the provenance."""
    cut = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return cut, dataclasses.replace(provenance, prefix=provenance.prefix + prefix)


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


def _files_of(folder: Path) -> list[Path]:
    """The weight files of a Hugging Face folder."""
    for name in locate.FOLDER_FILES:
        path = folder / name
        if not path.exists():
            continue
        if not name.endswith(".index.json"):
            return [path]
        parts = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        wrong = [part for part in parts if Path(part).name != part or not (folder / part).exists()]
        if wrong:
            raise FileNotFoundError(f"{path} names {', '.join(wrong)}, not in {folder}.")
        return [folder / part for part in parts]
    raise FileNotFoundError(f"{folder} has none of: {', '.join(locate.FOLDER_FILES)}.")


def read_headers(file: str | Path) -> tuple[dict[str, Any], Provenance]:
    """`open_checkpoint` for shapes and dtypes alone: reads no values of a weights folder."""
    path = Path(str(file))
    if not (path / PROVENANCE).exists():
        return open_checkpoint(file)
    from clouds_jax.weights import describe_weights  # loads JAX, which other formats do not need

    return _ours(path, describe_weights(path), "clouds_jax weights")


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


def _state_dict(content: Mapping[str, Any], path: Path) -> tuple[dict[str, np.ndarray], Provenance]:
    """The tensors of a file, and a provenance with their entry, prefix and the keys beside."""
    entries: list[str] = []
    beside: list[str] = []
    inner = content
    while entry := next((e for e in _ENTRIES if isinstance(inner.get(e), Mapping)), ""):
        outer = "".join(f"{e}." for e in entries)
        beside += [f"{outer}{key}" for key in inner if key != entry]
        entries.append(entry)
        inner = inner[entry]
    parts = tuple(key for key, value in inner.items() if isinstance(value, Mapping))
    tensors, others = _tensors(inner)
    if not tensors:  # several state dicts side by side
        merged = {f"{part}.{name}": value for part in parts for name, value in inner[part].items()}
        tensors, others = _tensors(merged)
        others += [str(key) for key in inner if key not in parts]
    else:
        parts = ()
    if not tensors:
        raise ValueError(f"{path} has no tensors, only: {', '.join(map(str, content))}.")
    beside += ["".join(f"{e}." for e in entries) + name for name in others]
    provenance = Provenance(
        path.name, "", 0, "", entry=".".join(entries), beside=tuple(beside), parts=parts
    )
    if all(name.startswith("module.") for name in tensors):
        return without_prefix(tensors, provenance, "module.")
    return tensors, provenance


def _tensors(content: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of a dict, and the keys of everything else."""
    tensors = {
        str(name): np.asarray(value)
        for name, value in content.items()
        if isinstance(value, np.ndarray | np.generic)
    }
    return tensors, [str(name) for name in content if str(name) not in tensors]
