"""The mesh and the placement of arrays on it: the only file that names mesh axes.

One axis, "data": batches are split over it, weights are replicated unless a rule says otherwise.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA = "data"


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the one axis "data".

    The axis is `Auto`, not `Explicit`: what has to stay on a device runs under `shard_map`, and
    the rest, encoder and optimizer, is left to the compiler. With explicit axes shardings would be
    part of the types in all of the model's code, its gathers and reshapes, for nothing gained.

    Args:
        devices: `jax.Device`s of the mesh; None: all devices of all hosts.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def padded(size: int, devices: int) -> int:
    """The least number of rows, from `size` up, that is a multiple of `devices`.

    Raises:
        ValueError: there is no row.
    """
    if size < 1:
        raise ValueError(f"a batch has {size} images; it needs at least 1.")
    return -(-size // devices) * devices


def shard(tree: Any, mesh: Mesh, rules: Sequence[tuple[str, str]]) -> Any:
    """A tree like `tree` with the sharding of every leaf.

    Args:
        tree: tree of arrays or `jax.ShapeDtypeStruct`s.
        mesh: mesh of `make_mesh`.
        rules: (regular expression, rule); the first expression found in the leaf's path, such as
            `frozen.encoder.stages.0.blocks.fc1.kernel`, decides. Rules are "replicate" and "fsdp":
            the largest axis that the devices divide is split over them (none: replicated).

    Raises:
        ValueError: a leaf that no expression matches, or an unknown rule.
    """

    def of(path: Sequence[Any], leaf: Any) -> NamedSharding:
        name = path_name(path)
        for pattern, rule in rules:
            if re.search(pattern, name):
                if rule not in _RULES:
                    raise ValueError(
                        f"config.sharding has the rule {rule!r}; known are: {', '.join(_RULES)}."
                    )
                return NamedSharding(mesh, _RULES[rule](leaf.shape, mesh.size))
        raise ValueError(
            f"no rule of config.sharding matches {name}; end with ('.*', 'replicate')."
        )

    return jax.tree_util.tree_map_with_path(of, tree)


def path_name(path: Sequence[Any]) -> str:
    """The path of a leaf, its parts joined by dots, without the `value` level of NNX variables."""
    name = jax.tree_util.keystr(tuple(path), simple=True, separator=".")
    return name.removesuffix(".value")


def join(mesh: Mesh, arrays: Sequence[jax.Array]) -> jax.Array:
    """Concatenates batches whose leading axes are split over the devices, moving nothing.

    Each device keeps its own rows, those of the first batch first: on it the result is the
    concatenation of its parts, so the order of the rows over all devices differs from that of a
    plain concatenation.
    """
    if len(arrays) == 1:
        return arrays[0]
    n = mesh.size
    parts = [x.reshape(n, x.shape[0] // n, *x.shape[1:]) for x in arrays]
    joined = jax.numpy.concatenate(parts, axis=1)
    return joined.reshape(-1, *joined.shape[2:])


def portions(mesh: Mesh, x: jax.Array, count: int) -> jax.Array:
    """A batch that is split over the devices as [count, ...] portions, moving nothing.

    Each device has its first rows in the first portion, and so on.
    """
    n = mesh.size
    split = x.reshape(n, count, x.shape[0] // (n * count), *x.shape[1:])
    return split.swapaxes(0, 1).reshape(count, -1, *x.shape[1:])


def per_device(
    function: Callable[..., Any], mesh: Mesh, *, split: Sequence[bool], out: Sequence[bool]
) -> Callable[..., Any]:
    """`function` run by every device on its part, so that nothing in it communicates by itself.

    Args:
        function: `function(reduce, *arguments)` -> tuple; `reduce` adds a tree over the devices.
        mesh: mesh of `make_mesh`.
        split: for each argument, whether its leading axis is split; otherwise it is whole.
        out: the same for each result; a result that is not split must be equal on all devices.
    """
    if mesh.size == 1:  # also what JAX's NaN checks can look into
        return functools.partial(function, lambda tree: tree)

    def specs(flags: Sequence[bool]) -> tuple[PartitionSpec, ...]:
        return tuple(PartitionSpec(DATA) if s else PartitionSpec() for s in flags)

    return jax.shard_map(
        functools.partial(function, lambda tree: jax.lax.psum(tree, DATA)),
        mesh=mesh,
        in_specs=specs(split),
        out_specs=specs(out),
        check_vma=False,
    )


def _replicate(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    return PartitionSpec()


def _fsdp(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    axes = [axis for axis, size in enumerate(shape) if size and size % devices == 0]
    if not axes:
        return PartitionSpec()
    largest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*(DATA if axis == largest else None for axis in range(largest + 1)))


_RULES = {"replicate": _replicate, "fsdp": _fsdp}
