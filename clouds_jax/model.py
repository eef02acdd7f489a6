"""A trained model from a run or a weights folder, for the programs that only look at it."""

from typing import Any

from flax import nnx
from ml_collections import ConfigDict

from clouds_jax.config import experiment
from clouds_jax.training import checkpoint
from clouds_jax.weights import fill_module, load_weights, merged

Model = tuple[nnx.GraphDef, nnx.State]


def restore(
    config: ConfigDict | None,
    *,
    workdir: str = "",
    weights: str = "",
    step: int | None = None,
    teacher: bool = False,
) -> tuple[Model, ConfigDict, dict[str, Any]]:
    """Reads a model.

    Args:
        config: describes the model; None: what the run was trained with.
        workdir: a run; its checkpoint `step`, the newest if None.
        teacher: of the run, instead of its student.
        weights: a folder of converted weights with encoder and head; not together with `workdir`.

    Returns:
        The model, the config, and what to say of the model in reports.
    """
    if bool(workdir) == bool(weights):
        raise ValueError("name either a run (--workdir) or a weights folder (--weights).")
    if workdir:
        tree, saved = checkpoint.load_run(workdir, step, teacher=teacher)
        about = {
            "run": str(workdir), "step": int(saved["step"]), "commit": saved.get("commit", ""),
            "versions": saved.get("versions", {}), "config": saved["config"],
        }  # fmt: skip
        trained = ConfigDict(saved["config"])
        config = trained if config is None else config
        _check_same_model(trained, config, workdir)
        tree.pop("sam", None)  # it has no part in what is predicted
        tree = _with_ensemble(tree, config)
    else:
        if config is None:
            raise ValueError("--weights says nothing of the model's form; name its --config too.")
        tree, provenance = load_weights(weights, ("encoder", "head"))
        tree = merged(tree, experiment.class_matrices(config, weights))
        about = {
            "weights": str(weights),
            "provenance": provenance,
            "config": experiment.jsonable(config),
        }
    build = experiment.model_builder(config, training=False)
    model = fill_module(
        lambda: build(nnx.Rngs(0)),
        tree,
        where=workdir or weights,
        hint="Is this the config it was trained with?",
    )
    return model, config, about


def _with_ensemble(tree: dict[str, Any], config: ConfigDict) -> dict[str, Any]:
    """The weights of a run with the ensemble's, if it is on: a run may have been without it."""
    given = tree.pop("ensemble", None)
    if experiment.ensemble_of(config):
        matrices = {} if given else experiment.class_matrices(config, config.encoder.weights)
        tree["ensemble"] = given or matrices["ensemble"]
    return tree


def _check_same_model(trained: ConfigDict, config: ConfigDict, workdir: str) -> None:
    same = [
        ("label_space", trained.label_space, config.label_space),
        ("encoder.name", trained.encoder.name, config.encoder.name),
        ("head", experiment.head_size(trained), experiment.head_size(config)),
    ]
    for key, then, now in same:
        if then != now:
            raise ValueError(
                f"{workdir} was trained with {key} {then}, the config now says {now}; leave "
                "--config away to take the run's own."
            )
