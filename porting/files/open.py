"""Opens a checkpoint of any of the usual kinds as numpy arrays, without torch.

    .pt .pth .bin     torch: zip, older stream, TorchScript
    .safetensors      Hugging Face                 .pkl           Detectron2
    .npz              numpy
    a folder          Hugging Face: one file, or several with an index
                      ours: weights, or a run with checkpoints

Large files are mapped, not read: a tensor costs memory only when it is used.
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

# Programs save their weights beside other things under one of these keys.
_ENTRIES = ("model", "state_dict", "model_state", "model_state_dict")
PROVENANCE = "provenance.json"


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where weights come from.

    Attributes:
        file: name of the file, or of the folder; no path, so that reports tell nothing of a disk.
        format: which kind of file it was.
        bytes: its size, over all files of a folder.
        sha256: of the file; of a folder: name -> hash.
        entry: the key the state dict was found under, such as "model", or "state_dict.model", or
            "" where the tensors stand at the top.
        prefix: what was cut off the front of every name, such as "module.", or "".
        beside: other things of the file, not read: optimizer, iteration, ...
        package: distribution and version, where the file came with one.
        url: where it was fetched from, or "".
        licence: that a folder of our weights says it has, or "".
        parts: the top-level keys of a file of several state dicts; they begin the names.
    """

    file: str
    format: str
    bytes: int
    sha256: str | dict[str, str]
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
    """Reads the state dict of a checkpoint.

    Args:
        file: what `porting.files.locate.locate` takes: a path, `package:name`, a URL or `hf://org/name`.

    Returns:
        The tensors by name, in the file's order, nested `model` / `state_dict` entries opened and
        a common `module.` cut off; and where they come from.

    Raises:
        UnsafePickleError: the file asks to run something; the message names it.
        ValueError: damaged, or of an unknown kind.
    """
    located = locate.locate(str(file))
    path = located.path
    if (path / PROVENANCE).exists() or (path / "checkpoints").is_dir():
        return _open_ours(path)
    files = _files_of(path) if path.is_dir() else [path]
    content: dict[str, Any] = {}
    kind = ""
    for one in files:
        read, kind = formats.read(one)
        if not isinstance(read, Mapping):
            raise ValueError(f"{one} holds a {type(read).__name__}, not a dict of tensors.")
        content.update(read)
    state, provenance = _state_dict(content, path)
    hashes = {one.name: sha256(one) for one in files}
    return state, dataclasses.replace(
        provenance,
        format=kind,
        bytes=sum(one.stat().st_size for one in files),
        sha256=hashes if path.is_dir() else hashes[path.name],
        package=located.package,
        url=located.url,
    )


def without_prefix(
    state: Mapping[str, np.ndarray], provenance: Provenance, prefix: str
) -> tuple[dict[str, np.ndarray], Provenance]:
    """The same tensors with `prefix` cut off the front of every name."""
    cut = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return cut, dataclasses.replace(provenance, prefix=provenance.prefix + prefix)


def sha256(path: Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_hash(tensor: np.ndarray) -> str:
    """Hash of a tensor's numbers in row-major order; of equal tensors it is equal."""
    numbers = np.ascontiguousarray(tensor).reshape(-1)
    return hashlib.sha256(numbers.view(np.uint8).data).hexdigest()


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


def headers(file: str | Path) -> tuple[dict[str, Any], Provenance]:
    """`open_checkpoint` for those who ask for shapes and types alone: reads no numbers of ours."""
    path = Path(str(file))
    if not (path / PROVENANCE).exists():
        return open_checkpoint(file)
    from clouds_jax.weights import describe_weights  # loads JAX, which files of others do not need

    return _ours(path, describe_weights(path), "clouds_jax weights")


def _open_ours(folder: Path) -> tuple[dict[str, np.ndarray], Provenance]:
    """A folder of our weights, or a run with checkpoints; names are paths in the model."""
    if (folder / PROVENANCE).exists():
        from clouds_jax.weights import load_weights

        return _ours(folder, load_weights(folder)[0], "clouds_jax weights")
    from clouds_jax.training.checkpoint import load_run

    return _ours(folder, load_run(folder)[0], "clouds_jax run")


def _ours(folder: Path, tree: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], Provenance]:
    state = by_dotted_path(tree)
    size = sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
    # Orbax splits the arrays over files as it likes; what identifies weights is their provenance.
    hashes = {one.name: sha256(one) for one in folder.glob(PROVENANCE)}
    licence = ""
    if (folder / PROVENANCE).exists():
        licence = json.loads((folder / PROVENANCE).read_text()).get("licence", "")
    return state, Provenance(folder.name, kind, size, hashes, licence=licence)


def _state_dict(content: Mapping[str, Any], path: Path) -> tuple[dict[str, np.ndarray], Provenance]:
    """The tensors of a file; how deep they lay, and what else there is."""
    entries: list[str] = []
    beside: list[str] = []
    inner = content
    while entry := next((e for e in _ENTRIES if isinstance(inner.get(e), Mapping)), ""):
        front = "".join(f"{e}." for e in entries)
        beside += [f"{front}{key}" for key in inner if key != entry]
        entries.append(entry)
        inner = inner[entry]
    parts = tuple(key for key, value in inner.items() if isinstance(value, Mapping))
    tensors, others = _tensors(inner)
    if not tensors:  # several state dicts side by side
        both = {f"{part}.{name}": value for part in parts for name, value in inner[part].items()}
        tensors, others = _tensors(both)
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
    """The arrays of a dict, and the names of what else is in it."""
    tensors = {
        str(name): np.asarray(value)
        for name, value in content.items()
        if isinstance(value, np.ndarray | np.generic)
    }
    return tensors, [str(name) for name in content if str(name) not in tensors]
