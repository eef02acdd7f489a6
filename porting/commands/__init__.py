"""The subcommands of `python -m porting`: one module each, with `add` and `run`."""

import argparse

FILE_HELP = (
    "file or folder; package:NAME, the file of an installed package; a URL; hf://org/name[/file];"
    " a folder of our weights or a run"
)


def parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    examples: str,
) -> argparse.ArgumentParser:
    """Adds a subcommand's parser.

    Args:
        commands: subparsers of the program.
        name: name of the subcommand.
        text: description; its first sentence is also shown in the overview.
        examples: command lines, one per line.
    """
    return commands.add_parser(
        name,
        help=text.split(". ")[0].rstrip("."),
        description=text,
        epilog="examples:\n" + "".join(f"  {line}\n" for line in examples.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_family(command: argparse.ArgumentParser) -> None:
    """Adds the optional family, the file, and the options that say how it is read."""
    command.add_argument(
        "family", nargs="?", help="see `list`; `auto` or nothing: the one that fits best"
    )
    command.add_argument("file", help=FILE_HELP)
    command.add_argument(
        "--clip", metavar="FILE", help="second file, with the CLIP that FILE lacks"
    )
    command.add_argument("--encoder", help="our encoder (default: the one that fits)")
    command.add_argument("--heads", type=int, default=8, help="attention heads (default: 8)")
