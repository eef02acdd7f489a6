"""In which keys two configs differ, and whether that forbids going on from a checkpoint."""

import json
from collections.abc import Mapping
from typing import Any

from clouds_jax.differences import differences, flat

# Keys of the config that may differ between a checkpoint and the run that goes on from it: they
# change what is measured, kept or printed, or how fast it is, not what is learned. `steps` counts
# only where the schedule depends on it (see `changed_keys`).
_FREE_KEYS = (
    "accumulate",
    "checkpoint_every",
    "compile_cache",
    "data.shards",
    "data.threads",
    "data.buffer",
    "debug",
    "encoder.remat",
    "eval",
    "evals",
    "keep",
    "keep_best",
    "log_every",
    "profile",
    "selftrain.chunk",
    "sharding",
    "steps",
    "tensorboard",
    "wandb",
)


# Folders of weights that a run starts from; a checkpoint holds what was read from them.
_STARTS = ("encoder.weights", "init_from", "selftrain.sam.weights")


# Keys that older runs lack, with what these runs did.
ADDED = {
    "encoder.trainable": False,
    "encoder.lr_factor": 0.1,
    "encoder.drop_path": 0.1,
    "encoder.remat": "none",
    "head.classifier": "linear",
    "head.ensemble.enabled": False,
    "head.ensemble.alpha": 0.4,
    "head.ensemble.beta": 0.8,
    "head.ensemble.valid_masks": False,
    "head.ensemble.trained_space": "",
    "selftrain.enabled": False,
    "data.generated.limit": 0,
    "selftrain.sam.stored": True,
    "keep_best": False,
    "accumulate": 1,
    "matmul_precision": "bfloat16",  # JAX's own default, by its name
    "head.dtype": "float32",
}


# Settings of the joint phase: they change nothing of a run without it.
_JOINT = ("selftrain", "data.generated")


def with_added_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run from before some of its keys, with what that run did as their values."""
    out = json.loads(json.dumps(config))
    for key, value in ADDED.items():
        if key.startswith("head.") and config["head"]["name"] != "mask2former":
            continue
        *path, last = key.split(".")
        branch = out
        for name in path:
            branch = branch.setdefault(name, {})
        branch.setdefault(last, value)
    return out


def check_config(saved: Mapping[str, Any], current: Mapping[str, Any], *, where: str) -> None:
    """Refuses to go on from a checkpoint whose config learns something else.

    Args:
        saved: the config of the checkpoint.
        current: the config of this run.
        where: the run's folder, for the message.

    Raises:
        ValueError: the configs differ in a key that changes what is learned.
    """
    changed = changed_keys(saved, current)
    if changed:
        raise ValueError(
            f"{where} has checkpoints of another config ({'; '.join(changed)});"
            f" restore the value, or begin a new run from these weights: --workdir=NEW"
            f" --config.init_from={where}."
        )


def changed_keys(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """`key 3, now 4` for every key that differs and matters to a run that goes on.

    Args:
        saved: the config of the checkpoint, as JSON.
        current: the config of this run, as JSON.
    """
    old, new = flat(saved), flat(current)
    old |= {key: value for key, value in ADDED.items() if key in new and key not in old}
    free = {*_FREE_KEYS, *_STARTS}
    if "poly" in (old.get("optimizer.schedule"), new.get("optimizer.schedule")):
        free.discard("steps")  # the learning rate of every step depends on it
    if not (old.get("selftrain.enabled") or new.get("selftrain.enabled")):
        free |= {*_JOINT}
    return [
        text
        for key, text in differences(old, new).items()
        if not any(key == f or key.startswith(f + ".") for f in free)
    ]


def moved_weights(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """`key "a", now "b"` for every folder of weights that a run which goes on does not read."""
    old, new = flat(saved), flat(current)
    return [text for key, text in differences(old, new).items() if key in _STARTS]
