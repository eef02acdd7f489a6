"""Trains the head, on a frozen encoder as a rule: the program.

    python -m clouds_jax.train --config configs/warmup_camvid.py --workdir runs/camvid

The run's folder gets `config.json`, `run.txt` (commit, versions, parameters), `metrics.jsonl`,
`best.json`, `checkpoints/`, `eval/STEP/` with the same few images of every evaluation (image,
label, prediction, error), in the joint phase also `generated_panels.png` (labels of generated
images by teacher, SAM and student), and, where the config asks for them, `tensorboard/` and
`profile/`. The same command resumes from the last checkpoint, bit for bit. SIGTERM and Ctrl-C end
it after the step under way, with a checkpoint and exit status 75.
"""

import contextlib
import functools
import json
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from absl import app, flags
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import UInt8
from ml_collections import config_flags

from clouds_jax import (
    command_line,
    files,
    folder_lock,
    hosts,
    images,
    provenance,
    runtime,
    sharding,
)
from clouds_jax.config import diff
from clouds_jax.config.experiment import Experiment, read_experiment
from clouds_jax.config.initial_weights import initial_weights
from clouds_jax.data.part import Part
from clouds_jax.evaluation import report
from clouds_jax.evaluation.run import evaluate_dataset
from clouds_jax.stages import debug_shards
from clouds_jax.training import checkpoint, feed, logs, loop
from clouds_jax.training.state import TrainState, abstract_state, make_state
from clouds_jax.training.step import make_step


def train(experiment: Experiment, workdir: str | os.PathLike) -> TrainState:
    """Runs an experiment in `workdir`, from its last checkpoint where there is one.

    Args:
        experiment: experiment of `config.experiment.read_experiment`.
        workdir: the run's folder.

    Returns:
        The last state.
    """
    workdir = pathlib.Path(workdir)
    with contextlib.ExitStack() as held:
        if hosts.is_first():
            # a moment's patience: one that was asked to stop is saving its last step
            held.enter_context(folder_lock.locked(workdir, "train", patience=20.0))
        return _train(experiment, workdir, held)


def _train(experiment: Experiment, workdir: pathlib.Path, held: contextlib.ExitStack) -> TrainState:
    run = experiment.run
    # JAX's NaN checks cannot look into what several devices share.
    mesh = sharding.make_mesh(jax.devices()[:1] if run.nans else None)
    if padding := experiment.padding(mesh.size):
        logs.log(
            f"{experiment.images_per_step} images a step on {mesh.size} devices"
            f"{f', in {run.accumulate} portions' if run.accumulate > 1 else ''}: {padding} rows of"
            " padding are computed and not counted"
        )
    shards = debug_shards.shards_root(experiment, workdir)
    experiment.evals.check_shards(shards)
    tx, schedule = experiment.optimizer.make()
    about = dict(
        config=experiment.source, space=experiment.model.space.as_json(),
        commit=provenance.commit(), versions=logs.versions(),
    )  # fmt: skip
    # refuses what is missing; writes nothing
    host_batches = experiment.data.batches(
        shards,
        Part(hosts.index(), hosts.count()),
        checkpoint.latest_step(workdir),
        experiment.portions(mesh.size),
    )
    checkpoints = checkpoint.RunCheckpoints(
        workdir, keep=run.keep, keep_best=run.keep_best, metadata=about
    )
    held.callback(checkpoints.close)  # whatever happens after a save, that checkpoint is finished
    batches = feed.on_devices(host_batches, mesh)
    held.callback(batches.close)  # its threads end before the interpreter does
    graphdef, state, shardings, saved = start(experiment, tx, mesh, checkpoints)
    _describe(workdir, experiment, state)
    writer = logs.MetricsWriter(
        workdir, step=int(jax.device_get(state.step)), config=experiment.source,
        tensorboard=run.tensorboard, wandb=run.wandb,
    )  # fmt: skip
    held.callback(writer.close)
    hosts.wait("metrics")  # each has read which evaluations are done before one adds to them
    step = make_step(
        graphdef, experiment.loss.function(experiment.model.head), tx,
        prepare=experiment.prepare(), mesh=mesh, shardings=shardings, schedule=schedule,
        accumulate=run.accumulate, drop_path=experiment.encoder.drop_path,
        remat=experiment.encoder.remat, donate=not run.nans,
    )  # fmt: skip
    plan = loop.Plan(
        steps=run.steps, images=experiment.images_per_step, log_every=run.log_every,
        checkpoint_every=run.checkpoint_every, evals=experiment.evals.every,
        keep_best=run.keep_best,
    )  # fmt: skip
    with loop.stop_on_signal() as stop:
        state = loop.run(
            step, state, batches, plan=plan, writer=writer, checkpoints=checkpoints, stop=stop,
            window=logs.Window(saved.get("window")),
            evaluate=functools.partial(score, experiment, graphdef, shards, workdir, writer),
            profile=runtime.ProfileWindow(workdir, **run.profile),
        )  # fmt: skip
    return state


def start(
    experiment: Experiment,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    checkpoints: checkpoint.RunCheckpoints,
) -> tuple[nnx.GraphDef, TrainState, TrainState, Mapping[str, Any]]:
    """The state to start from: the run's own checkpoint, else other weights, else random ones.

    Args:
        experiment: experiment of the run.
        tx: optimizer of the experiment.
        mesh: mesh of devices.
        checkpoints: checkpoints of the run.

    Returns:
        The model's graphdef, the state, the state's shardings, and the checkpoint's metadata.

    Raises:
        ValueError: the checkpoints are of another config, or the weights do not fit.
    """
    run, trained = experiment.run, experiment.encoder.trained
    teacher = experiment.selftrain is not None
    if checkpoints.latest is None:
        new = make_state(
            experiment.build, tx, seed=run.seed, mesh=mesh, rules=run.sharding, teacher=teacher,
            trained=trained, weights=initial_weights(experiment),
        )  # fmt: skip
        return *new, {}
    saved_config = checkpoints.metadata()["config"]
    diff.check_config(saved_config, experiment.source, where=str(checkpoints.workdir))
    for text in diff.moved_weights(saved_config, experiment.source):
        logs.log(f"config.{text}: not read, the checkpoint has its own copy of the weights")
    graphdef, shape, shardings = abstract_state(
        experiment.build, tx, seed=run.seed, mesh=mesh, rules=run.sharding, teacher=teacher,
        trained=trained,
    )  # fmt: skip
    state, saved = checkpoints.restore(shape)
    logs.log(f"goes on from step {checkpoints.latest:,}")
    return graphdef, state, shardings, saved


def score(
    experiment: Experiment,
    graphdef: nnx.GraphDef,
    shards: pathlib.Path,
    workdir: pathlib.Path,
    writer: logs.MetricsWriter,
    ref: str,
    step: int,
    state: TrainState,
) -> None:
    """Scores the state on the dataset `ref` and writes it, unless that is already written.

    The numbers are written last, so that a killed evaluation is done again, pictures included.
    """
    if writer.has(step, f"eval/{ref}/miou"):
        return
    evals = experiment.evals
    result = evaluate_dataset(
        graphdef, (state.params, state.frozen), ref, shards=shards,
        model_space=experiment.model.space.name, protocol=evals.protocol, limit=evals.limit,
        panels=evals.panels,
    )  # fmt: skip
    pictures = workdir / "eval" / f"{step:07d}"
    if hosts.is_first():
        report.write_pictures(result, pictures)
    if experiment.selftrain and evals.panels and ref == next(iter(evals.every)):
        drawing = _draw_generated(experiment, graphdef, state, shards)
        if hosts.is_first():
            images.write_png(pictures / "generated_panels.png", drawing)
    writer.write(step, {f"eval/{ref}/{name}": v for name, v in result.numbers().items()})
    best = writer.best(f"eval/{ref}/miou")
    # here, and not in the collectives of the next step, which give up early; and all of them have
    # to see the same best step
    hosts.wait("score")
    logs.log(
        f"step {step:,}  {ref}: mIoU {100 * result.miou:.2f} (best {100 * best['value']:.2f} at"
        f" step {best['step']:,}), {result.images_per_second:.1f} images/s"
    )


def _draw_generated(
    experiment: Experiment, graphdef: nnx.GraphDef, state: TrainState, shards: pathlib.Path
) -> UInt8[np.ndarray, "h w 3"]:
    """Panels of some generated images, see `selftrain.generated_panels`."""
    # here, since no step needs Matplotlib and SciPy, which take half a second to import
    from clouds_jax.selftrain import generated_panels

    assert experiment.selftrain and experiment.data.generated
    view = generated_panels.View(
        ref=next(iter(experiment.data.generated.batch)),
        size=experiment.data.augmentation.crop,
        space=experiment.model.space,
        count=experiment.evals.panels,
    )
    return generated_panels.draw(view, experiment.selftrain.labels, graphdef, state, shards)


def _describe(workdir: pathlib.Path, experiment: Experiment, state: TrainState) -> None:
    """Writes what runs here, once per start; the terminal gets the modules alone."""
    parts = {"trained": state.params, "frozen": state.frozen}
    banner = logs.banner()
    details = workdir / "run.txt"
    logs.log(f"{banner}\n{logs.module_table(parts)}\nevery tensor: {details}")
    if hosts.is_first():
        files.write_text(workdir / "config.json", json.dumps(experiment.source, indent=2) + "\n")
        files.write_text(details, f"{banner}\n{logs.parameter_table(parts)}\n")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"what is {argv[1]!r}? Settings are given as --config.key=value.")
    workdir = pathlib.Path(flags.FLAGS.workdir)
    logs.setup()
    with command_line.one_line_errors("train", log=workdir / "error.txt"):
        config = flags.FLAGS.config
        runtime.setup(
            compile_cache=config.compile_cache, nans=config.debug.nans,
            compiles=config.debug.compiles,
        )  # fmt: skip
        with hosts.joined():
            runtime.check_devices()
            experiment = read_experiment(config)
            runtime.use_matmul_precision(experiment.run.matmul_precision)
            workdir.mkdir(parents=True, exist_ok=True)
            state = train(experiment, workdir)
    if int(jax.device_get(state.step)) < experiment.run.steps:
        sys.exit(command_line.STOPPED)


def program() -> None:
    """What `python -m clouds_jax.train` runs."""
    config_flags.DEFINE_config_file("config", None, "Path of the config, `:debug` appended or not.")
    flags.DEFINE_string("workdir", None, "The run's folder.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=functools.partial(command_line.parse_flags, "train"))


if __name__ == "__main__":
    program()
