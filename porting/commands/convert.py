"""`convert`: converts a checkpoint to a weights folder."""

import argparse
from pathlib import Path

from porting.commands import add_family, parser, selection_of


def add(commands) -> None:
    """Adds the subcommand."""
    command = parser(
        commands,
        "convert",
        "Convert a checkpoint to a weights folder. Strict: every tensor has one rule, every array"
        " of the model is filled, and every source tensor is restored from the weights and"
        " compared bit by bit. Works part by part, so memory does not grow with the file; the"
        " folder appears under its name only when it is complete.",
        "python -m porting convert package:efficientnet_lite0 --output weights/lite0\n"
        "python -m porting convert open_clip_convnext open_clip_model.safetensors \\\n"
        "    --output weights/clip --dtype bfloat16\n"
        "python -m porting convert clouds model_final.pth --clip open_clip_pytorch_model.bin \\\n"
        "    --output weights/clouds\n"
        "python -m porting convert checkpoint.pth.tar --entry state_dict_ema"
        " --output weights/ema",
    )
    add_family(command)
    command.add_argument("--output", type=Path, help="the new weights folder")
    command.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "keep"),
        default="float32",
        help="dtype of the floating-point arrays; keep: as in the file (default: float32)",
    )
    command.add_argument("--force", action="store_true", help="replace an existing folder")
    command.add_argument("--dry-run", action="store_true", help="the same as `plan`")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Converts, or prints the plan."""
    from porting.commands import plan
    from porting.conversion import convert

    if not args.dry_run:
        if args.output is None:
            raise ValueError("--output is missing: where to write the weights (or use `plan`).")
        convert.check_writable(args.output, force=args.force)
    conversion = convert.prepare(
        args.family,
        args.file,
        encoder=args.encoder,
        heads=args.heads,
        clip=args.clip,
        strict=not args.dry_run,
        selection=selection_of(args),
    )
    if args.dry_run:
        return plan.show(conversion, every=args.all)
    plan.show(conversion, brief=True)
    stream = convert.save(conversion, args.output, dtype=args.dtype, force=args.force)
    print(f"{stream.exact} tensors come back bit for bit")
    if stream.narrowed:
        print(f"{stream.narrowed} do not: {args.dtype} holds less than the file")
    print(f"wrote {args.output}")
    return 0
