"""Converts a checkpoint part by part, so that memory does not grow with the file.

A part is the smallest set of targets that can be filled, and checked on the way back, without the
others: mostly one array, three where one source tensor holds query, key and value.
"""

from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np
from tqdm import tqdm

from porting.files.formats import release
from porting.files.open import tensor_hash
from porting.files.trees import Tree, flatten, nest
from porting.tables.rules import Address, ConversionError, Plan

# What --dtype takes: what the floating-point arrays are written as.
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "keep": None,  # what the source has
}
_BATCH = 1 << 28  # bytes that are written at once, unless one part is larger


def check(state: Mapping[str, np.ndarray], plan: Plan) -> dict[str, str]:
    """Reads every tensor once, before anything is written.

    Returns:
        Name -> hash.

    Raises:
        ConversionError: all numbers that are not finite, and all that may not be left out.
    """
    hashes, misfits = {}, []
    for name, tensor in tqdm(state.items(), desc="reading", unit=" tensors"):
        hashes[name] = tensor_hash(tensor)
        rule = plan.dropped.get(name)
        if rule is not None and rule.value is not None and not np.all(tensor == rule.value):
            misfits.append(f"{name}: must be {rule.value:g} everywhere to be left out ({rule.why})")
        if name in plan.used:
            bad = tensor.size - np.count_nonzero(np.isfinite(tensor))
            if bad:
                misfits.append(f"{name}: {bad} of {tensor.size} values are not finite")
        release(tensor)
    if misfits:
        raise ConversionError(misfits)
    return hashes


class Parts:
    """The weights of a checkpoint, part by part: iterate once.

    Args:
        state: the source tensors, checked.
        plan: which goes where, without misfits.
        want: the model's leaves.
        dtype: key of `DTYPES`.

    Attributes:
        same: source tensors that come back from the weights bit for bit, so far.
        narrowed: source tensors that do not, because `dtype` cannot hold them.
    """

    def __init__(self, state: Mapping[str, np.ndarray], plan: Plan, want: Tree, dtype: str):
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; there are: {', '.join(DTYPES)}.")
        self.same = self.narrowed = 0
        self._state, self._plan, self._dtype = state, plan, dtype
        self._leaves = {".".join(map(str, path)): (path, leaf) for path, leaf in flatten(want)}

    def __iter__(self) -> Iterator[Tree]:
        batch: dict[tuple, np.ndarray] = {}
        total = sum(leaf.size for _, leaf in self._leaves.values())
        with tqdm(total=total, desc="converting", unit=" numbers", unit_scale=True) as bar:
            for names in groups(self._plan):
                made = self._fill(names)
                self._verify(names, made)
                batch |= {self._leaves[path][0]: array for path, array in made.items()}
                bar.update(sum(array.size for array in made.values()))
                if sum(array.nbytes for array in batch.values()) >= _BATCH:
                    yield nest(batch)
                    batch, made = {}, {}
        if batch:
            yield nest(batch)

    def _fill(self, names: list[str]) -> dict[str, np.ndarray]:
        """The targets of these tensors."""
        sources: dict[str, set[np.dtype]] = {}
        for name in names:
            for address in self._plan.used[name][1]:
                sources.setdefault(address.path, set()).add(np.dtype(self._state[name].dtype))
        made = {
            path: np.empty(self._leaves[path][1].shape, self._dtype_of(path, dtypes))
            for path, dtypes in sources.items()
        }
        for name in names:
            rule, addresses = self._plan.used[name]
            parts = rule.layout.forward(self._state[name])
            for address, part in zip(addresses, parts, strict=True):
                with np.errstate(over="ignore"):  # found by `_verify`
                    _rows(made, address)[...] = part
            release(self._state[name])
        return made

    def _dtype_of(self, path: str, sources: set[np.dtype]) -> np.dtype:
        """What a target is written as."""
        wanted = np.dtype(self._leaves[path][1].dtype)
        if wanted != np.float32:
            return wanted
        chosen = DTYPES[self._dtype]
        if chosen is None and len(sources) == 1:
            chosen = next(iter(sources))
        return chosen or wanted

    def _verify(self, names: list[str], made: Mapping[str, np.ndarray]) -> None:
        """Makes the source tensors anew from the targets and compares them bit by bit."""
        wrong = []
        for name in names:
            rule, addresses = self._plan.used[name]
            source = self._state[name]
            back = rule.layout.backward([_rows(made, address) for address in addresses])
            back = np.asarray(back).reshape(source.shape)
            if bits_equal(back.astype(source.dtype, copy=False), source):
                self.same += 1
            elif not np.all(np.isfinite(back)):
                wrong.append(f"{name}: {back.dtype} cannot hold its largest numbers")
            elif DTYPES[self._dtype] in (None, np.float32):
                wrong.append(f"{name}: does not come back bit for bit")
            else:
                self.narrowed += 1
            release(source)
        if wrong:
            raise ConversionError(wrong)


def groups(plan: Plan) -> list[list[str]]:
    """Source tensors that share targets, in the order of the file."""
    group_of: dict[str, list[str]] = {}  # target -> the tensors of its group
    order: list[list[str]] = []
    for name, (_, addresses) in plan.used.items():
        known: list[list[str]] = []
        for address in addresses:
            group = group_of.get(address.path)
            if group is not None and not any(group is one for one in known):
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


def _rows(made: Mapping[str, np.ndarray], address: Address) -> np.ndarray:
    """The target, or the row of a stacked one, to be written or read."""
    whole = made[address.path]
    return whole if address.index is None else whole[address.index, ...]


def bits_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same shape, dtype and bits; NaN and signed zeros count too."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    bits = np.dtype(f"u{a.dtype.itemsize}")
    return np.array_equal(a.view(bits), b.view(bits))
