"""The names that a pickle of tensors and arrays may ask for, and their substitutes.

Sources: torch.serialization, torch._utils and torch/csrc/jit/serialization/pickler.cpp (the names).
"""

import collections
import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

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
# dtypes of numpy arrays in a checkpoint, by numpy's short names
_NUMPY_DTYPES = {
    np.dtype(t).str[1:]
    for t in ("bool", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
}


class UnsafePickleError(ValueError):
    """The file asks for a name that tensors and arrays do not need."""


@dataclasses.dataclass
class Storage:
    """A torch storage: a flat array that tensors are views of.

    Attributes:
        dtype: dtype of the elements.
        numel: number of elements.
        data: their bytes; None until they are read (the older format has them at the file's end).
    """

    dtype: np.dtype
    numel: int
    data: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class TensorView:
    """A tensor as the pickle describes it: a strided view of a storage."""

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
        # as_strided checks no bounds, so the last element's index is computed here
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
    """Substitute for numpy.dtype."""

    def __init__(self, name: str, *_: Any):
        if not isinstance(name, str) or name.lstrip("<>|=") not in _NUMPY_DTYPES:
            raise UnsafePickleError(f"asks for arrays of dtype {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise UnsafePickleError(f"asks for byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class NumpyArray:
    """Substitute for numpy.ndarray."""

    data: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        self.data = _from_bytes(raw, dtype, shape, "F" if fortran else "C")


class ScriptModule:
    """Substitute for every type of a TorchScript archive: attributes without code.

    Attributes:
        attributes: tensors, modules and plain values by name.
    """

    attributes: dict[str, Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            state = {}  # a C++ type with its own state, which holds no weights
        self.attributes = state


class Name(NamedTuple):
    """Substitute for a name that a pickle asks for.

    A tuple, because a pickle may also set attributes of an object, and tuples have none.

    Attributes:
        call: function in place of the named one; None for names that are only mentioned.
        dtype: dtype of a torch storage type or torch dtype.
    """

    call: Callable[..., Any] | None = None
    dtype: np.dtype | None = None

    def __call__(self, *args: Any) -> Any:
        if self.call is None:
            raise UnsafePickleError("calls a type that tensors only mention")
        return self.call(*args)


def _from_bytes(raw: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """An array of raw bytes; refuses lengths that do not fit the shape."""
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
    """Protocol 2 writes bytes as latin-1 text and a call that encodes it."""
    if codec not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"asks for the codec {codec!r}")
    return text.encode("latin-1")


def _tensor_v2(storage, offset, shape, strides, *_: Any) -> TensorView:
    return TensorView(storage, offset, tuple(shape), tuple(strides), storage.dtype)


def _tensor_v3(storage, offset, shape, strides, _grad, _hooks, dtype, *_: Any) -> TensorView:
    return TensorView(storage, offset, tuple(shape), tuple(strides), dtype_of(dtype))


def dtype_of(kind: Any) -> np.dtype:
    """The dtype of a torch storage type or torch dtype."""
    if not isinstance(kind, Name) or kind.dtype is None:
        raise UnsafePickleError("asks for a storage of unknown kind")
    return kind.dtype


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _dict(*_: Any) -> dict:
    """A dict subclass, whose items the pickle sets next: it may hold the tensors."""
    return {}


def _numpy_array(kind: Any, *_: Any) -> NumpyArray:
    if kind is not _NDARRAY:
        raise UnsafePickleError("asks for an unknown kind of array")
    return NumpyArray()


_NDARRAY = Name()
_NUMPY_ROOMS = ("numpy.core", "numpy._core")
NAMES: dict[tuple[str, str], Name] = {
    ("collections", "OrderedDict"): Name(collections.OrderedDict),
    ("collections", "defaultdict"): Name(_dict),
    ("collections", "Counter"): Name(_dict),
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


# Further names in a TorchScript archive; its types, `__torch__.*`, become `ScriptModule`.
SCRIPT_NAMES: dict[tuple[str, str], Name] = {
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
