"""Builds shards from the raw files of a dataset, which are checked on the way.

    python -m clouds_jax.data.build camvid --raw DOWNLOADS --split test --output shards
    python -m clouds_jax.data.build streets_oldtown_day --count 400 --output shards

Writes OUTPUT/DATASET/SPLIT-00000-of-00008.array_record ... and SPLIT.summary.json. Shards are
written in a hidden folder and move into place when all are complete, so an interrupted build leaves
nothing that could be read by mistake, and the same command continues it. Exit status 130 after
Ctrl-C, 143 after SIGTERM.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from clouds_jax import command_line
from clouds_jax.data.build import workspace
from clouds_jax.data.build.run import build
from clouds_jax.data.build.summary import describe
from clouds_jax.data.codecs import CODECS
from clouds_jax.data.datasets import DATASETS, get_dataset


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clouds_jax.data.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", choices=DATASETS, metavar="DATASET", help=", ".join(DATASETS))
    parser.add_argument("--raw", type=Path, help="folder into which the download was unpacked")
    parser.add_argument("--split", default="train", help="split of the dataset (default: train)")
    parser.add_argument("--output", type=Path, required=True, help="root of all shards")
    parser.add_argument("--shards", type=int, help="number of files (default: one per 64 examples)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="number of processes")
    parser.add_argument(
        "--codec",
        choices=CODECS,
        default="zstd",
        help="; ".join(f"{name}: {codec.about}" for name, codec in CODECS.items()),
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out bad examples, list them")
    parser.add_argument("--limit", type=int, metavar="N", help="build the first N examples only")
    drawn = parser.add_argument_group("generated datasets (which read no --raw)")
    drawn.add_argument("--seed", type=int, help="examples depend on (seed, index)")
    drawn.add_argument("--count", type=int, help="number of examples")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = _parser()
    args = parser.parse_args(argv)
    for name in ("shards", "workers", "limit", "count"):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name} is {value}; it must be at least 1.")
    given = {name: getattr(args, name) for name in ("seed", "count")}
    drawing = {name: value for name, value in given.items() if value is not None}
    if drawing and not get_dataset(args.dataset).generated:
        parser.error(f"--{', --'.join(drawing)}: only for datasets that are drawn.")
    with command_line.one_line_errors("build"):
        try:
            summary = build(
                args.dataset,
                raw=args.raw,
                output=args.output,
                split=args.split,
                shards=args.shards,
                workers=args.workers,
                codec=args.codec,
                skip_bad=args.skip_bad,
                limit=args.limit,
                drawing=drawing,
            )
        except KeyboardInterrupt as error:
            print(f"build: {_interrupted(args.output / args.dataset, args.split)}", file=sys.stderr)
            terminated = isinstance(error, command_line.Terminated)
            sys.exit(command_line.TERMINATED if terminated else command_line.INTERRUPTED)
    print(_printable(describe(summary)))


def _interrupted(folder: Path, split: str) -> str:
    state = workspace.progress(folder, split)
    if (folder / f"{split}.summary.json").exists():
        return "interrupted when all shards were in place; the same command describes them."
    if state is None:
        return "interrupted before the first shard; nothing was written."
    finished, planned = state
    return (
        f"interrupted; {finished} of {planned} shards are finished, in "
        f"{workspace.staging_folder(folder, split)}. The same command goes on from there."
    )


def _printable(text: str) -> str:
    """Text that the terminal can show, whatever its locale; names of files may hold any byte."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)


if __name__ == "__main__":
    main()
