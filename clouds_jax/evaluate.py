r"""Scores a trained model: the program.

    python -m clouds_jax.evaluate --workdir runs/camvid
    python -m clouds_jax.evaluate --config configs/warmup_camvid.py --workdir runs/camvid \
        --datasets camvid/test,cityscapes/val --protocol native --output runs/camvid/test

Writes results.json, results.md and, for each dataset, panels and the confusion matrix as PNG.
"""

import functools
import os
import pathlib
import sys

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from clouds_jax import command_line, hosts, runtime
from clouds_jax.config.experiment import jsonable, read_experiment
from clouds_jax.config.training import read_precision
from clouds_jax.evaluation import protocols, report
from clouds_jax.evaluation.run import PANELS, evaluate_dataset, open_labelled
from clouds_jax.model.load import load
from clouds_jax.stages import debug_shards

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of the command line."""
    config_flags.DEFINE_config_file(
        "config", None, "experiment; by default the one the run was trained with"
    )
    flags.DEFINE_string("workdir", "", "run to score")
    flags.DEFINE_string("weights", "", "weights folder to score instead of a run")
    flags.DEFINE_string(
        "step", None, "checkpoint of the run: a number, best, or best:NAME/SPLIT; newest by default"
    )
    flags.DEFINE_list("datasets", [], "name/split, ...; by default those of config.evals")
    flags.DEFINE_string("shards", "", "folder of all shards; by default config.data.shards")
    flags.DEFINE_enum(
        "protocol", None, list(protocols.PROTOCOLS), "by default config.eval.protocol"
    )
    flags.DEFINE_string("size", "", "HxW to which images are resized for the model")
    flags.DEFINE_string("window", "", "HxW of the windows of the protocol slide")
    flags.DEFINE_string("stride", "", "HxW between the windows of the protocol slide")
    flags.DEFINE_integer("batch", 1, "images per device at once", lower_bound=1)
    flags.DEFINE_integer("limit", 0, "score the first so many images only; 0: all", lower_bound=0)
    flags.DEFINE_integer("panels", PANELS, "images to draw", lower_bound=0)
    flags.DEFINE_string("output", "", "folder to write; by default evaluation/ in the run's")


def run(config: ConfigDict | None) -> None:
    """Scores the model and datasets that the flags name."""
    runtime.setup()
    runtime.check_devices()
    source = command_line.source_of(FLAGS.workdir, FLAGS.weights)
    described = None if config is None else jsonable(config)
    model = load(source, step=FLAGS.step, config=described)
    described = described or model.about["config"]
    experiment = read_experiment(described) if "steps" in described else None
    runtime.use_matmul_precision(read_precision(described))
    protocol = protocols.parse(
        FLAGS.protocol or (experiment.evals.protocol.name if experiment else "native"),
        size=FLAGS.size, window=FLAGS.window, stride=FLAGS.stride,
    )  # fmt: skip
    output = pathlib.Path(FLAGS.output or pathlib.Path(source) / "evaluation")
    datasets = FLAGS.datasets or list(experiment.evals.every if experiment else ())
    if not datasets:
        raise ValueError("the config names no dataset to score; say which with --datasets.")
    shards = pathlib.Path(FLAGS.shards or "shards")
    if experiment and not FLAGS.shards:
        shards = debug_shards.shards_root(experiment, pathlib.Path(source))
    device = jax.devices()[0]
    about = model.about
    about["devices"] = f"{jax.device_count()} x {device.device_kind} ({device.platform})"
    for ref in datasets:  # before any is scored, which may take hours
        open_labelled(ref, shards, model.config.space.name)
    output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK):
        raise PermissionError(f"{output} cannot be written; choose another --output.")
    scored = []
    for ref in datasets:
        result = evaluate_dataset(
            model.graphdef, (model.state,), ref, shards=shards, model_space=model.config.space.name,
            protocol=protocol, limit=FLAGS.limit, batch_per_device=FLAGS.batch,
            panels=FLAGS.panels, progress=sys.stderr.isatty(),
        )  # fmt: skip
        scored.append(result)
        if hosts.is_first():
            # what is scored stays when a later one fails
            report.write_pictures(result, output)
            report.write_numbers(scored, output, about)
            print(
                f"{result.dataset}: mIoU {report.percent(result.miou)} %, {len(result.images)} "
                f"images, {result.images_per_second:.2f} images/s",
                flush=True,
            )
    if hosts.is_first():
        print(f"\n{report.summary(scored)}\n")
        print(f"classes, worst images, panels: {output}/results.md and the pictures beside it")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"what is {argv[1]!r}? Datasets are named with --datasets.")
    logging.set_verbosity(logging.ERROR)  # Orbax logs much while it reads a checkpoint
    with command_line.one_line_errors("evaluate"), hosts.joined():
        run(FLAGS.config)


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=functools.partial(command_line.parse_flags, "evaluate"))
