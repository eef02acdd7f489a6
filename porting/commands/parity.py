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
        "    --images street.jpg photos/ --output reports/lite0",
    )
    one.add_argument("family", choices=TABLES, metavar="family", help=", ".join(TABLES))
    one.add_argument("--weights", metavar="FILE", help=f"{FILE_HELP} (default: random weights)")
    one.add_argument("--encoder", help="of random models (default: the first of the family)")
    one.add_argument("--size", choices=("tiny", "full"), default="tiny", help="of random models")
    one.add_argument("--seeds", type=int, default=2, help="random models or batches (default: 2)")
    one.add_argument("--images", type=Path, nargs="+", default=(), help="photos to run on")
    one.add_argument("--heads", type=int, default=8, help="attention heads (default: 8)")
    one.add_argument("--output", type=Path, help="folder for report.json and report.md")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the report; 0 if all is within bounds."""
    from porting import parity, report

    sides, cases, tolerance = parity.run(
        args.family,
        weights=args.weights,
        encoder=args.encoder,
        size=args.size,
        seeds=args.seeds,
        images=args.images,
        heads=args.heads,
    )
    found = report.to_json(sides, cases, tolerance)
    markdown = report.to_markdown(found, cases)
    print(markdown)
    if args.output:
        report.write(found, markdown, args.output)
        print(f"wrote {args.output}/report.json and report.md")
    return 0 if report.good(cases) else 1
