"""Checkpoints of runs, and weights on disk: the only import of Orbax.

Two kinds of folder:

* `RunCheckpoints`: state and data position of a run, one folder per step, with the config, the
  commit and the package versions beside it;
* weights (`save_weights`): a plain nested dict of arrays and `provenance.json`, what
  `python -m porting convert` writes and `config.encoder.weights` points to.

Both appear under their final name only when complete: a killed program leaves a temporary
folder, never half a checkpoint.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

_ARRAYS = "arrays"
_PROVENANCE = "provenance.json"
# Keys of the config that may differ between a checkpoint and the run that goes on from it: they
# change what is measured, kept or printed, not what is learned. `steps` counts only where the
# schedule depends on it (see `changed_keys`).
_FREE_KEYS = (
    "checkpoint_every",
    "compile_cache",
    "data.shards",
    "data.threads",
    "data.buffer",
    "debug",
    "eval",
    "evals",
    "init_from",
    "keep",
    "log_every",
    "profile",
    "sharding",
    "steps",
    "tensorboard",
    "wandb",
)
# Keys that older runs lack, with what these runs did.
_ADDED = {
    "encoder.trainable": False,
    "encoder.lr_factor": 0.1,
    "encoder.drop_path": 0.1,
    "head.classifier": "linear",
    "head.ensemble.enabled": False,
    "head.ensemble.alpha": 0.4,
    "head.ensemble.beta": 0.8,
    "head.ensemble.valid_masks": False,
    "head.ensemble.trained_space": "",
    "selftrain.enabled": False,
    "data.generated.limit": 0,
    "selftrain.sam.stored": True,
}
# Settings of the joint phase: they change nothing of a run without it.
_JOINT = ("selftrain", "data.generated")


def save_weights(
    path: str | os.PathLike,
    tree: Mapping[str, Any] | Iterator[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Writes weights and where they came from to the new folder `path`.

    Args:
        path: the folder to make.
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
            ocp.save(temporary / _ARRAYS, _plain(tree))
        else:
            for part in tree:
                held = jax.tree.map(lambda x: x.view(_Held), _plain(part))
                ocp.partial.save(temporary / _ARRAYS, held)
                del part, held  # before the next one is made
            ocp.partial.finalize(temporary / _ARRAYS)
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
        path: the folder.
        parts: what to read of the tree's first level, where it is there; None reads all.
    """
    path = pathlib.Path(path).absolute()
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
    if parts is None:
        tree = ocp.load(path / _ARRAYS)
    else:
        described = ocp.metadata(path / _ARRAYS).metadata
        wanted = {part: described[part] for part in parts if part in described}
        with _partial():
            tree = ocp.load(path / _ARRAYS, wanted) if wanted else {}
    return jax.tree.map(np.asarray, tree), json.loads((path / _PROVENANCE).read_text())


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
    described = ocp.metadata(pathlib.Path(path).absolute() / _ARRAYS).metadata
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


class RunCheckpoints:
    """The checkpoints of one run, in `{workdir}/checkpoints/{step}`.

    Args:
        workdir: the run's folder.
        keep: how many of the newest checkpoints stay.
        metadata: what every checkpoint carries beside its arrays; must hold `config`.
    """

    def __init__(self, workdir: str | os.PathLike, *, keep: int, metadata: Mapping[str, Any]):
        policies = ocp.training
        self._metadata = dict(metadata)
        self._workdir = pathlib.Path(workdir)
        self._checkpointer = ocp.training.Checkpointer(
            (self._workdir / "checkpoints").absolute(),
            # The loop decides when to save; the policy only must not refuse.
            save_decision_policy=policies.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    @property
    def latest(self) -> int | None:
        """The newest complete step, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: Any, data: Any, **metadata: Any) -> None:
        """Starts saving; a checkpoint of the same step that is already there stays."""
        if self.latest != step:
            self._checkpointer.save_checkpointables_async(
                step, {"state": state, "data": data}, custom_metadata=self._metadata | metadata
            )

    def restore(self, state: Any, data: Any) -> tuple[Any, dict[str, Any]]:
        """Reads the newest checkpoint.

        Args:
            state: tree of `jax.ShapeDtypeStruct` with the shardings wanted now; the mesh may be
                another than the one saved from.
            data: the data iterator; it is moved to the saved position.

        Returns:
            The state and the checkpoint's metadata.

        Raises:
            ValueError: the checkpoint is of another config.
        """
        metadata = self._checkpointer.metadata().custom_metadata
        check_config(metadata["config"], self._metadata["config"], where=str(self._workdir))
        restored = self._checkpointer.load_checkpointables(None, {"state": state, "data": data})
        return restored["state"], metadata

    def wait(self) -> None:
        """Returns when the newest save is on disk."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Finishes what is being saved."""
        self._checkpointer.close()


def load_run(
    workdir: str | os.PathLike, step: int | None = None, *, teacher: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the weights of a run's checkpoint, on the first device, for evaluation.

    Args:
        workdir: the run's folder.
        step: which checkpoint; the newest when None.
        teacher: the weights of the teacher instead of the student's.

    Returns:
        {"encoder": ..., "head": ...} as nested dicts of numpy arrays, and the checkpoint's
        metadata (`config`, `step`, `versions`, `commit`).
    """
    path, step = _checkpoint(workdir, step)
    described = ocp.metadata(path)
    if teacher and not described.metadata.get("teacher"):
        raise ValueError(f"{workdir} has no teacher at step {step}; only joint runs have one.")
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = {
        name: jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
            described.metadata[name],
        )
        for name in ("frozen", "params", *(["teacher"] if teacher else []))
    }
    with _partial():
        state = ocp.load_checkpointables(path, {"state": abstract})["state"]
    tree = {}
    for name in abstract:  # the teacher last: its head counts, and it has no encoder
        tree = merged(tree, _unwrap(state[name]))
    return tree, {**described.custom_metadata, "step": step}


def identify_run(
    workdir: str | os.PathLike, step: int | None = None
) -> tuple[int, dict[str, Any], str]:
    """The number of a run's checkpoint, its config, and a hash of its files.

    Args:
        workdir: the run's folder.
        step: which checkpoint; the newest when None.
    """
    path, step = _checkpoint(workdir, step)
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(f"{file.relative_to(path)} {found}\n".encode())
    return step, ocp.metadata(path).custom_metadata["config"], total.hexdigest()


def _checkpoint(workdir: str | os.PathLike, step: int | None) -> tuple[pathlib.Path, int]:
    """The folder of a run's checkpoint and its number."""
    folder = (pathlib.Path(workdir) / "checkpoints").absolute()
    found = sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())
    if not found:
        raise FileNotFoundError(f"{workdir} has no checkpoints; train first or give weights.")
    if step is None:
        step = found[-1]
    if step not in found:
        raise FileNotFoundError(f"{workdir} has no checkpoint {step}; it has: {found}.")
    return folder / str(step), step


def _partial() -> ocp.Context:
    """Lets a load ask for some of the saved leaves."""
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    return context


def _unwrap(tree: Any) -> Any:
    """Nested dicts without the `value` level that an NNX variable adds."""
    if not isinstance(tree, Mapping):
        return np.asarray(tree)
    if set(tree) == {"value"}:
        return np.asarray(tree["value"])
    return {str(key): _unwrap(value) for key, value in tree.items()}


def merged(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both nested dicts in one; where both have a leaf, that of `other`."""
    out = dict(tree)
    for key, value in other.items():
        inner = out.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        out[key] = merged(inner, value) if both else value
    return out


def check_config(saved: Mapping[str, Any], current: Mapping[str, Any], *, where: str) -> None:
    """Refuses to go on from a checkpoint whose config learns something else.

    Args:
        saved: the config of the checkpoint.
        current: the config of this run.
        where: the run's folder, for the message.
    """
    changed = changed_keys(saved, current)
    if changed:
        raise ValueError(
            f"{where} has checkpoints of another config ({'; '.join(changed)});"
            " choose a new --workdir or restore the value."
        )


def changed_keys(
    saved: Mapping[str, Any], current: Mapping[str, Any], *, all_keys: bool = False
) -> list[str]:
    """Says `key old, now new` for every key that differs and matters to a run that goes on.

    Args:
        saved, current: nested configs.
        all_keys: whatever the key, for those who do not go on but build on the result.
    """
    old, new = _flat(saved), _flat(current)
    if all_keys:
        return [
            f"{key} {_show(old, key)}, now {_show(new, key)}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
    old |= {key: v for key, v in _ADDED.items() if key in new and key not in old}
    free = set(_FREE_KEYS)
    if "poly" in (old.get("optimizer.schedule"), new.get("optimizer.schedule")):
        free.discard("steps")  # the learning rate of every step depends on it
    if not (old.get("selftrain.enabled") or new.get("selftrain.enabled")):
        free |= {*_JOINT}
    return [
        f"{key} {_show(old, key)}, now {_show(new, key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not any(key == f or key.startswith(f + ".") for f in free)
    ]


def _show(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "absent"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            out.update(_flat(value, name + "."))
        else:
            out[name] = list(value) if isinstance(value, tuple) else value
    return out
