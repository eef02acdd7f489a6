"""`parity`: compares PyTorch and JAX on the same images."""

import argparse
from pathlib import Path

from porting.commands import FILE_HELP, add_selection, parser, selection_of


def add(commands) -> None:
    """Adds the subcommand."""
    from porting.tables import TABLES

    command = parser(
        commands,
        "parity",
        "Compare PyTorch and JAX on the same images, tap by tap. Each block on the reference's"
        " own input, and the chain from the images on; the first tap out of bounds is highlighted."
        " The exit status is 0 only if all are within bounds.",
        "python -m porting parity open_clip_convnext --size tiny --seeds 3\n"
        "python -m porting parity efficientnet_lite0 --weights package:efficientnet_lite0 \\\n"
        "    --images street.jpg photos/ --output reports/lite0\n"
        "python -m porting parity clouds --store runs.safetensors\n"
        "python -m porting parity --stored runs.safetensors     # without PyTorch\n"
        "python -m porting parity clouds --weights model_final.pth --labelled camvid/test \\\n"
        "    --shards shards --limit 20",
    )
    command.add_argument(
        "family", nargs="?", help="one of: " + ", ".join(TABLES) + "; not with --stored"
    )
    command.add_argument("--weights", metavar="FILE", help=f"{FILE_HELP} (default: random weights)")
    command.add_argument(
        "--encoder", help="encoder of random models (default: the first of the family)"
    )
    command.add_argument(
        "--size", choices=("tiny", "full"), default="tiny", help="size of random models"
    )
    command.add_argument(
        "--seeds", type=int, default=2, help="random models or batches (default: 2)"
    )
    command.add_argument(
        "--images", type=Path, nargs="+", default=(), help="photos, or folders of photos, to run on"
    )
    command.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="dtype of the JAX encoder; PyTorch's is float32 (default: float32)",
    )
    command.add_argument(
        "--converted",
        type=Path,
        help="weights folder for the JAX side, converted from --weights before",
    )
    command.add_argument("--store", type=Path, help=".safetensors file to store PyTorch's runs in")
    command.add_argument(
        "--stored", type=Path, help="compare with the runs of this file; needs no PyTorch"
    )
    command.add_argument(
        "--labelled", metavar="REF", help="labelled set to compare mIoU on, e.g. camvid/test"
    )
    command.add_argument("--shards", type=Path, help="folder with the shards of --labelled")
    command.add_argument("--limit", type=int, default=20, help="labelled images (default: 20)")
    command.add_argument("--heads", type=int, default=8, help="attention heads (default: 8)")
    add_selection(command)
    command.add_argument("--output", type=Path, help="folder for report.json and report.md")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the report; 0 if all is within bounds."""
    from porting.parity import report
    from porting.parity import run as parity
    from porting.tables import get_table

    if bool(args.family) == bool(args.stored):
        raise ValueError("name a family, or a file of runs with --stored.")
    if bool(args.labelled) != bool(args.shards):
        raise ValueError("--labelled needs --shards, the folder the labelled images are in.")
    if args.stored:
        pair, cases, tolerance = parity.run_stored(
            args.stored, weights=args.weights, dtype=args.dtype, selection=selection_of(args)
        )
    else:
        get_table(args.family)
        pair, cases, tolerance = parity.run(
            args.family,
            weights=args.weights,
            encoder=args.encoder,
            size=args.size,
            seeds=args.seeds,
            images=args.images,
            heads=args.heads,
            dtype=args.dtype,
            converted=args.converted,
            store=args.store,
            selection=selection_of(args),
        )
    labelled = None
    if args.labelled:
        from porting.parity.miou import score_labelled

        labelled = score_labelled(pair, args.labelled, args.shards, args.limit)
    content = report.to_json(pair, cases, tolerance, labelled)
    markdown = report.to_markdown(content, cases)
    print(markdown)
    if args.output:
        report.write(content, markdown, args.output)
        print(f"wrote {args.output}/report.json and report.md")
    return 0 if report.good(cases, labelled) else 1
