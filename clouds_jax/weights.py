"""Weights on disk and in modules.

A weights folder holds a plain nested dict of arrays and `provenance.json`: what
`python -m porting convert` writes and `config.encoder.weights` points to. It appears under its name
only when complete.
"""

import contextlib
import functools
import hashlib
import json
import logging as python_logging
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx
from orbax.checkpoint import v1 as ocp

from clouds_jax import hosts, sharding
from clouds_jax.nn.rngs import HostKeys

_ARRAYS = "arrays"
_PROVENANCE = "provenance.json"
_SHOWN = 12  # misfits in an error


def save_weights(
    path: str | os.PathLike,
    tree: Mapping[str, Any] | Iterator[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Writes weights and where they came from to the new folder `path`.

    Args:
        path: folder to create.
        tree: nested mappings with arrays as leaves; keys are written as text. Or an iterator of
            such trees without a common leaf: only one at a time is in memory.
        provenance: anything JSON can hold (source file, hash, licence, versions).
        overwrite: replace a weights folder that is already there.
    """
    path = pathlib.Path(path).absolute()
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another folder or ask to overwrite it.")
    if path.exists() and not (path / _PROVENANCE).exists():
        raise FileExistsError(
            f"{path} is no weights folder (no {_PROVENANCE}); not overwriting it."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        if isinstance(tree, Mapping):
            ocp.save(str(temporary / _ARRAYS), _plain(tree))
        else:
            for part in tree:
                held = jax.tree.map(lambda x: x.view(_Held), _plain(part))
                ocp.partial.save(str(temporary / _ARRAYS), held)
                del part, held  # before the next part is computed
            ocp.partial.finalize(str(temporary / _ARRAYS))
        (temporary / _PROVENANCE).write_text(
            json.dumps(provenance, indent=2, sort_keys=True) + "\n"
        )
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_weights(
    path: str | os.PathLike, parts: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads (nested dict of numpy arrays with text keys, provenance) of `save_weights`.

    Args:
        path: weights folder.
        parts: keys of the tree's first level to read, where they are there; None: all.

    Raises:
        FileNotFoundError: there is no weights folder at `path`.
        ValueError: its files are damaged.
    """
    path = pathlib.Path(path).absolute()
    arrays = str(path / _ARRAYS)
    if not path.exists():
        raise FileNotFoundError(
            f"no weights at {path}; make them with"
            f" `python -m porting convert <family> <file> --output {path}`"
            " (`python -m porting convert --help` lists the families)."
        )
    if not (path / _PROVENANCE).exists() or not (path / _ARRAYS).exists():
        raise FileNotFoundError(
            f"{path} is no weights folder ({_ARRAYS}/ and {_PROVENANCE} expected)."
        )
    try:
        provenance = json.loads((path / _PROVENANCE).read_text())
        chosen = parts
        if parts is not None and _says_it_holds(provenance) <= set(parts):
            chosen = None  # all of it, in half the time
        with reading(), read_alone(partial=chosen is not None):
            if chosen is None:
                tree = ocp.load(arrays)
            else:
                described = ocp.metadata(arrays).metadata
                wanted = {part: described[part] for part in chosen if part in described}
                tree = ocp.load(arrays, wanted) if wanted else {}
    except Exception as error:  # of damaged files Orbax and TensorStore raise many kinds
        raise ValueError(
            f"the weights of {path} cannot be read: {first_line(error)}\nCopy them or convert them"
            " again."
        ) from error
    if parts is not None:
        tree = {part: tree[part] for part in parts if part in tree}
    return jax.tree.map(np.asarray, tree), provenance


def _says_it_holds(provenance: Mapping[str, Any]) -> set[str]:
    """Parts of the tree that the provenance speaks of; "all" where it does not say."""
    if "model" in provenance:  # of `Model.save`
        return {"encoder", "head"}
    return set(provenance.get("target") or ["all"]) - {"classes"}


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Of arrays that cannot be read only the error comes out.

    Orbax logs it many times besides, asyncio those of the tasks that nobody waited for, and threads
    of TensorStore that come too late print theirs.
    """
    verbosity, hook = logging.get_verbosity(), sys.unraisablehook
    tasks = python_logging.getLogger("asyncio")
    level = tasks.level
    logging.set_verbosity(logging.FATAL)
    sys.unraisablehook = functools.partial(_unless_too_late, hook)
    tasks.setLevel(python_logging.CRITICAL)
    try:
        yield
        # after an error those tasks and threads are still to come
        sys.unraisablehook = hook
        tasks.setLevel(level)
    finally:
        logging.set_verbosity(verbosity)


def _unless_too_late(hook: Callable[[Any], Any], unraisable: Any) -> None:
    code = getattr(unraisable.object, "cr_code", None)  # of a coroutine that will not be ended
    torn = code is not None and "orbax" in code.co_filename
    if str(unraisable.exc_value) != "Event loop is closed" and not torn:
        hook(unraisable)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind, in at most 300 letters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def weights_digest(directory: str | os.PathLike) -> str:
    """A hash of the provenance of a weights folder, which holds the hash of its source."""
    path = pathlib.Path(directory) / _PROVENANCE
    if not path.exists():
        raise FileNotFoundError(
            f"{directory} is no weights folder (no {_PROVENANCE}); make one: python -m porting"
            " convert <file> --output <folder>."
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe_weights(path: str | os.PathLike) -> dict[str, Any]:
    """The nested dict of `load_weights` with a shape and dtype in place of each array."""
    described = ocp.metadata(str(pathlib.Path(path).absolute() / _ARRAYS)).metadata
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), described)


class _Held(np.ndarray):
    """An array that nobody changes while it is written.

    Orbax copies arrays before it writes, as their owner might go on with them.
    """

    def __deepcopy__(self, memo: dict) -> "_Held":
        return self


def _plain(tree: Any) -> Any:
    """The tree as nested dicts with text keys and numpy leaves."""
    if isinstance(tree, Mapping):
        return {str(key): _plain(value) for key, value in tree.items()}
    return np.asarray(tree)


def merged(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both nested dicts in one; where both have a leaf, that of `other`."""
    out = dict(tree)
    for key, value in other.items():
        inner = out.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            value = merged(inner, value)
        out[key] = value
    return out


def fill_module(
    build: Callable[[nnx.Rngs], nnx.Module], tree: Mapping[str, Any], *, where: str, hint: str = ""
) -> tuple[nnx.GraphDef, Any]:
    """The module that `build` describes with the weights of `tree`, which must fill it exactly.

    Args:
        build: `build(rngs)`, which returns the module; no random numbers are drawn.
        tree: nested mappings with arrays as leaves.
        where: origin of the weights, for the error.
        hint: last line of the error.

    Returns:
        The module's graphdef and state, for `nnx.merge`.

    Raises:
        ValueError: names or shapes are not those of the module.
    """
    graphdef, shape = nnx.split(build(HostKeys(None)))
    given, wanted = named(dict(tree)), named(shape)
    check_fit(given, wanted, where=f"the weights of {where}", hint=hint)
    values = [np.asarray(given[name], slot.dtype) for name, slot in wanted.items()]
    return graphdef, jax.tree.unflatten(jax.tree.structure(shape), jax.device_put(values))


def check_fit(
    given: Mapping[str, Any], wanted: Mapping[str, Any], *, where: str, hint: str = ""
) -> None:
    """Refuses weights whose names or shapes are not those of the model.

    Args:
        given: name -> array.
        wanted: name -> anything with a shape.
        where: origin of the weights, for the error.
        hint: last line of the error.

    Raises:
        ValueError: there are misfits; the text names the first dozen and counts all.
    """
    misfits = [f"{name}: not in the weights" for name in wanted if name not in given]
    misfits += [f"{name}: not in the model" for name in given if name not in wanted]
    misfits += [
        f"{name}: {tuple(given[name].shape)} in the weights, {tuple(slot.shape)} in the model"
        for name, slot in wanted.items()
        if name in given and tuple(given[name].shape) != tuple(slot.shape)
    ]
    if misfits:
        raise ValueError(
            f"{where} are of another model, {len(misfits)} misfits:\n  "
            + "\n  ".join(misfits[:_SHOWN])
            + (f"\n  ... ({len(misfits) - _SHOWN:,} more)" if len(misfits) > _SHOWN else "")
            + (f"\n{hint}" if hint else "")
        )


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by the names of their paths, in its order."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {sharding.path_name(path): leaf for path, leaf in leaves}


def read_alone(*, partial: bool = False) -> ocp.Context:
    """How weights are read: by each host for itself, which may need them when others do not.

    Args:
        partial: ask for some of the saved leaves.
    """
    context = ocp.Context()
    context.pytree.loading.partial_load = partial
    if hosts.count() > 1:
        own = context.multiprocessing
        own.primary_host = hosts.index()
        own.active_processes = {hosts.index()}
        own.barrier_sync_key_prefix = f"host{hosts.index()}"
    return context
