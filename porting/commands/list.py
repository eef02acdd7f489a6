"""`list`: lists the families and their public checkpoints."""

import argparse

from porting.commands import parser


def add(commands) -> None:
    """Adds the subcommand."""
    command = parser(
        commands,
        "list",
        "List the families and their public checkpoints. With source, licence, size and hash,"
        " where they are known.",
        "python -m porting list\npython -m porting list open_clip_convnext",
    )
    command.add_argument("family", nargs="?", help="only this one")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints families and checkpoints."""
    from porting.files.public_checkpoints import PUBLIC_CHECKPOINTS
    from porting.tables import TABLES, get_table

    tables = [get_table(args.family)] if args.family else TABLES.values()
    for table in tables:
        print(table.name)
        print(f"  files     {table.source}")
        print(f"  licence   {table.licence}")
        print(f"  encoders  {', '.join(table.encoders) or 'none: a head alone'}")
        for checkpoint in PUBLIC_CHECKPOINTS:
            if checkpoint.family != table.name:
                continue
            size = f"{checkpoint.bytes:,} bytes" if checkpoint.bytes else "size not known"
            print(f"  - {checkpoint.name}: {checkpoint.source}")
            print(f"      {checkpoint.licence}; {size}; sha256 {checkpoint.sha256 or 'not known'}")
            if checkpoint.encoder:
                print(f"      encoder {checkpoint.encoder}")
    return 0
