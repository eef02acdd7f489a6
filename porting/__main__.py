"""The programs of porting: look into checkpoints, convert them, and prove the conversion."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

_EXAMPLES = """\
examples:
  python -m porting inspect open_clip_model.safetensors
  python -m porting convert efficientnet_lite0 package:efficientnet_lite0 --output weights/lite0
  python -m porting convert open_clip_convnext open_clip_model.safetensors --output weights/clip
  python -m porting convert clouds model_final.pth --dry-run
  python -m porting parity open_clip_convnext --size tiny --seeds 3
  python -m porting parity efficientnet_lite0 --weights package:efficientnet_lite0 \\
      --images street.jpg --output reports/lite0
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, OSError, KeyError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"error: {text}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    from porting.tables import TABLES

    parser = argparse.ArgumentParser(
        prog="python -m porting",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    file_help = "file or folder, or package:NAME for the file of an installed package"

    inspect = commands.add_parser("inspect", help="list the tensors of a checkpoint")
    inspect.add_argument("file", help=file_help)
    inspect.set_defaults(run=_inspect)

    convert = commands.add_parser("convert", help="make a folder of weights of a checkpoint")
    convert.add_argument("family", choices=TABLES, metavar="family", help=", ".join(TABLES))
    convert.add_argument("file", help=file_help)
    convert.add_argument("--output", type=Path, help="the folder to make")
    convert.add_argument("--encoder", help="our encoder (default: the one that fits)")
    convert.add_argument("--heads", type=int, default=8, help="attention heads (default: 8)")
    convert.add_argument("--force", action="store_true", help="replace an existing folder")
    convert.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    convert.set_defaults(run=_convert)

    parity = commands.add_parser("parity", help="compare PyTorch and ours, tap by tap")
    parity.add_argument("family", choices=TABLES, metavar="family", help=", ".join(TABLES))
    parity.add_argument("--weights", metavar="FILE", help=f"{file_help} (default: random weights)")
    parity.add_argument("--encoder", help="of random models (default: the first of the family)")
    parity.add_argument("--size", choices=("tiny", "full"), default="tiny", help="of random models")
    parity.add_argument(
        "--seeds", type=int, default=2, help="random models or batches (default: 2)"
    )
    parity.add_argument("--images", type=Path, nargs="+", default=(), help="photos to run on")
    parity.add_argument("--heads", type=int, default=8, help="attention heads (default: 8)")
    parity.add_argument("--output", type=Path, help="folder for report.json and report.md")
    parity.set_defaults(run=_parity)
    return parser


def _inspect(args: argparse.Namespace) -> int:
    from porting.convert import summary
    from porting.sources import open_checkpoint

    state, provenance = open_checkpoint(args.file)
    width = max(len(name) for name in state)
    for name, tensor in state.items():
        print(f"{name:{width}}  {tensor.dtype!s:8}  {tensor.shape}")
    print(f"\n{provenance.file}: {provenance.format}, {provenance.bytes:,} bytes")
    print(f"sha256 {provenance.sha256}")
    print(summary(state))
    if provenance.beside:
        print(f"not read: {', '.join(provenance.beside)}")
    return 0


def _convert(args: argparse.Namespace) -> int:
    from porting import convert

    if not args.dry_run and args.output is None:
        raise ValueError("--output is missing: where to write the weights (or give --dry-run).")
    made = convert.prepare(args.family, args.file, encoder=args.encoder, heads=args.heads)
    if args.dry_run:
        for name, (rule, addresses) in made.plan.used.items():
            print(f"{name} -> {', '.join(map(str, addresses))} ({rule.layout.name})")
    reasons: dict[str, list[str]] = {}
    for name, rule in made.plan.dropped.items():
        reasons.setdefault(rule.why, []).append(name)
    print(f"{made.provenance.file}: {convert.summary(made.state)}; {len(made.plan.used)} used")
    for why, names in reasons.items():
        print(f"  {len(names)} left out: {why}")
    if args.dry_run:
        print("everything fits")
        return 0
    same = convert.save(made, args.output, force=args.force)
    print(f"{same} tensors come back bit for bit; wrote {args.output}")
    return 0


def _parity(args: argparse.Namespace) -> int:
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


if __name__ == "__main__":
    sys.exit(main())
