"""`roundtrip`: converts a checkpoint, restores it and compares every bit."""

import argparse
from pathlib import Path

from porting.commands import add_family, parser, selection_of


def add(commands) -> None:
    """Adds the subcommand."""
    command = parser(
        commands,
        "roundtrip",
        "Convert a checkpoint to a temporary folder, restore the checkpoint from it and compare"
        " every bit. The exit status is 0 only if all tensors are equal.",
        "python -m porting roundtrip open_clip_model.safetensors\n"
        "python -m porting roundtrip clouds model_final.pth --weights weights/clouds",
    )
    add_family(command)
    command.add_argument(
        "--weights", type=Path, help="an existing weights folder, in place of a temporary one"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the number of equal tensors; raises the differences."""
    from porting.conversion import convert, invert

    conversion = convert.prepare(
        args.family,
        args.file,
        encoder=args.encoder,
        heads=args.heads,
        clip=args.clip,
        selection=selection_of(args),
    )
    counts = invert.roundtrip(conversion, args.weights)
    file, family = conversion.provenance.file, conversion.table.name
    print(f"{file}: family {family}, {len(conversion.state)} tensors")
    print(f"{counts.same} come back bit for bit, by type: {counts.by_dtype}")
    for why, count in counts.dropped.items():
        print(f"{count} left out: {why}")
    return 0
