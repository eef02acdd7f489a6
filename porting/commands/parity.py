"""`parity`: PyTorch's model and ours on the same images."""

import argparse
from pathlib import Path

from porting.commands import FILE_HELP, parser


def add(commands) -> None:
    """Adds the subcommand."""
    from porting.tables import TABLES

    one = parser(
        commands,
        "parity",
        "Compare PyTorch and ours, tap by tap. Each block on the reference's own input and the"
        " chain from the images on; the first tap out of bounds is highlighted. The exit status is"
        " 0 only if all are within bounds.",
        "python -m porting parity open_clip_convnext --size tiny --seeds 3\n"
        "python -m porting parity efficientnet_lite0 --weights package:efficientnet_lite0 \\\n"
        "    --images street.jpg photos/ --output reports/lite0\n"
        "python -m porting parity clouds --store runs.safetensors\n"
        "python -m porting parity --stored runs.safetensors     # without PyTorch\n"
        "python -m porting parity clouds --weights model_final.pth --labelled camvid/test \\\n"
        "    --shards shards --limit 20",
    )
    one.add_argument(
        "family", nargs="?", help="one of: " + ", ".join(TABLES) + "; not with --stored"
    )
    one.add_argument("--weights", metavar="FILE", help=f"{FILE_HELP} (default: random weights)")
    one.add_argument("--encoder", help="of random models (default: the first of the family)")
    one.add_argument("--size", choices=("tiny", "full"), default="tiny", help="of random models")
    one.add_argument("--seeds", type=int, default=2, help="random models or batches (default: 2)")
    one.add_argument(
        "--images", type=Path, nargs="+", default=(), help="photos, or folders of them, to run on"
    )
    one.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of our encoder; PyTorch's is float32 (default: float32)",
    )
    one.add_argument(
        "--converted", type=Path, help="folder that ours takes, converted from --weights before"
    )
    one.add_argument("--store", type=Path, help=".safetensors file to keep PyTorch's runs in")
    one.add_argument(
        "--stored", type=Path, help="compare with the runs of this file; needs no PyTorch"
    )
    one.add_argument("--labelled", metavar="REF", help="compare mIoU too, e.g. on camvid/test")
    one.add_argument("--shards", type=Path, help="where the shards of --labelled are")
    one.add_argument("--limit", type=int, default=20, help="labelled images (default: 20)")
    one.add_argument("--heads", type=int, default=8, help="attention heads (default: 8)")
    one.add_argument("--output", type=Path, help="folder for report.json and report.md")
    one.set_defaults(run=run)


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
        sides, cases, tolerance = parity.run_stored(
            args.stored, weights=args.weights, dtype=args.dtype
        )
    else:
        get_table(args.family)
        sides, cases, tolerance = parity.run(
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
        )
    labelled = None
    if args.labelled:
        from porting.parity.miou import score

        labelled = score(sides, args.labelled, args.shards, args.limit)
    found = report.to_json(sides, cases, tolerance, labelled)
    markdown = report.to_markdown(found, cases)
    print(markdown)
    if args.output:
        report.write(found, markdown, args.output)
        print(f"wrote {args.output}/report.json and report.md")
    return 0 if report.good(cases, labelled) else 1
