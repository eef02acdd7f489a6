"""Writes a state dict as a checkpoint file: .safetensors, .pth, .pt, .bin or .npz."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from clouds_jax.files import written_whole
from porting.files.write_errors import write_errors_named

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def write(
    output: Path, state: Mapping[str, np.ndarray], source: Mapping[str, Any], *, plain: bool
) -> None:
    """Writes a checkpoint file; it appears under its name only when complete.

    Args:
        output: the file; its suffix decides on the format.
        state: tensors by name.
        source: provenance of the original, whose `prefix`, `entry` and `parts` give its names and
            nesting back. Flat formats get the prefix alone.
        plain: neither prefix nor nesting.

    Raises:
        ValueError: an unknown suffix, a format that needs torch without torch, or bfloat16 in .npz.
        OSError: the disk is full or the folder read-only; the text names `output`.
    """
    writer = _writer(output)
    prefix = "" if plain else source.get("prefix", "")
    content: dict[str, Any] = {prefix + name: tensor for name, tensor in state.items()}
    if writer is _write_torch and not plain:
        content = _nested(content, source)
    writer(output, content)


def check_writable(output: Path, *, force: bool = False) -> None:
    """Raises before the work if `output` cannot be written."""
    _writer(output)
    if output.is_dir():
        raise IsADirectoryError(f"{output} is a folder; give --output a file.")
    if output.exists() and not force:
        raise FileExistsError(f"{output} exists; choose another --output or give --force.")
    probe = output.with_name(f".{output.name}.tmp-{os.getpid()}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{output} cannot be written: {reason}; choose another --output.") from error


def _writer(output: Path) -> Callable[[Path, dict[str, Any]], None]:
    if output.suffix not in _WRITERS:
        raise ValueError(f"{output} is of no kind that can be written: {', '.join(_WRITERS)}.")
    writer = _WRITERS[output.suffix]
    if writer is _write_torch:
        _torch()
    return writer


def _nested(content: dict[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """Nests the tensors under the keys of the original."""
    if source.get("parts"):
        nested: dict[str, Any] = {part: {} for part in source["parts"]}
        for name, tensor in content.items():
            part = next((part for part in source["parts"] if name.startswith(f"{part}.")), "")
            below = nested[part] if part else nested  # some tensors may be beside the parts
            below[name.removeprefix(f"{part}.")] = tensor
        content = nested
    for entry in reversed([entry for entry in source.get("entry", "").split(".") if entry]):
        content = {entry: content}
    return content


def write_safetensors(
    output: Path, content: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file; it appears under its name only when complete.

    The format has its own order of the tensors: by dtype, then by name.
    """
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(t).reshape(t.shape) for name, t in content.items()}
    with written_whole(output) as temporary, write_errors_named(output):
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(contiguous, temporary, metadata=dict(metadata))
        temporary.chmod(mode)  # safetensors makes files that only their owner can read


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A new file that gets its name when it is complete."""
    with (
        written_whole(path) as temporary,
        write_errors_named(path),
        temporary.open("wb") as file,
    ):
        yield file


def _write_npz(path: Path, content: dict[str, Any]) -> None:
    refused = [name for name, tensor in content.items() if tensor.dtype == _BFLOAT16]
    if refused:
        raise ValueError(
            f"{refused[0]} and {len(refused) - 1} more are bfloat16, which .npz cannot hold; write"
            " .safetensors."
        )
    with _opened(path) as file:
        np.savez(file, allow_pickle=False, **content)


def _write_torch(path: Path, content: dict[str, Any]) -> None:
    torch = _torch()

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: tensors(inner) for name, inner in value.items()}
        array = np.array(value)  # a writable copy, as torch requires
        if array.dtype == _BFLOAT16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    with _opened(path) as file:
        torch.save(tensors(content), file)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ValueError(
            ".pth, .pt and .bin are written by torch, which is not installed: pip install"
            " 'clouds-jax[torch]', or write .safetensors."
        ) from None
    return torch


_WRITERS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    ".safetensors": lambda path, content: write_safetensors(path, content, {"format": "pt"}),
    ".pth": _write_torch,
    ".pt": _write_torch,
    ".bin": _write_torch,
    ".npz": _write_npz,
}
