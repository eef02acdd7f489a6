"""`invert`: from a folder of weights back to a checkpoint."""

import argparse
from pathlib import Path

from porting.commands import FILE_HELP, parser


def add(commands) -> None:
    """Adds the subcommand."""
    one = parser(
        commands,
        "invert",
        "Make a checkpoint of a folder of weights. Names, shapes, types and order are those of the"
        " original file, as the folder's provenance keeps them. Tensors that the conversion left"
        " out are listed; --from takes them from the original, so that the result loads with"
        " strict=True.",
        "python -m porting invert weights/clip --output back.safetensors\n"
        "python -m porting invert weights/clouds --output back.pth --from model_final.pth",
    )
    one.add_argument("folder", type=Path, help="what `convert` has written")
    one.add_argument(
        "--output", type=Path, required=True, help=".safetensors, .pth, .pt, .bin or .npz"
    )
    one.add_argument(
        "--from", dest="original", metavar="FILE", help=f"the original, for the rest: {FILE_HELP}"
    )
    one.add_argument(
        "--plain",
        action="store_true",
        help="tensors at the top of the file, without the original's `model` entry or `module.`",
    )
    one.add_argument("--force", action="store_true", help="replace an existing file")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint and says what is not in it."""
    from porting.conversion import invert
    from porting.files import write

    write.check_writable(args.output, force=args.force)
    back = invert.invert(args.folder, original=args.original)
    write.write(args.output, back.state, back.source, plain=args.plain)
    print(f"wrote {args.output}: {len(back.state)} tensors")
    print(f"{back.same} of them are bit for bit those of the original")
    if back.missing:
        print(f"{len(back.missing)} of the original are not in it (--from ORIGINAL takes them):")
        for name, why in back.missing.items():
            print(f"  {name}: {why}")
    return 0
