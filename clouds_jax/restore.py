"""A trained model from a run or a weights folder, for the programs that only look at it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from clouds_jax import checkpoint, parts, sharding

Model = tuple[nnx.GraphDef, nnx.State]


def restore(
    config: ConfigDict | None,
    *,
    workdir: str = "",
    weights: str = "",
    step: int | None = None,
) -> tuple[Model, ConfigDict, dict[str, Any]]:
    """Reads a model.

    Args:
        config: describes the model; None: what the run was trained with.
        workdir: a run; its checkpoint `step`, the newest if None.
        weights: a folder of converted weights with encoder and head; not together with `workdir`.

    Returns:
        The model, the config, and what to say of the model in reports.
    """
    if bool(workdir) == bool(weights):
        raise ValueError("name either a run (--workdir) or a weights folder (--weights).")
    if workdir:
        tree, saved = checkpoint.load_run(workdir, step)
        about = {
            "run": str(workdir), "step": int(saved["step"]), "commit": saved.get("commit", ""),
            "versions": saved.get("versions", {}), "config": saved["config"],
        }  # fmt: skip
        trained = ConfigDict(saved["config"])
        config = trained if config is None else config
        _check_same_model(trained, config, workdir)
    else:
        if config is None:
            raise ValueError("--weights says nothing of the model's form; name its --config too.")
        tree, provenance = checkpoint.load_weights(weights)
        about = {
            "weights": str(weights),
            "provenance": provenance,
            "config": parts.jsonable(config),
        }
    return fill(config, tree, where=workdir or weights), config, about


def fill(config: Mapping[str, Any], tree: Mapping[str, Any], *, where: str) -> Model:
    """The model of `config` with the weights of `tree`, which must fill it exactly."""
    build = parts.model_builder(config)
    graphdef, shape = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
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
            + "\nIs this the config it was trained with?"
        )
    values = [jnp.asarray(given[name], slot.dtype) for name, slot in wanted.items()]
    return graphdef, jax.tree.unflatten(treedef, values)


def _check_same_model(trained: ConfigDict, config: ConfigDict, workdir: str) -> None:
    same = [
        ("label_space", trained.label_space, config.label_space),
        ("encoder.name", trained.encoder.name, config.encoder.name),
        ("head", trained.head.to_dict(), config.head.to_dict()),
    ]
    for key, then, now in same:
        if then != now:
            raise ValueError(
                f"{workdir} was trained with {key} {then}, the config now says {now}; leave "
                "--config away to take the run's own."
            )
