"""`diff`: compares two checkpoints."""

import argparse

from porting.commands import FILE_HELP, parser


def add(commands) -> None:
    """Adds the subcommand."""
    command = parser(
        commands,
        "diff",
        "Compare two checkpoints of any formats, tensor by tensor. A weights folder beside a file"
        " is compared under the names of the file it was converted from. The exit status is 0 if"
        " both hold the same tensors, 1 if not.",
        "python -m porting diff old.pth new.safetensors\n"
        "python -m porting diff weights/clip open_clip_model.safetensors\n"
        "python -m porting diff runs/a runs/b --atol 1e-6",
    )
    command.add_argument("a", help=FILE_HELP)
    command.add_argument("b", help=FILE_HELP)
    command.add_argument(
        "--atol", type=float, default=0.0, help="errors up to this count as equal (default: 0)"
    )
    command.add_argument("--limit", type=int, default=50, help="lines of each kind (default: 50)")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the differences; 0 if there are none."""
    from porting.conversion.diff import diff

    difference = diff(args.a, args.b, atol=args.atol)
    for title, lines in difference.sections().items():
        if lines:
            print(f"{title} ({len(lines)}):")
            for line in lines[: args.limit]:
                print(f"  {line}")
            if len(lines) > args.limit:
                print(f"  and {len(lines) - args.limit} more")
    print(f"{difference.equal} tensors are equal")
    return 0 if difference.same else 1
