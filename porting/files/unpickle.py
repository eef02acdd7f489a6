"""Unpickles tensors without torch and without running code of the file.

A pickle is a program: it names functions and calls them. This reader resolves the few names that
tensors and arrays need to substitutes (`pickle_names`), and those of known plain values to an
object that does nothing (`harmless`); at any other name it stops and reports which one the file
asked for. Nothing of torch or of numpy's own unpickling is called.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from porting.files.harmless import HARMLESS
from porting.files.pickle_names import (
    NAMES,
    SCRIPT_NAMES,
    NumpyArray,
    ScriptModule,
    Storage,
    TensorView,
    UnsafePickleError,
)

# Errors of the unpickler where bytes are missing or wrong.
_DAMAGE = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    UnicodeDecodeError,
)
# modules that protocols before 3 name as Python 2 did
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Unpickler(pickle.Unpickler):
    """An unpickler that resolves the names in `NAMES` and `HARMLESS` and refuses all others.

    Args:
        file: open file with the pickle.
        storage: creates the storage of a torch tensor; None where a file has none.
        script: whether the file is a TorchScript archive.
    """

    def __init__(
        self,
        file: IO[bytes],
        storage: Callable[..., Storage] | None = None,
        *,
        script: bool = False,
    ):
        # files of Python 2 (older model zoos) hold bytes as latin-1
        super().__init__(file, encoding="latin-1")
        self._storage = storage
        self._script = script

    def find_class(self, module: str, name: str) -> Any:
        if self._script and module.partition(".")[0] == "__torch__":
            return ScriptModule
        if self._script and (module, name) in SCRIPT_NAMES:
            return SCRIPT_NAMES[module, name]
        found = NAMES.get((module, name)) or HARMLESS.get((_RENAMED.get(module, module), name))
        if found is None:
            raise UnsafePickleError(f"asks for {module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None or not isinstance(pid, tuple) or pid[0] != "storage":
            raise UnsafePickleError(f"asks for the object {pid!r:.80}")
        return self._storage(*pid[1:])


def read_pickle(path: Path) -> Any:
    """The content of a plain pickle of numpy arrays (Detectron2's `.pkl`)."""
    with path.open("rb") as file:
        return to_arrays(load(Unpickler(file), path))


def load(unpickler: Unpickler, path: Path) -> Any:
    """Runs an unpickler; its errors name the file."""
    try:
        return unpickler.load()
    except UnsafePickleError as error:
        raise UnsafePickleError(
            f"{path} {error}, which no tensor or array needs; nothing of it was run. If you trust"
            " the file, load it where it was made and save its state dict alone."
        ) from None
    except _DAMAGE as error:
        raise ValueError(f"{path} is cut short or damaged: {error}") from error


def to_arrays(content: Any) -> Any:
    """Replaces the substitutes in the content by arrays."""
    if isinstance(content, dict):
        return {key: to_arrays(value) for key, value in content.items()}
    if isinstance(content, TensorView):
        return content.array()
    if isinstance(content, NumpyArray):
        return content.data
    return content
