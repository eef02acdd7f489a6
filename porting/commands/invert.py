"""`invert`: restores a checkpoint from a weights folder."""

import argparse
from pathlib import Path

from porting.commands import FILE_HELP, parser


def add(commands) -> None:
    """Adds the subcommand."""
    command = parser(
        commands,
        "invert",
        "Restore the checkpoint that a weights folder was converted from. Names, shapes, dtypes"
        " and order are those of the original file, as the folder's provenance records them."
        " Tensors that the conversion dropped are listed; --from takes them from the original, so"
        " that the result loads with strict=True.",
        "python -m porting invert weights/clip --output back.safetensors\n"
        "python -m porting invert weights/clouds --output back.pth --from model_final.pth",
    )
    command.add_argument("folder", type=Path, help="weights folder, written by `convert`")
    command.add_argument(
        "--output", type=Path, required=True, help=".safetensors, .pth, .pt, .bin or .npz"
    )
    command.add_argument(
        "--from", dest="original", metavar="FILE", help=f"the original, for the rest: {FILE_HELP}"
    )
    command.add_argument(
        "--plain",
        action="store_true",
        help="tensors at the top of the file, without the original's `model` entry or `module.`",
    )
    command.add_argument("--force", action="store_true", help="replace an existing file")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint and lists the tensors that are missing from it."""
    from porting.conversion import invert
    from porting.files import write

    write.check_writable(args.output, force=args.force)
    restored = invert.invert(args.folder, original=args.original)
    write.write(args.output, restored.state, restored.source, plain=args.plain)
    print(f"wrote {args.output}: {len(restored.state)} tensors")
    print(f"{restored.same} of them are bit for bit those of the original")
    if restored.missing:
        print(
            f"{len(restored.missing)} of the original are not in it (--from ORIGINAL takes them):"
        )
        for name, why in restored.missing.items():
            print(f"  {name}: {why}")
    return 0
