"""Programs whose trace is kept on disk, so that the next process does not trace the model again.

JAX's compile cache spares a process the compilation, but not the seconds in which Python traces
the model and lowers it. What comes out of that, the exported program, is kept beside it.
"""

import functools
import hashlib
import importlib.metadata
import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import jax
from absl import logging
from flax import nnx
from jax import export

import clouds_jax
from clouds_jax.files import write_bytes

# Packages whose sources the key covers, by content or by version.
_COVERED = {"clouds_jax", "flax", "jax", "builtins", "numpy"}


def jit(function: Callable, about: Hashable) -> Callable:
    """`jax.jit(function)`; the first call of a process finds the trace of an earlier one.

    Without a compile cache, and for arrays on several devices, it is `jax.jit` and nothing more.

    Args:
        function: pure function of pytrees of arrays.
        about: all that the result depends on besides the arguments and the sources of this
            package; its `repr` has to be the same in every process, addresses aside.
    """
    programs: dict[Hashable, Callable] = {}

    def call(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        key = structure, *map(jax.typeof, leaves)
        if key not in programs:
            programs[key] = _program(function, repr(about), leaves, structure)
        return programs[key](leaves)

    return call


def covers(graphdef: nnx.GraphDef) -> bool:
    """Whether the key of a trace covers the code of every part of a module."""
    kinds = {getattr(getattr(n, "type", None), "__module__", "builtins") for n in graphdef.nodes}
    return {kind.split(".")[0] for kind in kinds} <= _COVERED


def _program(function: Callable, about: str, leaves: list[Any], structure: Any) -> Callable:
    program = jax.jit(lambda leaves: function(*jax.tree.unflatten(structure, leaves)))
    folder = jax.config.values["jax_compilation_cache_dir"]
    if not folder or any(len(leaf.devices()) > 1 for leaf in leaves if isinstance(leaf, jax.Array)):
        return program
    key = "\n".join((about, str(structure), *(str(jax.typeof(leaf)) for leaf in leaves)))
    path = Path(folder) / f"traced-{_digest(key)}.stablehlo"
    exported = _read(path)
    if exported is None:
        try:
            exported = export.export(program)(leaves)
        except ValueError:  # a custom call of this platform that may not be kept
            return program
        try:
            write_bytes(path, bytes(exported.serialize()))
        except OSError as error:
            logging.warning("%s", error)
    return jax.jit(exported.call)


def _read(path: Path) -> export.Exported | None:
    """The program in a file; None where there is none, or not a whole one."""
    if not path.exists():
        return None
    try:
        return export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:  # a foreign or damaged file fails in many ways
        logging.warning("%s is no exported program, tracing again: %s", path, error)
        return None


def _digest(key: str) -> str:
    settings = (jax.default_backend(), jax.config.values["jax_enable_x64"],
                jax.config.values["jax_default_matmul_precision"])  # fmt: skip
    text = "\n".join((re.sub(r" at 0x[0-9a-f]+", "", key), str(settings), _sources()))
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def _sources() -> str:
    """A hash of this package's code and of the versions below it."""
    hashed = hashlib.sha256()
    for name in ("jax", "jaxlib", "flax", "numpy"):
        hashed.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    folder = Path(clouds_jax.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        hashed.update(f"{path.relative_to(folder)}\n".encode())
        hashed.update(path.read_bytes())
    return hashed.hexdigest()
