r"""Predicts class maps of images and folders of images: the program.

    python -m clouds_jax.predict --workdir runs/camvid --output out street.jpg
    python -m clouds_jax.predict --workdir runs/camvid --output out --scores photos/

An image NAME.jpg gives NAME_trainids.png (class ids), NAME_overlay.png (colours over the image,
with a legend) and, with --scores, NAME_scores.npz ("scores": float16 [h, w, classes], "classes":
their names), all at the image's own size. `clouds_jax.pseudo` labels the images of shards.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from clouds_jax import command_line, hosts, images, runtime
from clouds_jax.config.training import read_precision
from clouds_jax.data.classes import LabelSpace
from clouds_jax.evaluation import protocols
from clouds_jax.model.load import load
from clouds_jax.model.model import Predict
from clouds_jax.visual import labels

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Job:
    """One image to predict.

    Attributes:
        source: image file.
        stem: path of the results, without their ending.
    """

    source: pathlib.Path
    stem: pathlib.Path


_ENDINGS = ("_trainids.png", "_overlay.png")  # of the pictures that are written


def image_jobs(
    sources: Sequence[pathlib.Path], output: pathlib.Path
) -> tuple[list[Job], list[str]]:
    """The images among the sources; those of a folder keep their place below it.

    Pictures that an earlier prediction wrote into the folder are none of its images.

    Returns:
        The jobs, and notes of what was left out.

    Raises:
        FileNotFoundError: a folder holds no image.
        NotADirectoryError: the output folder is a file.
        ValueError: two images would be written to one place.
    """
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{output} is a file; --output names a folder.")
    jobs, notes = [], []
    for source in sources:
        if source.is_dir():
            listing = images.list_images(source)
            found = [Job(p, output / p.relative_to(source)) for p in listing.images]
            results = {path.resolve() for job in found for path in _results(job.stem)}
            jobs += [job for job in found if job.source.resolve() not in results]
            notes += listing.notes
        else:
            jobs.append(Job(source, output / source.name))
    taken: dict[pathlib.Path, pathlib.Path] = {}
    for i, job in enumerate(jobs):
        job = jobs[i] = dataclasses.replace(job, stem=job.stem.with_suffix(""))
        if job.stem in taken:
            raise ValueError(
                f"{taken[job.stem]} and {job.source} would both be written to {job.stem}_*.png; "
                "predict them to different --output folders."
            )
        taken[job.stem] = job.source
    return jobs, notes


def _results(stem: pathlib.Path) -> list[pathlib.Path]:
    """The pictures that are written for an image."""
    return [stem.with_name(f"{stem.stem}{ending}") for ending in _ENDINGS]


def predict_images(
    jobs: Sequence[Job], predict: Predict, space: LabelSpace, *, progress: bool = False
) -> list[str]:
    """Predicts images and writes their files; returns why images were left out."""
    problems = []
    for job in tqdm(jobs, unit="image", disable=not progress):
        try:
            image = images.read_image(job.source)
        except (ValueError, FileNotFoundError) as error:
            problems.append(str(error))
            continue
        label, scores = predict(image)
        name = job.stem.name
        images.write_png(job.stem.with_name(f"{name}_trainids.png"), label)
        picture = labels.with_legend(labels.overlay(image, label, space), label, space)
        images.write_png(job.stem.with_name(f"{name}_overlay.png"), picture)
        if scores is not None:
            images.write_npz(
                job.stem.with_name(f"{name}_scores.npz"), scores=scores, classes=space.names
            )
    return problems


def define_flags() -> None:
    """Defines the flags of the command line."""
    config_flags.DEFINE_config_file(
        "config", None, "experiment; by default the one the run was trained with"
    )
    flags.DEFINE_string("workdir", "", "run that was trained")
    flags.DEFINE_string("weights", "", "weights folder instead of a run")
    flags.DEFINE_string(
        "step", None, "checkpoint of the run: a number, best, or best:NAME/SPLIT; newest by default"
    )
    flags.DEFINE_string("output", None, "folder to write", required=True)
    flags.DEFINE_bool("scores", False, "also write the scores of all classes")
    flags.DEFINE_enum("protocol", "native", list(protocols.PROTOCOLS), "how images are prepared")
    flags.DEFINE_string("size", "", "HxW to which images are resized for the model")
    flags.DEFINE_string("window", "", "HxW of the windows of the protocol slide")
    flags.DEFINE_string("stride", "", "HxW between the windows of the protocol slide")


def run(config: ConfigDict | None, sources: Sequence[pathlib.Path]) -> list[str]:
    """Predicts the sources by the flags; returns why images were left out."""
    if not sources:
        raise ValueError("name at least one image or folder of images.")
    missing = [str(source) for source in sources if not source.exists()]
    if missing:
        raise FileNotFoundError(f"no such file or folder: {', '.join(missing)}.")
    output = pathlib.Path(FLAGS.output)
    jobs, notes = image_jobs(sources, output)
    runtime.setup()
    runtime.check_devices()
    for note in notes if hosts.is_first() else ():
        print(f"predict: {note}", file=sys.stderr)
    described = None if config is None else config.to_dict()
    model = load(
        command_line.source_of(FLAGS.workdir, FLAGS.weights), step=FLAGS.step, config=described
    )
    runtime.use_matmul_precision(read_precision(described or model.about["config"]))
    protocol = protocols.parse(
        FLAGS.protocol, size=FLAGS.size, window=FLAGS.window, stride=FLAGS.stride
    )
    predict = model.predictor(protocol, scores=FLAGS.scores)
    progress = sys.stderr.isatty()
    mine = jobs[hosts.index() :: hosts.count()]
    problems = predict_images(mine, predict, model.config.space, progress=progress)
    problems = [problem for each in hosts.gather(problems) for problem in each]
    if len(jobs) > len(problems) and hosts.is_first():
        print(f"{len(jobs) - len(problems)} images written to {images.unicode_name(output)}")
    return problems


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # Orbax logs much while it reads a checkpoint
    with command_line.one_line_errors("predict"), hosts.joined():
        problems = run(FLAGS.config, [pathlib.Path(source) for source in argv[1:]])
    if problems:
        sys.exit("predict: left out:\n  " + "\n  ".join(problems))


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=functools.partial(command_line.parse_flags, "predict"))
