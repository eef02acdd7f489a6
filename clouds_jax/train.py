"""Trains the head, on a frozen encoder as a rule: the program.

    python -m clouds_jax.train --config configs/warmup_camvid.py --workdir runs/camvid

The run's folder gets `config.json`, `run.txt` (commit, versions, parameters), `metrics.jsonl`,
`best.json`, `checkpoints/`, `eval/STEP/` with the same few images of every evaluation (image,
label, prediction, error), of the joint phase also `generated_panels.png` (what teacher, SAM and
student make of generated images), and, on wish, `tensorboard/` and `profile/`. The same command
goes on from the last checkpoint, bit for bit.
"""

import contextlib
import functools
import json
import os
import pathlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from absl import app, flags
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import UInt8
from ml_collections import ConfigDict, config_flags

from clouds_jax import images, provenance, runtime, sharding
from clouds_jax.config import diff, experiment
from clouds_jax.data import records
from clouds_jax.data.classes import get_space
from clouds_jax.evaluation import report
from clouds_jax.evaluation.run import evaluate_dataset
from clouds_jax.training import checkpoint, logs, loop
from clouds_jax.training.state import TrainState, abstract_state, make_state
from clouds_jax.training.step import make_step


def train(config: ConfigDict, workdir: str | os.PathLike) -> TrainState:
    """Runs the experiment in `workdir`, from its last checkpoint where there is one.

    Args:
        config: as `configs/base.py` describes it.
        workdir: the run's folder.

    Returns:
        The last state.
    """
    workdir = pathlib.Path(workdir)
    # JAX's NaN checks cannot look into what several devices share.
    mesh = sharding.make_mesh(jax.devices()[:1] if config.debug.nans else None)
    experiment.check(config, mesh)
    plain = experiment.jsonable(config)
    shards = experiment.shards_root(config, workdir)
    tx, schedule = experiment.optimizer(config)
    about = dict(config=plain, commit=provenance.commit(), versions=logs.versions())
    checkpoints = checkpoint.RunCheckpoints(workdir, keep=config.keep, metadata=about)
    batches = experiment.batches(config, shards, mesh)
    graphdef, state, shardings, saved = start(config, tx, mesh, checkpoints, batches)
    done = int(jax.device_get(state.step))
    _describe(workdir, plain, state)
    writer = logs.MetricsWriter(
        workdir, step=done, config=plain, tensorboard=config.tensorboard, wandb=plain["wandb"]
    )
    step = make_step(
        graphdef, experiment.loss(config), tx, prepare=experiment.prepare(config), mesh=mesh,
        shardings=shardings, schedule=schedule, drop_path=config.encoder.drop_path,
        donate=not config.debug.nans,
    )  # fmt: skip
    plan = loop.Plan(
        steps=config.steps, images=experiment.images_per_step(config),
        log_every=config.log_every, checkpoint_every=config.checkpoint_every,
        evals=experiment.evals(config, shards),
    )  # fmt: skip
    with loop.stop_on_signal() as stop:
        state = loop.run(
            step, state, batches, plan=plan, writer=writer, checkpoints=checkpoints, stop=stop,
            window=logs.Window(saved.get("window")),
            evaluate=functools.partial(score, config, graphdef, shards, workdir, writer),
            profile=runtime.ProfileWindow(workdir, **plain["profile"]),
        )  # fmt: skip
    checkpoints.close()
    writer.close()
    return state


def start(
    config: ConfigDict,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    checkpoints: checkpoint.RunCheckpoints,
    batches: Iterator[Any],
) -> tuple[nnx.GraphDef, TrainState, TrainState, Mapping[str, Any]]:
    """The state to go on from: of the run's own checkpoint, else of other weights, else random.

    Returns:
        The model's graphdef, the state, its shardings, and what the checkpoint noted beside it.
    """
    how = dict(
        seed=config.seed, mesh=mesh, rules=experiment.jsonable(config)["sharding"],
        teacher=config.selftrain.enabled, trained=experiment.trained(config),
    )  # fmt: skip
    build = experiment.model_builder(config)
    if checkpoints.latest is None:
        weights = experiment.initial_weights(config)
        return *make_state(build, tx, weights=weights, **how), {}
    graphdef, shape, shardings = abstract_state(build, tx, **how)
    diff.check_config(
        checkpoints.metadata()["config"], experiment.jsonable(config), where=checkpoints.workdir
    )
    state, saved = checkpoints.restore(shape, batches)
    logs.log(f"goes on from step {checkpoints.latest:,}")
    return graphdef, state, shardings, saved


def score(
    config: ConfigDict,
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
    result = evaluate_dataset(
        graphdef, (state.params, state.frozen), ref, shards=shards, model_space=config.label_space,
        protocol=experiment.protocol(config), limit=config.eval.limit, panels=config.eval.panels,
    )  # fmt: skip
    pictures = workdir / "eval" / f"{step:07d}"
    if jax.process_index() == 0:
        report.write_pictures(result, pictures)
    if config.selftrain.enabled and config.eval.panels and ref == next(iter(config.evals)):
        drawing = _draw_generated(config, graphdef, state, shards)
        if jax.process_index() == 0:
            images.write_png(pictures / "generated_panels.png", drawing)
    writer.write(step, {f"eval/{ref}/{name}": v for name, v in result.numbers().items()})
    best = writer.best(f"eval/{ref}/miou")
    logs.log(
        f"step {step:,}  {ref}: mIoU {100 * result.miou:.2f} (best {100 * best['value']:.2f} at"
        f" step {best['step']:,}), {result.images_per_second:.1f} images/s"
    )


def _draw_generated(
    config: ConfigDict, graphdef: nnx.GraphDef, state: TrainState, shards: pathlib.Path
) -> UInt8[np.ndarray, "h w 3"]:
    """What becomes of some generated images: see `joint_panels`."""
    # here, since no step needs Matplotlib and SciPy, which take half a second to import
    from clouds_jax.selftrain import generated_panels

    name, split = records.parse_ref(next(iter(config.data.generated.batch)), config.data.split)
    view = generated_panels.View(
        ref=f"{name}/{split}", size=tuple(config.data.crop), space=get_space(config.label_space),
        map=config.selftrain.map,
        sam=config.selftrain.sam.name if experiment.reads_embeddings(config) else "",
        count=config.eval.panels,
    )  # fmt: skip
    return generated_panels.draw(view, experiment.selftraining(config), graphdef, state, shards)


def _describe(workdir: pathlib.Path, config: Mapping[str, Any], state: TrainState) -> None:
    """Writes and logs, once per start, what runs here."""
    table = logs.parameter_table({"trained": state.params, "frozen": state.frozen})
    banner = logs.banner()
    logs.log(f"{banner}\n{table}")
    if jax.process_index() == 0:
        (workdir / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (workdir / "run.txt").write_text(f"{banner}\n{table}\n")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"what is {argv[1]!r}? Settings are given as --config.key=value.")
    config, workdir = flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir)
    logs.setup()
    runtime.setup(
        compile_cache=config.compile_cache, nans=config.debug.nans, compiles=config.debug.compiles
    )
    try:
        sharding.join_hosts()
        workdir.mkdir(parents=True, exist_ok=True)
        train(config, workdir)
    except (ValueError, KeyError, OSError, FloatingPointError) as error:
        with contextlib.suppress(OSError):
            (workdir / "error.txt").write_text(traceback.format_exc())
        message = error.args[0] if isinstance(error, KeyError) else error
        sys.exit(f"train: {message}\n(where it happened: {workdir / 'error.txt'})")


def parse_flags(argv: list[str]) -> list[str]:
    """Reads the command line; a wrong config key ends the program with one line."""
    try:
        return flags.FLAGS(argv)
    except (AttributeError, KeyError, ValueError, OSError, flags.Error) as error:
        sys.exit(f"train: {error.args[0] if isinstance(error, KeyError) else error}")


def program() -> None:
    """What `python -m clouds_jax.train` runs."""
    config_flags.DEFINE_config_file("config", None, "Path of the config, `:debug` appended or not.")
    flags.DEFINE_string("workdir", None, "The run's folder.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    program()
