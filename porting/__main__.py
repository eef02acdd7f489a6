"""Converts PyTorch checkpoints both ways, verifies the conversion, and runs the offline stages."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from clouds_jax.command_line import EXPECTED, Terminated, explained, one_line_errors
from porting.commands import (
    convert,
    diff,
    generate,
    inspect,
    invert,
    parity,
    plan,
    prompts,
    refine,
    roundtrip,
    verify,
)
from porting.commands import list as list_

_COMMANDS = (
    list_,
    inspect,
    plan,
    convert,
    invert,
    roundtrip,
    diff,
    parity,
    verify,
    prompts,
    generate,
    refine,
)
_EXAMPLES = """\
examples:
  python -m porting list
  python -m porting plan open_clip_model.safetensors
  python -m porting convert package:efficientnet_lite0 --output weights/lite0
  python -m porting COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns the exit status."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if len(rest) == 1 and not rest[0].startswith("-") and getattr(args, "family", "") is None:
        # argparse takes a family for the file when options stand between the two
        args.family, args.file, rest = args.file, rest[0], []
    if hasattr(args, "overrides"):  # of a config, which reports unknown keys itself
        args.overrides, rest = rest, []
        args.command = ["porting", *(sys.argv[1:] if argv is None else argv)]
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    with one_line_errors("porting"):  # SIGTERM, and what no code here has foreseen
        try:
            return args.run(args)
        except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except EXPECTED as error:
            print(f"error: {_text(error, args)}", file=sys.stderr)
            return 1


def _text(error: Exception, args: argparse.Namespace) -> str:
    """The text of an error; where there is --all, of all misfits if it was given."""
    from porting.tables.apply import ConversionError

    if not isinstance(error, ConversionError):
        return explained(error, "porting")
    if error.is_complete or not hasattr(args, "all"):
        return str(error)
    return error.in_full() if args.all else f"{error}\n--all lists every misfit"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m porting",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in _COMMANDS:
        command.add(commands)
    return parser


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Raises, so that what is open is closed; ends at once while modules are imported.

    Nothing is open then, and an exception inside the start of a C++ library crashes or is lost.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, f"porting: stopped by {signal.Signals(number).name}.\n".encode())
            os._exit(128 + number)
        frame = frame.f_back
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _program() -> NoReturn:
    """Runs `main` as the process; ends it without waiting for threads where it was stopped."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        status = main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # threads may still write to a folder that is gone, and say so
    sys.exit(0)


if __name__ == "__main__":
    _program()
