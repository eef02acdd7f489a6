"""`convert`: from a checkpoint to a folder of weights."""

import argparse
from pathlib import Path

from porting.commands import add_family, parser


def add(commands) -> None:
    """Adds the subcommand."""
    one = parser(
        commands,
        "convert",
        "Make a folder of weights of a checkpoint. Strict: every tensor has one rule, every array"
        " of the model is filled, and every source tensor is made anew from the weights and"
        " compared bit by bit. Works part by part, so memory does not grow with the file; the"
        " folder appears under its name only when it is complete.",
        "python -m porting convert package:efficientnet_lite0 --output weights/lite0\n"
        "python -m porting convert open_clip_convnext open_clip_model.safetensors \\\n"
        "    --output weights/clip --dtype bfloat16\n"
        "python -m porting convert clouds model_final.pth --clip open_clip_pytorch_model.bin \\\n"
        "    --output weights/clouds",
    )
    add_family(one)
    one.add_argument("--output", type=Path, help="the folder to make")
    one.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "keep"),
        default="float32",
        help="of the written floating-point arrays; keep: as in the file (default: float32)",
    )
    one.add_argument("--force", action="store_true", help="replace an existing folder")
    one.add_argument("--dry-run", action="store_true", help="the same as `plan`")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Converts, or prints the plan."""
    from porting.commands import plan
    from porting.conversion import convert

    if not args.dry_run:
        if args.output is None:
            raise ValueError("--output is missing: where to write the weights (or use `plan`).")
        convert.check_writable(args.output, force=args.force)
    made = convert.prepare(
        args.family,
        args.file,
        encoder=args.encoder,
        heads=args.heads,
        clip=args.clip,
        strict=not args.dry_run,
    )
    if args.dry_run:
        return plan.show(made)
    plan.show(made, brief=True)
    parts = convert.save(made, args.output, dtype=args.dtype, force=args.force)
    print(f"{parts.same} tensors come back bit for bit")
    if parts.narrowed:
        print(f"{parts.narrowed} do not: {args.dtype} holds less than the file")
    print(f"wrote {args.output}")
    return 0
