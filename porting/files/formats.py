"""Reads one checkpoint file of any format; large files are memory-mapped.

.pt .pth .bin     torch: zip, older stream, TorchScript
.safetensors      Hugging Face
.pkl              Detectron2
.npz              numpy
"""

import io
import json
import math
import mmap
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from porting.files import torch_files, unpickle
from porting.files.pickle_names import UnsafePickleError
from porting.files.signatures import HEAD, not_a_checkpoint

SAFETENSORS_DTYPES = {
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
# Errors of the readers where bytes are missing or wrong.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    SyntaxError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
)
_NPY_HEADER = 1 << 16  # bytes; more than the header of a numeric array takes


def read(path: Path) -> tuple[Any, str]:
    """Reads one file; returns its content and its format.

    The first bytes decide on the format, not the name, except that a zip file is .npz by its name.

    Raises:
        UnsafePickleError: the file asks to run code; the message names it.
        ValueError: damaged, or of an unknown format; where the first bytes tell what the file is
            instead, the message says so.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    try:
        if zipfile.is_zipfile(path):
            if path.suffix == ".npz":
                return _read_npz(path), "npz"
            return torch_files.read_torch_zip(path)
        if torch_files.is_torch_legacy(head):
            return torch_files.read_torch_legacy(path), "torch legacy"
        if head[8:9] == b"{":
            return _read_safetensors(path), "safetensors"
        if head[:1] == b"\x80":
            return unpickle.read_pickle(path), "pickle"
    except _DAMAGE as error:
        raise ValueError(f"{path} is cut short or damaged: {error}") from error
    if what := not_a_checkpoint(head):
        raise ValueError(f"{path} {what}.")
    raise ValueError(
        f"{path} is none of the known kinds (torch zip, torch legacy, TorchScript, pickle,"
        " safetensors, npz); was the download cut short?"
    )


def release(tensor: np.ndarray) -> None:
    """Frees the memory of a mapped tensor; its values are read from disk again when next used."""
    base: Any = tensor
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty for files of other formats."""
    with path.open("rb") as file:
        if file.read(16)[8:9] != b"{":
            return {}
    return _safetensors_header(np.memmap(path, np.uint8, "r"), path)[0].get("__metadata__", {})


def _safetensors_header(memory: np.ndarray, path: Path) -> tuple[dict[str, Any], int]:
    """The header, and the offset of the values: length of header, header in JSON, values."""
    length = int.from_bytes(memory[:8].tobytes(), "little")
    if 8 + length > memory.size:
        raise ValueError(f"{path} is cut short: its header of {length} bytes is not all there.")
    return json.loads(memory[8 : 8 + length].tobytes()), 8 + length


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    memory = np.memmap(path, np.uint8, "r")
    header, first = _safetensors_header(memory, path)
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in SAFETENSORS_DTYPES:
            known = ", ".join(SAFETENSORS_DTYPES)
            raise ValueError(f"{path}: {name} is {entry['dtype']}; this reader knows {known}.")
        dtype, shape = SAFETENSORS_DTYPES[entry["dtype"]], tuple(entry["shape"])
        start, end = (first + place for place in entry["data_offsets"])
        if end > memory.size or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path} is cut short or damaged: {name} {shape} is not all there.")
        tensors[name] = memory[start:end].view(dtype).reshape(shape)
    return tensors


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; refuses pickled ones."""
    memory = np.memmap(path, np.uint8, "r")
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            raw = torch_files.entry_bytes(memory, archive, info)
            file = io.BytesIO(raw[:_NPY_HEADER].tobytes())
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read_header is None:
                raise ValueError(f"{path}: {info.filename} is of version {version}, not 1.0 or 2.0")
            shape, fortran, dtype = read_header(file)
            if dtype.hasobject:
                raise UnsafePickleError(
                    f"{path}: {info.filename} is an array of Python objects, which would be"
                    " unpickled; nothing of it was run."
                )
            flat = raw[file.tell() :].view(dtype)
            if flat.size != math.prod(shape):
                raise ValueError(f"{path} is cut short: {info.filename} {shape} is not all there.")
            name = info.filename.removesuffix(".npy")
            arrays[name] = flat.reshape(shape, order="F" if fortran else "C")
    return arrays
