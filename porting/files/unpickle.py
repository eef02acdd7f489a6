"""Unpickles tensors without torch and without running what a pickle asks for.

A pickle is a program: it names functions and calls them. This reader knows the few names that
tensors and arrays need and answers each with a function of its own; at any other name it stops and
says which one the file wanted. Nothing of torch or of numpy's own unpickling is called.

Sources: torch.serialization, torch._utils and torch/csrc/jit/serialization/pickler.cpp (the names).
"""

import collections
import dataclasses
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

_STORAGE_DTYPES = {
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "BoolStorage": np.dtype(np.bool_),
    "ByteStorage": np.dtype(np.uint8),
    "CharStorage": np.dtype(np.int8),
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "IntStorage": np.dtype(np.int32),
    "LongStorage": np.dtype(np.int64),
    "ShortStorage": np.dtype(np.int16),
    "UntypedStorage": np.dtype(np.uint8),
}
_TORCH_DTYPES = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "bool": np.dtype(np.bool_),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "int8": np.dtype(np.int8),
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "uint8": np.dtype(np.uint8),
}
# What numpy arrays of a checkpoint may hold, by numpy's short names.
_NUMPY_DTYPES = {
    np.dtype(t).str[1:]
    for t in ("bool", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
}

# What the unpickler runs into when bytes are missing or wrong.
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


class UnsafePickleError(ValueError):
    """The file asks for something that tensors and arrays do not need."""


@dataclasses.dataclass
class Storage:
    """A torch storage: a flat run of numbers that tensors are views of.

    Attributes:
        dtype: of the numbers.
        numel: how many there are.
        data: the numbers, once they are known (the older layout keeps them at the file's end).
    """

    dtype: np.dtype
    numel: int
    data: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class TensorView:
    """A tensor as the pickle describes it; `array()` makes it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    def array(self) -> np.ndarray:
        """The tensor, read-only and without a copy."""
        if self.storage.data is None:
            raise ValueError("the file ends before the numbers of one of its tensors")
        flat = self.storage.data.view(self.dtype)
        numbers = (self.offset, *self.shape, *self.strides)
        if any(not isinstance(n, int) or n < 0 for n in numbers) or len(self.shape) != len(
            self.strides
        ):
            raise ValueError(f"a tensor has the impossible shape {self.shape}, {self.strides}")
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        # as_strided checks no bounds, so the last number's place is computed here.
        last = self.offset + sum(
            (n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)
        )
        if last >= flat.size:
            raise ValueError(
                f"a tensor of shape {self.shape} reaches to number {last} of {flat.size}"
            )
        strides = [step * flat.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, strides, writeable=False
        )


class _Dtype:
    """Stands for numpy.dtype inside a pickle."""

    def __init__(self, name: str, *_: Any):
        if not isinstance(name, str) or name.lstrip("<>|=") not in _NUMPY_DTYPES:
            raise UnsafePickleError(f"asks for arrays of dtype {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise UnsafePickleError(f"asks for byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _NumpyArray:
    """Stands for numpy.ndarray inside a pickle."""

    data: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        self.data = _from_bytes(raw, dtype, shape, "F" if fortran else "C")


class ScriptModule:
    """Stands for every type of a TorchScript archive: its attributes by name, no code.

    Attributes:
        attributes: tensors, modules and plain values.
    """

    attributes: dict[str, Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            state = {}  # a type of C++ with a state of its own, which holds no weights of a model
        self.attributes = state


class Name(NamedTuple):
    """The answer to a name that a pickle asks for.

    A tuple, because a pickle may also set attributes of what it got; these have none.

    Attributes:
        call: what calling the name does, or None for names that are only mentioned.
        dtype: of a torch storage type or torch dtype.
    """

    call: Callable[..., Any] | None = None
    dtype: np.dtype | None = None

    def __call__(self, *args: Any) -> Any:
        if self.call is None:
            raise UnsafePickleError("calls a type that tensors only mention")
        return self.call(*args)


def _from_bytes(raw: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """An array of raw bytes; refuses lengths that do not fit."""
    if not isinstance(dtype, _Dtype) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise UnsafePickleError("asks for an array of unknown kind")
    if isinstance(raw, str):  # written by Python 2, read as latin-1
        raw = raw.encode("latin-1")
    if not isinstance(raw, bytes | bytearray):
        raise UnsafePickleError("asks for an array of Python objects")
    flat = np.frombuffer(raw, dtype.dtype)
    if flat.size != math.prod(shape):
        raise ValueError(f"an array of shape {shape} has {flat.size} numbers")
    native = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    return native.reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _Dtype, raw: Any = b"") -> Any:
    return _from_bytes(raw, dtype, (), "C")[()]


def _encode(text: str, codec: str) -> bytes:
    """How protocol 2 writes bytes: as latin-1 text and a call that encodes it."""
    if codec not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"asks for the codec {codec!r}")
    return text.encode("latin-1")


def _tensor_v2(storage, offset, shape, strides, *_: Any) -> TensorView:
    return TensorView(storage, offset, tuple(shape), tuple(strides), storage.dtype)


def _tensor_v3(storage, offset, shape, strides, _grad, _hooks, dtype, *_: Any) -> TensorView:
    return TensorView(storage, offset, tuple(shape), tuple(strides), dtype_of(dtype))


def dtype_of(kind: Any) -> np.dtype:
    """Of a torch storage type or torch dtype."""
    if not isinstance(kind, Name) or kind.dtype is None:
        raise UnsafePickleError("asks for a storage of unknown kind")
    return kind.dtype


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _numpy_array(kind: Any, *_: Any) -> _NumpyArray:
    if kind is not _NDARRAY:
        raise UnsafePickleError("asks for an unknown kind of array")
    return _NumpyArray()


_NDARRAY = Name()
_NUMPY_ROOMS = ("numpy.core", "numpy._core")
_NAMES: dict[tuple[str, str], Name] = {
    ("collections", "OrderedDict"): Name(collections.OrderedDict),
    ("_codecs", "encode"): Name(_encode),
    ("torch", "Size"): Name(tuple),
    ("torch._utils", "_rebuild_tensor"): Name(_tensor_v2),
    ("torch._utils", "_rebuild_tensor_v2"): Name(_tensor_v2),
    ("torch._utils", "_rebuild_tensor_v3"): Name(_tensor_v3),
    ("torch._utils", "_rebuild_parameter"): Name(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Name(_parameter),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Name(_Dtype),
    **{(f"{room}.multiarray", "_reconstruct"): Name(_numpy_array) for room in _NUMPY_ROOMS},
    **{(f"{room}.multiarray", "scalar"): Name(_scalar) for room in _NUMPY_ROOMS},
    **{(f"{room}.numeric", "_frombuffer"): Name(_from_bytes) for room in _NUMPY_ROOMS},
    **{("torch", name): Name(dtype=dtype) for name, dtype in _STORAGE_DTYPES.items()},
    **{("torch", name): Name(dtype=dtype) for name, dtype in _TORCH_DTYPES.items()},
    ("torch.storage", "UntypedStorage"): Name(dtype=np.dtype(np.uint8)),
}


# What a TorchScript archive needs besides; its types, `__torch__.*`, are `ScriptModule` to us.
_SCRIPT_NAMES: dict[tuple[str, str], Name] = {
    **{
        ("torch.jit._pickle", name): Name(_parameter)
        for name in (
            "build_boollist",
            "build_doublelist",
            "build_intlist",
            "build_tensorlist",
            "restore_type_tag",
        )
    },
    ("torch", "device"): Name(str),
}


class Unpickler(pickle.Unpickler):
    """Answers the names of `_NAMES`, and nothing else.

    Args:
        file: with the pickle.
        storage: makes the storage of a torch tensor; None where there are none.
        script: whether the file is a TorchScript archive.
    """

    def __init__(
        self,
        file: IO[bytes],
        storage: Callable[..., Storage] | None = None,
        *,
        script: bool = False,
    ):
        # Latin-1 is how files of Python 2 (older model zoos) keep their bytes.
        super().__init__(file, encoding="latin-1")
        self._storage = storage
        self._script = script

    def find_class(self, module: str, name: str) -> Any:
        if self._script and module.partition(".")[0] == "__torch__":
            return ScriptModule
        if self._script and (module, name) in _SCRIPT_NAMES:
            return _SCRIPT_NAMES[module, name]
        try:
            return _NAMES[module, name]
        except KeyError:
            raise UnsafePickleError(f"asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None or not isinstance(pid, tuple) or pid[0] != "storage":
            raise UnsafePickleError(f"asks for the object {pid!r:.80}")
        return self._storage(*pid[1:])


def read_pickle(path: Path) -> Any:
    """The content of a plain pickle of numpy arrays (Detectron2's `.pkl`)."""
    with path.open("rb") as file:
        return resolved(load(Unpickler(file), path))


def load(unpickler: Unpickler, path: Path) -> Any:
    """Runs an unpickler; says in the file's name what went wrong."""
    try:
        return unpickler.load()
    except UnsafePickleError as error:
        raise UnsafePickleError(
            f"{path} {error}, which no tensor or array needs; nothing of it was run. If you trust"
            " the file, load it where it was made and save its state dict alone."
        ) from None
    except _DAMAGE as error:
        raise ValueError(f"{path} is cut short or damaged: {error}") from error


def resolved(content: Any) -> Any:
    """The content with arrays in place of the stand-ins."""
    if isinstance(content, dict):
        return {key: resolved(value) for key, value in content.items()}
    if isinstance(content, TensorView):
        return content.array()
    if isinstance(content, _NumpyArray):
        return content.data
    return content
