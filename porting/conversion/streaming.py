"""Converts a checkpoint part by part, so that memory does not grow with the file.

A part is the smallest set of targets that can be filled, and verified by the inverse, without the
others: usually one array; three where one source tensor holds query, key and value.
"""

from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np
from tqdm import tqdm

from porting.conversion.conversion import Conversion
from porting.files.formats import release
from porting.files.open import tensor_hash
from porting.files.trees import Tree, flatten, nest
from porting.tables.apply import ConversionError, Plan, value_misfits
from porting.tables.rules import Address

# Choices of --dtype: how floating-point arrays are written.
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "keep": None,  # as in the source
}
_BATCH = 1 << 28  # bytes written at once, unless one part is larger


def check_values(conversion: Conversion) -> dict[str, str]:
    """Reads every source tensor once, before anything is written.

    Returns:
        SHA-256 by name.

    Raises:
        ConversionError: lists all values that are not finite, and all tensors that may not be
            dropped because they do not have the value that the rule states.
    """
    hashes, misfits = {}, []
    for name, tensor in tqdm(conversion.state.items(), desc="reading", unit=" tensors"):
        hashes[name] = tensor_hash(tensor)
        misfits += value_misfits(name, tensor, conversion.plan)
        release(tensor)
    if misfits:
        raise ConversionError(misfits)
    return hashes


class WeightStream:
    """The weights of a conversion, part by part; can be iterated once.

    Args:
        conversion: without misfits, its values checked.
        dtype: key of `DTYPES`.

    Attributes:
        nbytes: bytes of all arrays.
        exact: number of source tensors so far that the weights restore bit for bit.
        narrowed: number of those that they do not, because `dtype` cannot hold their values.
    """

    def __init__(self, conversion: Conversion, dtype: str):
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; there are: {', '.join(DTYPES)}.")
        self.exact = self.narrowed = 0
        self._state, self._plan, self._dtype = conversion.state, conversion.plan, dtype
        self._leaves = {
            ".".join(map(str, path)): (path, leaf)
            for path, leaf in flatten(conversion.target.shapes)
        }
        numbers = sum(leaf.size for _, leaf in self._leaves.values())
        kept = sum(conversion.state[name].nbytes for name in conversion.plan.used)
        chosen = DTYPES[dtype]
        self.nbytes = kept if chosen is None else numbers * chosen.itemsize
        self._bar = tqdm(total=numbers, desc="converting", unit=" numbers", unit_scale=True)

    def __iter__(self) -> Iterator[Tree]:
        batch: dict[tuple, np.ndarray] = {}
        with self._bar as bar:
            for names in groups(self._plan):
                arrays = self._fill(names)
                self._verify(names, arrays)
                batch |= {self._leaves[path][0]: array for path, array in arrays.items()}
                bar.update(sum(array.size for array in arrays.values()))
                if sum(array.nbytes for array in batch.values()) >= _BATCH:
                    yield nest(batch)
                    batch, arrays = {}, {}
        if batch:
            yield nest(batch)

    def _fill(self, names: list[str]) -> dict[str, np.ndarray]:
        """Target path -> array, for all targets of these source tensors."""
        source_dtypes: dict[str, set[np.dtype]] = {}
        for name in names:
            for address in self._plan.used[name][1]:
                dtypes = source_dtypes.setdefault(address.path, set())
                dtypes.add(np.dtype(self._state[name].dtype))
        arrays = {
            path: np.empty(self._leaves[path][1].shape, self._dtype_of(path, dtypes))
            for path, dtypes in source_dtypes.items()
        }
        for name in names:
            rule, addresses = self._plan.used[name]
            parts = rule.layout.forward(self._state[name])
            for address, part in zip(addresses, parts, strict=True):
                with np.errstate(over="ignore"):  # found by `_verify`
                    _target(arrays, address)[...] = part
            release(self._state[name])
        return arrays

    def _dtype_of(self, path: str, sources: set[np.dtype]) -> np.dtype:
        """The dtype that a target is written in."""
        wanted = np.dtype(self._leaves[path][1].dtype)
        if wanted != np.float32:
            return wanted
        chosen = DTYPES[self._dtype]
        if chosen is None and len(sources) == 1:
            chosen = next(iter(sources))
        return chosen or wanted

    def _verify(self, names: list[str], arrays: Mapping[str, np.ndarray]) -> None:
        """Restores the source tensors from the targets and compares them bit by bit."""
        misfits = []
        for name in names:
            rule, addresses = self._plan.used[name]
            source = self._state[name]
            restored = rule.layout.backward([_target(arrays, address) for address in addresses])
            restored = np.asarray(restored).reshape(source.shape)
            if bits_equal(restored.astype(source.dtype, copy=False), source):
                self.exact += 1
            elif not np.all(np.isfinite(restored)):
                misfits.append(f"{name}: {restored.dtype} cannot hold its largest numbers")
            elif DTYPES[self._dtype] in (None, np.float32):
                misfits.append(f"{name}: does not come back bit for bit")
            else:
                self.narrowed += 1
            release(source)
        if misfits:
            raise ConversionError(misfits)


def groups(plan: Plan) -> list[list[str]]:
    """Source tensors grouped by shared targets, in the order of the file."""
    group_of: dict[str, list[str]] = {}  # target path -> names of its group
    order: list[list[str]] = []
    for name, (_, addresses) in plan.used.items():
        known: list[list[str]] = []
        for address in addresses:
            group = group_of.get(address.path)
            if group is not None and not any(group is other for other in known):
                known.append(group)
        if not known:
            known = [[]]
            order.append(known[0])
        first, *others = known
        for other in others:
            first += other
            order[:] = [group for group in order if group is not other]
            for path, group in group_of.items():
                if group is other:
                    group_of[path] = first
        first.append(name)
        for address in addresses:
            group_of[address.path] = first
    return order


def _target(arrays: Mapping[str, np.ndarray], address: Address) -> np.ndarray:
    """A view of the target, or of one row of a stacked target."""
    whole = arrays[address.path]
    return whole if address.index is None else whole[address.index, ...]


def bits_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same shape, dtype and bits; NaN and signed zeros count too."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    bits = np.dtype(f"u{a.dtype.itemsize}")
    return np.array_equal(a.view(bits), b.view(bits))
