"""Checkpoints of runs, in `{workdir}/checkpoints/{step}`.

Each holds the state and the data position of one step, with the config, the commit and the package
versions beside it. It appears under its final name only when complete: a killed program leaves a
temporary folder, never half a checkpoint.
"""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from clouds_jax.weights import merged, partial_load

_ARRAYS = "arrays"
_PROVENANCE = "provenance.json"


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
        self.workdir = pathlib.Path(workdir)
        self._checkpointer = ocp.training.Checkpointer(
            (self.workdir / "checkpoints").absolute(),
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
        """
        metadata = self.metadata()
        restored = self._checkpointer.load_checkpointables(None, {"state": state, "data": data})
        return restored["state"], metadata

    def metadata(self) -> dict[str, Any]:
        """What the newest checkpoint carries beside its arrays."""
        return dict(self._checkpointer.metadata().custom_metadata)

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
    with partial_load():
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


def _unwrap(tree: Any) -> Any:
    """Nested dicts without the `value` level that an NNX variable adds."""
    if not isinstance(tree, Mapping):
        return np.asarray(tree)
    if set(tree) == {"value"}:
        return np.asarray(tree["value"])
    return {str(key): _unwrap(value) for key, value in tree.items()}
