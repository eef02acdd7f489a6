"""The subcommands of `python -m porting`: one module each, with `add` and `run`."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from porting.files.open import Provenance, Selection

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
    add_selection(command)
    command.add_argument(
        "--all", action="store_true", help="list every misfit, not grouped by pattern"
    )


def add_selection(command: argparse.ArgumentParser) -> None:
    """Adds the options that say which tensors of the file are read."""
    command.add_argument(
        "--entry",
        default="",
        metavar="NAME",
        help="key of the state dict in FILE, such as model_ema (default: model, state_dict, ...)",
    )
    command.add_argument(
        "--prefix",
        default="",
        help="read the names that begin with this, such as student., and cut it off"
        " (default: the one that lets most names fit)",
    )
    command.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="REGEX",
        help="leave out tensors whose name has a match of this; may be given several times",
    )


def selection_of(args: argparse.Namespace) -> "Selection":
    """The tensors that the options of `add_selection` ask for."""
    from porting.files.open import Selection

    return Selection(args.entry, args.prefix, tuple(args.drop))


def print_origin(provenance: "Provenance") -> None:
    """Prints where the tensors were found in the file, and what was not read."""
    from porting.tables.misfits import grouped_names

    found = [f"under {provenance.entry}"] if provenance.entry else []
    found += [f"without the prefix {provenance.prefix}"] if provenance.prefix else []
    if found:
        print(f"read {', '.join(found)}")
    if provenance.beside:
        print(f"not read: {', '.join(grouped_names(provenance.beside))}")
