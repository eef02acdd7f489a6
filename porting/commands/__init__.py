"""The subcommands of `python -m porting`: one module each, with `add` and what it runs."""

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
    """A subcommand's parser: the first sentence stands in the overview, all of it in --help."""
    return commands.add_parser(
        name,
        help=text.split(". ")[0].rstrip("."),
        description=text,
        epilog="examples:\n" + "".join(f"  {line}\n" for line in examples.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_family(one: argparse.ArgumentParser) -> None:
    """The family, which may be left out, the file, and how it is read."""
    one.add_argument(
        "family", nargs="?", help="see `list`; left out, or `auto`: the one that fits best"
    )
    one.add_argument("file", help=FILE_HELP)
    one.add_argument("--clip", metavar="FILE", help="second file, with the CLIP that FILE lacks")
    one.add_argument("--encoder", help="our encoder (default: the one that fits)")
    one.add_argument("--heads", type=int, default=8, help="attention heads (default: 8)")
