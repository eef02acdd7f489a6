"""Logs of a run: metrics.jsonl, TensorBoard, W&B, the progress line, the parameter table."""

import importlib
import json
import logging as python_logging
import os
import pathlib
import resource
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import PyTree

from clouds_jax import hosts, provenance, sharding
from clouds_jax.files import read_json_lines, write_text
from clouds_jax.training.checkpoint import BEST

_PACKAGE = pathlib.Path(__file__).parent
_PACKAGES = ("clouds-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class MetricsWriter:
    """Writes scalars by step to `{workdir}/metrics.jsonl`, and optionally to TensorBoard and W&B.

    Only the first host writes. Lines are appended whole and flushed, one per call.

    Args:
        workdir: the run's folder.
        step: updates done; lines of later steps, left by a run that was killed after its last
            checkpoint, are dropped.
        config: the experiment's config, shown by W&B.
        tensorboard: write event files to `{workdir}/tensorboard`.
        wandb: {"project": ..., "name": ...}; an empty project means no W&B.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        step: int,
        config: Mapping[str, Any],
        tensorboard: bool = False,
        wandb: Mapping[str, str] | None = None,
    ):
        self._path = pathlib.Path(workdir) / "metrics.jsonl"
        self._lines = [line for line in read_json_lines(self._path) if line["step"] <= step]
        self._file = self._board = self._wandb = None
        if not hosts.is_first():
            return
        if wandb and wandb["project"]:
            self._wandb = _start_wandb(self._path.parent, config, **wandb)
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in self._lines))
        self._file = self._path.open("a")
        if tensorboard:
            board = importlib.import_module("tensorboardX")
            self._board = board.SummaryWriter(
                str(self._path.parent / "tensorboard"), purge_step=step + 1 if step else None
            )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds the scalars of one step."""
        line = {"step": step, **scalars}
        self._lines.append(line)
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(scalars), step=step)

    def has(self, step: int, name: str) -> bool:
        """Whether the scalar of that step is written already."""
        return any(line["step"] == step and name in line for line in self._lines)

    def best(self, name: str) -> dict[str, Any]:
        """The largest value of a scalar so far and its step; all of them go to `best.json`."""
        path = self._path.with_name(BEST)
        value, step = max((line[name], -line["step"]) for line in self._lines if name in line)
        best = {"step": -step, "value": value}
        if self._file is not None:
            known = json.loads(path.read_text()) if path.exists() else {}
            write_text(path, json.dumps(known | {name: best}, indent=2) + "\n")
        return best

    def close(self) -> None:
        """Closes all outputs."""
        for sink in (self._file, self._board):
            if sink is not None:
                sink.close()
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(workdir: pathlib.Path, config: Mapping[str, Any], project: str, name: str):
    try:
        wandb = importlib.import_module("wandb")
    except ImportError:
        raise ImportError(
            f"config.wandb.project is {project!r} but wandb is not installed;"
            " pip install clouds-jax[wandb], or leave the project empty."
        ) from None
    # One identity per workdir, so that a resumed run goes on with its curves.
    identity = workdir / "wandb_id"
    if not identity.exists():
        identity.write_text(wandb.util.generate_id())
    return wandb.init(
        project=project,
        name=name or workdir.name,
        config=dict(config),
        dir=str(workdir),
        id=identity.read_text(),
        resume="allow",
    )


class Window:
    """The metrics of the steps since the last line, summed on the host.

    Its `state` goes into the checkpoint: a resumed run then writes the very lines that the
    uninterrupted one would have written.
    """

    def __init__(self, state: Mapping[str, Any] | None = None):
        state = state or {"steps": 0, "sums": {}}
        self._steps: int = state["steps"]
        self._sums: dict[str, float] = dict(state["sums"])

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Adds the metrics of one step."""
        self._steps += 1
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)

    def mean(self) -> dict[str, float]:
        """Means over the steps."""
        return {name: value / self._steps for name, value in self._sums.items()}

    def state(self) -> dict[str, Any]:
        """What a new window is made of, as JSON."""
        return {"steps": self._steps, "sums": dict(self._sums)}


class Progress:
    """Times the loop: images per second, time left, share of the time spent waiting for data.

    Args:
        steps: updates of the whole run.
        images: images per step, over all devices.
    """

    def __init__(self, *, steps: int, images: int):
        self._steps, self._images = steps, images
        self._since = self._begin = time.perf_counter()
        self._step_since = self._first = 0
        self._waited = self._paused = 0.0

    def start(self, step: int) -> None:
        """Restarts the clock at `step`, when the loop is about to go on."""
        self._since = self._begin = time.perf_counter()
        self._step_since = self._first = step
        self._waited = self._paused = 0.0

    def wait(self, seconds: float) -> None:
        """The devices had nothing to do for up to `seconds` because the batch came late."""
        self._waited += seconds

    def pause(self, seconds: float) -> None:
        """`seconds` were spent on something other than training, such as an evaluation."""
        self._paused += seconds

    def read(self, step: int) -> dict[str, float]:
        """Speed, time left and memory, from the steps since the last call."""
        now = time.perf_counter()
        seconds = max(now - self._since - self._paused, 1e-9)
        done = max(step - self._step_since, 1)
        out = {
            "images_per_s": done * self._images / seconds,
            "seconds_left": (self._steps - step) * seconds / done,
            "waiting_for_data": min(self._waited / seconds, 1.0),
            "memory_gib": memory_gib(),
        }
        self._since, self._step_since, self._waited, self._paused = now, step, 0.0, 0.0
        return out

    def line(self, step: int, metrics: Mapping[str, float], timing: Mapping[str, float]) -> str:
        """One human-readable line."""
        return (
            f"step {step:,}/{self._steps:,}  loss {metrics['loss']:.4f}  lr {metrics['lr']:.2e}"
            f"  {timing['images_per_s']:.1f} images/s  ETA {clock(timing['seconds_left'])}"
            f"  waiting for data {timing['waiting_for_data']:.0%}"
            f"  memory {timing['memory_gib']:.1f} GiB"
        )


def clock(seconds: float | int) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def memory_gib() -> float:
    """Peak memory in GiB: of the first device where it counts it, else of the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use", 0)
    return (peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 2**30


def parameter_table(parts: Mapping[str, PyTree]) -> str:
    """Name, shape, mean, standard deviation, layout and part of every array, as text.

    Args:
        parts: "trained" or "frozen" -> its tree of arrays.
    """
    rows: list[Sequence[str]] = [("name", "shape", "mean", "std", "layout", "")]
    totals = []
    for part, tree in parts.items():
        flat = jax.tree_util.tree_flatten_with_path(tree)[0]
        totals.append(f"{sum(leaf.size for _, leaf in flat):,} {part}")
        for path, leaf in flat:
            mean = std = ""
            if (
                leaf.is_fully_addressable or leaf.is_fully_replicated
            ):  # else this host has only a part
                values = np.asarray(leaf)
                mean, std = f"{values.mean():+.3g}", f"{values.std():.3g}"
            name = sharding.path_name(path)
            rows.append((name, str(leaf.shape), mean, std, str(leaf.sharding.spec), part))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(["parameters: " + ", ".join(totals), *(line.rstrip() for line in lines)])


def module_table(parts: Mapping[str, PyTree]) -> str:
    """Tensors and numbers of each module, and whether it is trained, as text of a dozen rows.

    Args:
        parts: "trained" or "frozen" -> its tree of arrays.
    """
    modules: dict[tuple[str, str], list[int]] = {}
    for part, tree in parts.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            name = sharding.path_name(path).split(".")
            # encoders by their stages, heads by their two decoders
            key = ".".join(name[:3] if name[1] == "stages" else name[:2])
            modules.setdefault((key, part), []).append(leaf.size)
    rows = [("module", "tensors", "numbers", "")]
    rows += [(key, str(len(n)), f"{sum(n):,}", part) for (key, part), n in sorted(modules.items())]
    for part in parts:
        sizes = [size for (_, p), n in modules.items() if p == part for size in n]
        rows.append(("all", str(len(sizes)), f"{sum(sizes):,}", part))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        f"{m.ljust(widths[0])}  {t.rjust(widths[1])}  {n.rjust(widths[2])}  {part}".rstrip()
        for m, t, n, part in rows
    )


def versions() -> dict[str, str]:
    """Versions of the packages that the numbers depend on."""
    return provenance.versions(_PACKAGES)


def banner() -> str:
    """One line: commit, versions, devices."""
    devices = jax.devices()
    packages = " ".join(f"{k} {v}" for k, v in versions().items())
    return f"commit {provenance.commit()}  {packages}  {len(devices)} x {devices[0].device_kind}"


def setup() -> None:
    """Makes the program's log one line per event of ours, and warnings of everyone."""

    def ours(record: python_logging.LogRecord) -> bool:
        own = pathlib.Path(record.pathname).is_relative_to(_PACKAGE)
        return own or record.levelno >= python_logging.WARNING

    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.addFilter(ours)
    handler.setFormatter(python_logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))


def log(text: str) -> None:
    """Logs on the first host."""
    if hosts.is_first():
        logging.info(text)
