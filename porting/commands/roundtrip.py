"""`roundtrip`: a checkpoint there and back, bit for bit."""

import argparse
from pathlib import Path

from porting.commands import add_family, parser


def add(commands) -> None:
    """Adds the subcommand."""
    one = parser(
        commands,
        "roundtrip",
        "Convert a checkpoint to a temporary folder, read that folder, make the checkpoint anew and"
        " compare every bit. The exit status is 0 only if all tensors are equal.",
        "python -m porting roundtrip open_clip_model.safetensors\n"
        "python -m porting roundtrip clouds model_final.pth --weights weights/clouds",
    )
    add_family(one)
    one.add_argument("--weights", type=Path, help="compare with this folder instead")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the counts; raises what differs."""
    from porting.conversion import convert, invert

    made = convert.prepare(
        args.family, args.file, encoder=args.encoder, heads=args.heads, clip=args.clip
    )
    counts = invert.roundtrip(made, args.weights)
    print(f"{made.provenance.file}: family {made.table.name}, {len(made.state)} tensors")
    print(f"{counts.same} come back bit for bit, by type: {counts.by_dtype}")
    for why, count in counts.dropped.items():
        print(f"{count} left out: {why}")
    return 0
