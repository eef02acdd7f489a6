"""`list`: the families and the public checkpoints."""

import argparse

from porting.commands import parser


def add(commands) -> None:
    """Adds the subcommand."""
    one = parser(
        commands,
        "list",
        "List the families and the public checkpoints known for them. Source, licence, size and"
        " hash, where they are known.",
        "python -m porting list\npython -m porting list open_clip_convnext",
    )
    one.add_argument("family", nargs="?", help="only this one")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints families and checkpoints."""
    from porting.files.public_checkpoints import KNOWN
    from porting.tables import TABLES, get_table

    for table in (get_table(args.family),) if args.family else TABLES.values():
        print(table.name)
        print(f"  files     {table.source}")
        print(f"  licence   {table.licence}")
        print(f"  encoders  {', '.join(table.encoders) or 'none: a head alone'}")
        for known in KNOWN:
            if known.family != table.name:
                continue
            size = f"{known.bytes:,} bytes" if known.bytes else "size not known"
            print(f"  - {known.name}: {known.source}")
            print(f"      {known.licence}; {size}; sha256 {known.sha256 or 'not known'}")
            if known.encoder:
                print(f"      encoder {known.encoder}")
    return 0
