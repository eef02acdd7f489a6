"""Draws learning curves of runs, panels of datasets, and overlays of label maps on images.

python -m clouds_jax.visualise curves runs/a runs/b --output curves.png
python -m clouds_jax.visualise panel camvid/test --shards shards --output panel.png
python -m clouds_jax.visualise overlay street.jpg street_trainids.png --output overlay.png
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np

from clouds_jax import command_line, images
from clouds_jax.constants import IGNORE
from clouds_jax.data import records
from clouds_jax.data.classes import SPACES
from clouds_jax.data.datasets import get_dataset
from clouds_jax.visual import plots
from clouds_jax.visual.labels import label_panels, overlay, with_legend


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m clouds_jax.visualise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    curves = commands.add_parser("curves", help="loss and mIoU of one or several runs")
    curves.add_argument("runs", nargs="+", type=pathlib.Path, help="run directories")
    panel = commands.add_parser("panel", help="some examples of a dataset with their labels")
    panel.add_argument("dataset", help="NAME or NAME/SPLIT")
    panel.add_argument("--shards", required=True, type=pathlib.Path, help="root of all shards")
    panel.add_argument(
        "--count",
        type=command_line.at_least_one,
        default=6,
        help="number of examples, evenly spaced",
    )
    over = commands.add_parser("overlay", help="a label map over its image")
    over.add_argument("image", type=pathlib.Path)
    over.add_argument("label", type=pathlib.Path, help="PNG of train ids")
    over.add_argument("--space", choices=sorted(SPACES), default="cityscapes19")
    for command in (curves, panel, over):
        command.add_argument("--output", required=True, type=pathlib.Path, help="PNG to write")
    args = parser.parse_args(argv)
    with command_line.one_line_errors("visualise"):
        _COMMANDS[args.command](args)
    print(args.output)


def _curves(args: argparse.Namespace) -> None:
    plots.save(plots.curves(args.runs), args.output)


def _panel(args: argparse.Namespace) -> None:
    name, split = records.parse_ref(args.dataset)
    space = get_dataset(name).label_space
    if space is None:
        raise ValueError(f"{name} has no labels to draw.")
    shards = records.open_ref(args.dataset, args.shards)
    step = max(1, len(shards) // args.count)
    examples = []
    for i in range(step // 2, len(shards), step)[: args.count]:
        example = shards[i]
        if example.image is None or example.label is None:
            raise ValueError(f"{args.dataset}: {example.key} has no image or no label to draw.")
        examples.append((example.key, example.image, example.label))
    images.write_png(args.output, label_panels(examples, SPACES[space]))


def _overlay(args: argparse.Namespace) -> None:
    space = SPACES[args.space]
    image, label = images.read_image(args.image), images.read_label(args.label)
    if image.shape[:2] != label.shape:
        raise ValueError(
            f"{args.image} is {image.shape[0]}x{image.shape[1]} pixels (h x w), {args.label} "
            f"{label.shape[0]}x{label.shape[1]}; they must be equal."
        )
    unknown = set(np.unique(label).tolist()) - set(range(len(space.names))) - {IGNORE}
    if unknown:
        raise ValueError(
            f"{args.label}: has ids {sorted(unknown)}; {space.name} has 0..{len(space.names) - 1} "
            f"and {IGNORE}. Choose another --space, or convert label ids to train ids."
        )
    images.write_png(args.output, with_legend(overlay(image, label, space), label, space))


_COMMANDS = {"curves": _curves, "panel": _panel, "overlay": _overlay}


if __name__ == "__main__":
    main()
