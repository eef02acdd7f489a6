"""Reads the files that torch writes, without torch; values stay on disk until they are used.

Three layouts: the zip file of `torch.save` since 1.6, the stream before it (magic number
0x1950a86a20f9469cfc6c), and the TorchScript archive of `torch.jit.save`, a zip file with a program
beside the weights. Of such an archive only the attributes of the modules are read: the program is
never opened.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from porting.files.pickle_names import Name, ScriptModule, Storage, TensorView, dtype_of
from porting.files.unpickle import Unpickler, load, to_arrays

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_DEPTH = 64  # nested modules; a module that holds itself would never end


def is_torchscript(archive: zipfile.ZipFile) -> bool:
    """Whether a zip file holds a program beside its weights."""
    names = {name.partition("/")[2] for name in archive.namelist()}
    return "constants.pkl" in names or any(name.startswith("code/") for name in names)


def read_torch_zip(path: Path) -> tuple[Any, str]:
    """The content of a zip file of torch, and its format, "torch zip" or "torchscript".

    For a TorchScript archive the content is that of `torch.jit.load(path).state_dict()`.
    """
    memory = np.memmap(path, np.uint8, "r")
    with zipfile.ZipFile(path) as archive:
        script = is_torchscript(archive)
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "data.pkl" not in entries:
            raise ValueError(f"{path} is a zip file without data.pkl: not written by torch.save.")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise ValueError(f"{path} was written on a big-endian machine; save it on another.")

        storages: dict[str, Storage] = {}

        def storage(kind: Name, key: str, _location: str, numel: int, *_: Any) -> Storage:
            if key not in storages:
                data = entry_bytes(memory, archive, entries[f"data/{key}"])
                if data.size != numel * dtype_of(kind).itemsize:
                    raise ValueError(f"storage {key} has {data.size} bytes for {numel} numbers")
                storages[key] = Storage(dtype_of(kind), numel, data)
            return storages[key]

        with archive.open(entries["data.pkl"]) as file:
            content = load(Unpickler(file, storage, script=script), path)
    if not script:
        return to_arrays(content), "torch zip"
    if not isinstance(content, ScriptModule):
        raise ValueError(f"{path} is a TorchScript archive of no module.")
    return {name: view.array() for name, view in _tensors(content, "", 0)}, "torchscript"


def _tensors(module: ScriptModule, prefix: str, depth: int) -> Iterator[tuple[str, TensorView]]:
    """Yields the tensors of a module and its submodules, in the order of a state dict."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"modules lie {_MAX_DEPTH} deep in each other")
    attributes = module.attributes or {}
    for name, value in attributes.items():
        if isinstance(value, TensorView):
            yield f"{prefix}{name}", value
    for name, value in attributes.items():
        if isinstance(value, ScriptModule):
            yield from _tensors(value, f"{prefix}{name}.", depth + 1)


def read_torch_legacy(path: Path) -> Any:
    """The content of a `.pth` of torch before 1.6: pickles, then the values of the storages."""
    storages: dict[str, Storage] = {}

    def storage(kind: Name, key: str, _location: str, numel: int, view: Any = None) -> Storage:
        if view is not None:
            raise ValueError(f"{path} holds storages that share memory; save it with newer torch.")
        return storages.setdefault(key, Storage(dtype_of(kind), numel))

    with path.open("rb") as file:
        for _ in range(2):  # magic number, protocol version
            load(Unpickler(file), path)
        machine = load(Unpickler(file), path)
        if not machine["little_endian"]:
            raise ValueError(f"{path} was written on a big-endian machine; save it on another.")
        content = load(Unpickler(file, storage), path)
        order = load(Unpickler(file), path)
        offset = file.tell()
    memory = np.memmap(path, np.uint8, "r")
    for key in order:
        storage_of_key = storages[key]
        numel = int.from_bytes(memory[offset : offset + 8].tobytes(), "little")
        start, end = offset + 8, offset + 8 + numel * storage_of_key.dtype.itemsize
        if numel != storage_of_key.numel or end > memory.size:
            raise ValueError(f"{path} is cut short or damaged: storage {key} is not all there.")
        storage_of_key.data, offset = memory[start:end], end
    return to_arrays(content)


def is_torch_legacy(head: bytes) -> bool:
    """Whether a file that begins with the bytes `head` is of torch before 1.6."""
    return _LEGACY_MAGIC.to_bytes(10, "little") in head[:16]


def entry_bytes(memory: np.ndarray, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of a zip entry: a view of the mapped file, or a copy if it is compressed."""
    if info.compress_type != zipfile.ZIP_STORED:
        return np.frombuffer(archive.read(info), np.uint8)
    # The local header has 30 bytes, then name and extra field; it states their lengths.
    header = memory[info.header_offset : info.header_offset + 30].tobytes()
    start = info.header_offset + 30
    start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    if start + info.file_size > memory.size:
        raise ValueError(f"{info.filename} is not all there")
    return memory[start : start + info.file_size]
