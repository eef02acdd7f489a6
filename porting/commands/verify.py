"""`verify`: verifies every family and encoder, there and back."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from porting.commands import parser

if TYPE_CHECKING:
    from porting.parity.verify_table import Row  # loads torch


def add(commands) -> None:
    """Adds the subcommand."""
    command = parser(
        commands,
        "verify",
        "Verify every family and encoder, there and back. Random weights in the real PyTorch"
        " class, a file, convert, parity, invert, load_state_dict with strict=True, roundtrip."
        " Writes table.md, table.json and one file per row; rows that the same code has verified"
        " before are kept. The exit status is 0 only if all rows are good.",
        "python -m porting verify --output reports/verify\n"
        "python -m porting verify --size full --output reports/verify\n"
        "python -m porting verify open_clip_convnext --size full --encoder convnext_base \\\n"
        "    --output reports/verify",
    )
    command.add_argument("families", nargs="*", help="see `list`; default: all")
    command.add_argument(
        "--size", choices=("tiny", "full"), default="tiny", help="size of the models"
    )
    command.add_argument("--encoder", nargs="+", default=(), help="only these encoders")
    command.add_argument("--output", type=Path, required=True, help="folder for the table")
    command.add_argument("--again", action="store_true", help="repeat rows that are there")
    command.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # in a child process
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verifies the rows that are missing and writes the table."""
    from tqdm import tqdm

    from porting.parity import verify, verify_table

    chosen = verify.rows(args.families, args.size, args.encoder)
    if not chosen:
        raise ValueError("no row is of these families and encoders; see `list`.")
    args.output.mkdir(parents=True, exist_ok=True)
    if args.one:
        for row in chosen:
            verify_table.write_row(args.output, verify.run(row, args.output))
        return 0
    with tqdm(total=len(chosen), unit=" rows") as bar:
        for row in chosen:
            bar.set_description(row.name)
            if args.again or not verify_table.is_current(args.output, row):
                _verify(row, args.output)
            bar.update()
    stored = [verify_table.read_row(args.output, row) for row in chosen]
    print(verify_table.to_markdown(stored))
    verify_table.write_table(args.output)
    return 0 if all(row["verdict"] == "ok" for row in stored) else 1


def _verify(row: "Row", output: Path) -> None:
    """Verifies one row; full-size models in a child process, which returns its memory."""
    from porting.parity import verify, verify_table

    if row.size == "tiny":
        verify_table.write_row(output, verify.run(row, output))
        return
    command = [sys.executable, "-m", "porting", "verify", row.family, "--size", row.size]
    command += ["--encoder", row.encoder] if row.encoder else []
    done = subprocess.run([*command, "--output", str(output), "--one"], check=False)
    if done.returncode:
        error = f"its process ended with {done.returncode}"
        verify_table.write_row(output, verify_table.failed(row, error))
