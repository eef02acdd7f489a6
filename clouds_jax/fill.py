"""A module with given weights in place of random ones."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from clouds_jax import sharding


def fill_module(
    build: Callable[[], nnx.Module], tree: Mapping[str, Any], *, where: str, hint: str = ""
) -> tuple[nnx.GraphDef, Any]:
    """The module that `build` describes with the weights of `tree`, which must fill it exactly.

    Args:
        build: makes the module; it is not run, so no random numbers are drawn.
        tree: nested mappings with arrays as leaves.
        where: whose weights these are, for the error.
        hint: last line of the error.

    Returns:
        What `nnx.merge` takes.
    """
    graphdef, shape = nnx.split(nnx.eval_shape(build))
    slots, treedef = jax.tree_util.tree_flatten_with_path(shape)
    leaves = jax.tree_util.tree_flatten_with_path(dict(tree))[0]
    given = {sharding.path_name(path): leaf for path, leaf in leaves}
    wanted = {sharding.path_name(path): slot for path, slot in slots}
    misfits = [f"{name}: not in the weights" for name in wanted if name not in given]
    misfits += [f"{name}: not in the model" for name in given if name not in wanted]
    misfits += [
        f"{name}: {given[name].shape} in the weights, {slot.shape} in the model"
        for name, slot in wanted.items()
        if name in given and given[name].shape != slot.shape
    ]
    if misfits:
        raise ValueError(
            f"{where} has weights of another model, {len(misfits)} misfits:\n  "
            + "\n  ".join(misfits[:20])
            + (f"\n{hint}" if hint else "")
        )
    values = [jnp.asarray(given[name], slot.dtype) for name, slot in wanted.items()]
    return graphdef, jax.tree.unflatten(treedef, values)
