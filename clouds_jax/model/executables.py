"""Compiled programs kept on disk, so that the next process neither traces nor lowers the model.

JAX's compile cache spares a process the compilation, but not the seconds in which Python traces
the model, lowers it, and JAX hashes what came out. The key of a program that is kept here is
known before all that.
"""

import functools
import hashlib
import importlib.metadata
import os
import pickle
import platform
import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import jax
from absl import logging
from flax import nnx
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

import clouds_jax
from clouds_jax.files import write_bytes

# Packages whose sources the key covers, by content or by version.
_COVERED = {"clouds_jax", "flax", "jax", "builtins", "numpy"}
_HASH = hashlib.sha256().digest_size


def jit(function: Callable, about: Hashable) -> Callable:
    """`jax.jit(function)`; the first call of a process finds the program of an earlier one.

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
    """Whether the key of a program covers the code of every part of a module."""
    kinds = {getattr(getattr(n, "type", None), "__module__", "builtins") for n in graphdef.nodes}
    return {kind.split(".")[0] for kind in kinds} <= _COVERED


def _program(function: Callable, about: str, leaves: list[Any], structure: Any) -> Callable:
    program = jax.jit(lambda leaves: function(*jax.tree.unflatten(structure, leaves)))
    wanted = jax.config.values["jax_enable_compilation_cache"]
    folder = wanted and jax.config.values["jax_compilation_cache_dir"]
    devices = set().union(*(leaf.devices() for leaf in leaves if isinstance(leaf, jax.Array)))
    if not folder or len(devices) != 1:
        return program
    (device,) = devices
    given = (structure, *map(jax.typeof, leaves), _machine(device))
    key = _digest(_without_addresses(about), *given, _sources())
    known = Path(folder) / f"traced-{key}.txt"  # names the program
    if (name := _text(known)) and (compiled := _read(Path(folder) / name, device)):
        return compiled
    lowered = program.lower(leaves)
    # edits that change no computation find the same program
    name = f"program-{_digest(lowered.as_text(), lowered.out_tree, *given)}.pickle"
    program_file = Path(folder) / name
    kept = _read(program_file, device)
    compiled = kept or _freshly_compiled(lowered)
    try:
        if kept is None:
            content = pickle.dumps(serialize_executable.serialize(compiled))
            write_bytes(program_file, hashlib.sha256(content).digest() + content)
        write_bytes(known, name.encode())
    except Exception as error:  # a full disk, or a program that this platform cannot write down
        logging.warning("the compiled program is not kept: %s", error)
    return compiled


def _freshly_compiled(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Without JAX's compile cache: what comes out of it cannot be written down again on CPUs."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        return lowered.compile()
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):  # not there, not ours to read, or no text
        return ""


def _read(path: Path, device: Any) -> jax.stages.Compiled | None:
    """The program in a file; None where there is none, or not a whole one.

    Whoever can write into the cache can run code here, as with JAX's own.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[_HASH:]).digest() != content[:_HASH]:
        logging.warning("%s is damaged, compiling again", path)
        return None
    try:
        payload, *structures = pickle.loads(content[_HASH:])
        return serialize_executable.deserialize_and_load(
            payload, *structures, backend=device.client, execution_devices=[device]
        )
    except Exception as error:  # drivers and libraries change under a cache
        logging.warning("%s cannot be loaded, compiling again: %s", path, error)
        return None


def _digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _machine(device: Any) -> tuple:
    """What a program depends on besides its operations."""
    return (
        device.id, device.device_kind, device.client.platform_version, _processor(),
        jax.config.values["jax_enable_x64"], jax.config.values["jax_default_matmul_precision"],
        os.environ.get("XLA_FLAGS"), _versions(),
    )  # fmt: skip


@functools.cache
def _processor() -> str:
    """The instruction set that programs were compiled for; several machines may share a cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


@functools.cache
def _versions() -> str:
    names = ("jax", "jaxlib", "flax", "numpy")
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


@functools.cache
def _sources() -> str:
    """A hash of this package's code."""
    hashed = hashlib.sha256()
    folder = Path(clouds_jax.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        hashed.update(f"{path.relative_to(folder)}\n".encode())
        hashed.update(path.read_bytes())
    return hashed.hexdigest()
