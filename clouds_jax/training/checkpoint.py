"""Checkpoints of runs, in `{workdir}/checkpoints/{step}`.

Each holds the state of one step, with the config, the commit and the package versions beside it.
The number of the step is also the position in the data, whatever the number of processes. It
appears under its final name only when complete: a killed program leaves a temporary folder, never
half a checkpoint.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from clouds_jax.weights import first_line, merged, read_alone, reading

BEST = "best.json"  # of a run: scalar -> its largest value so far and the step of it


Step = int | str | None  # a checkpoint's step, see `load_run`


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be read; the text names those of the run that can."""


class RunCheckpoints:
    """The checkpoints of one run, in `{workdir}/checkpoints/{step}`.

    Args:
        workdir: the run's folder.
        keep: number of newest checkpoints that stay.
        keep_best: whether those that `best.json` names stay too.
        metadata: JSON values that every checkpoint carries beside its arrays; must hold `config`.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        keep: int,
        keep_best: bool = False,
        metadata: Mapping[str, Any],
    ):
        policies: Any = ocp.training  # not typed as Orbax's own Checkpointer wants them
        preserved = policies.preservation_policies
        kept = [preserved.LatestN(keep), *([_Best(pathlib.Path(workdir))] if keep_best else [])]
        self._metadata = dict(metadata)
        self.workdir = pathlib.Path(workdir)
        self._checkpointer = ocp.training.Checkpointer(
            str(_folder(self.workdir)),
            # The loop decides when to save; the policy only must not refuse.
            save_decision_policy=policies.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=preserved.AnyPreservationPolicy(kept),
            cleanup_tmp_directories=True,
        )

    @property
    def latest(self) -> int | None:
        """The newest complete step, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: Any, **metadata: Any) -> None:
        """Starts saving; a checkpoint of the same step that is already there stays."""
        if self.latest != step:
            self._checkpointer.save_checkpointables_async(
                step, {"state": state}, custom_metadata=self._metadata | metadata
            )

    def restore(self, state: Any) -> tuple[Any, dict[str, Any]]:
        """Reads the newest checkpoint.

        Args:
            state: tree of `jax.ShapeDtypeStruct` with the shardings wanted now; the mesh may
                differ from that of the run that saved.

        Returns:
            The state and the checkpoint's metadata.

        Raises:
            DamagedCheckpoint: it cannot be read.
        """
        metadata = self.metadata()
        with _readable(self.workdir, self.latest):
            restored = self._checkpointer.load_checkpointables(None, {"state": state})
        return restored["state"], metadata

    def metadata(self) -> dict[str, Any]:
        """JSON values that the newest checkpoint carries beside its arrays.

        Raises:
            DamagedCheckpoint: it cannot be read.
        """
        with _readable(self.workdir, self.latest):
            return _custom(self._checkpointer.metadata())

    def wait(self) -> None:
        """Returns when the newest save is on disk."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Finishes what is being saved."""
        self._checkpointer.close()


def latest_step(workdir: str | os.PathLike) -> int:
    """The newest step of which a run has a checkpoint; 0 where it has none."""
    return max(_steps(_folder(workdir)), default=0)


def load_run(
    workdir: str | os.PathLike, step: Step = None, *, teacher: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the weights of a run's checkpoint, on the first device, for evaluation.

    Args:
        workdir: the run's folder.
        step: step of the checkpoint; None: the newest; "best" or "best:NAME/SPLIT": the one that
            scored best, which `config.keep_best` keeps.
        teacher: load the EMA teacher instead of the student.

    Returns:
        {"encoder": ..., "head": ...} as nested dicts of numpy arrays, and the checkpoint's
        metadata (`config`, `step`, `versions`, `commit`).

    Raises:
        FileNotFoundError: there is no such checkpoint.
        DamagedCheckpoint: it cannot be read.
        ValueError: the run has no teacher.
    """
    path, step = _checkpoint(workdir, step)
    with _readable(workdir, step), read_alone():
        described = ocp.metadata(str(path))
        saved_teacher = described.metadata.get("teacher")
    if teacher and not saved_teacher:
        raise ValueError(f"{workdir} has no teacher at step {step}; only joint runs have one.")
    with _readable(workdir, step):
        parts = ("frozen", "params", *(["teacher"] if teacher else []))
        state = _read(path, described, parts)
        tree: dict[str, Any] = {}
        for name in parts:  # the teacher last: its head counts, and it has no encoder
            tree = merged(tree, _unwrap(state[name]))
        return tree, {**_custom(described), "step": step}


def _read(path: pathlib.Path, described: Any, parts: Sequence[str]) -> Mapping[str, Any]:
    """Parts of a saved state, on the first device."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = {
        name: jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
            described.metadata[name],
        )
        for name in parts
    }
    with read_alone(partial=True):
        return ocp.load_checkpointables(str(path), {"state": abstract})["state"]


def identify_run(workdir: str | os.PathLike, step: Step = None) -> tuple[int, dict[str, Any], str]:
    """The step of a run's checkpoint, its config, and the SHA-256 of its files.

    Args:
        workdir: the run's folder.
        step: step of the checkpoint; None: the newest; "best" or "best:NAME/SPLIT": the one that
            scored best, which `config.keep_best` keeps.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    path, step = _checkpoint(workdir, step)
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(f"{file.relative_to(path)} {digest}\n".encode())
    with read_alone():
        return step, _custom(ocp.metadata(str(path)))["config"], total.hexdigest()


def _custom(described: Any) -> dict[str, Any]:
    """The JSON values of a checkpoint's metadata; Orbax's annotation admits other JSON too."""
    return dict(described.custom_metadata)


def _folder(workdir: str | os.PathLike) -> pathlib.Path:
    """The folder of a run's checkpoints; Orbax wants it absolute."""
    return (pathlib.Path(workdir) / "checkpoints").absolute()


def _steps(folder: pathlib.Path) -> list[int]:
    """The steps of which there are checkpoints, in order."""
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())


def _checkpoint(workdir: str | os.PathLike, step: Step) -> tuple[pathlib.Path, int]:
    """The folder of a run's checkpoint and its step."""
    folder = _folder(workdir)
    steps = _steps(folder)
    if not steps:
        raise FileNotFoundError(f"{workdir} has no checkpoints; train first or give weights.")
    if step is None:
        number = steps[-1]
    elif isinstance(step, int) or step.isdecimal():
        number = int(step)
    elif step.partition(":")[0] == "best":
        number = _best_step(pathlib.Path(workdir), step.partition(":")[2])
    else:
        raise ValueError(
            f"the step is {step!r}; it must be a number, best, or best:NAME/SPLIT of an evaluated"
            " dataset."
        )
    if number not in steps:
        hint = " Set config.keep_best to keep the best ones." if str(step)[:1] == "b" else ""
        raise FileNotFoundError(f"{workdir} has no checkpoint {number}; it has: {steps}.{hint}")
    return folder / str(number), number


def _best_steps(workdir: pathlib.Path) -> dict[str, int]:
    """Evaluated dataset -> the step that scored best on it."""
    path = workdir / BEST
    best = json.loads(path.read_text()) if path.exists() else {}
    return {
        name.removeprefix("eval/").removesuffix("/miou"): entry["step"]
        for name, entry in best.items()
    }


def _best_step(workdir: pathlib.Path, ref: str) -> int:
    best = _best_steps(workdir)
    if not ref and len(best) == 1:
        return next(iter(best.values()))
    if ref not in best:
        scored = ", ".join(f"best:{name}" for name in best) or "nothing: it was not evaluated"
        raise ValueError(f"{workdir} scored {scored}; {ref or 'best'} does not say which.")
    return best[ref]


class _Best:
    """Orbax's preservation policy that keeps what `best.json` names."""

    def __init__(self, workdir: pathlib.Path):
        self._workdir = workdir

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        best = set(_best_steps(self._workdir).values())
        return [checkpoint.step in best for checkpoint in checkpoints]


@contextlib.contextmanager
def _readable(workdir: str | os.PathLike, step: int | None) -> Iterator[None]:
    """Says of a checkpoint that cannot be read which others can.

    Never goes on from another one by itself: the choice is the user's.
    """
    try:
        with reading():
            yield
    except Exception as error:  # of damaged files Orbax and TensorStore raise many kinds
        folder = _folder(workdir)
        whole = [n for n in _steps(folder) if n != step and _is_whole(folder / str(n))]
        advice = (
            f"Whole: {', '.join(map(str, whole))}. To go on from step {whole[-1]}, move"
            f" {folder / str(step)} away; to read one, name it with --step."
            if whole
            else "No other checkpoint of the run is whole."
        )
        raise DamagedCheckpoint(
            f"checkpoint {step} of {workdir} cannot be read: {first_line(error)}\n{advice}"
        ) from error


def _is_whole(path: pathlib.Path) -> bool:
    """Whether all arrays of a checkpoint can be read."""
    try:
        described = ocp.metadata(str(path))
        _custom(described)["config"]
        _read(path, described, tuple(described.metadata))
    except Exception:  # see _readable
        return False
    return True


def _unwrap(tree: Any) -> Any:
    """Nested dicts without the `value` level that an NNX variable adds."""
    if not isinstance(tree, Mapping):
        return np.asarray(tree)
    if set(tree) == {"value"}:
        return np.asarray(tree["value"])
    return {str(key): _unwrap(value) for key, value in tree.items()}
