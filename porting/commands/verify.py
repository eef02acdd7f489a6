"""`verify`: the acceptance table."""

import argparse
import subprocess
import sys
from pathlib import Path

from porting.commands import parser


def add(commands) -> None:
    """Adds the subcommand."""
    one = parser(
        commands,
        "verify",
        "Make the acceptance table: every family and encoder there and back, with proof. Random"
        " weights in the real PyTorch class, a file, convert, parity, invert, load_state_dict with"
        " strict=True, roundtrip. Writes table.md, table.json and one file per row; rows that the"
        " same code has made before are kept. The exit status is 0 only if all rows are good.",
        "python -m porting verify --output reports/verify\n"
        "python -m porting verify --size full --output reports/verify\n"
        "python -m porting verify open_clip_convnext --size full --encoder convnext_base \\\n"
        "    --output reports/verify",
    )
    one.add_argument("families", nargs="*", help="see `list`; none: all")
    one.add_argument("--size", choices=("tiny", "full"), default="tiny", help="of the models")
    one.add_argument("--encoder", nargs="+", default=(), help="only these encoders of ours")
    one.add_argument("--output", type=Path, required=True, help="folder of the table")
    one.add_argument("--again", action="store_true", help="make rows anew that are there")
    one.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # row of a process
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Makes the rows that are missing and writes the table."""
    from tqdm import tqdm

    from porting.parity import verify

    chosen = verify.rows(args.families, args.size, args.encoder)
    if not chosen:
        raise ValueError("no row is of these families and encoders; see `list`.")
    args.output.mkdir(parents=True, exist_ok=True)
    if args.one:
        for row in chosen:
            verify.write_row(args.output, verify.run(row, args.output))
        return 0
    with tqdm(total=len(chosen), unit=" rows") as bar:
        for row in chosen:
            bar.set_description(row.name)
            if args.again or verify.read(args.output, row) is None:
                _make(row, args.output)
            bar.update()
    found = [verify.any_row(args.output, row) for row in chosen]
    print(verify.to_markdown(found))
    verify.write_table(args.output)
    return 0 if all(one["verdict"] == "ok" for one in found) else 1


def _make(row, output: Path) -> None:
    """Makes one row; full-size models in a process of their own, which gives its memory back."""
    from porting.parity import verify

    if row.size == "tiny":
        verify.write_row(output, verify.run(row, output))
        return
    command = [sys.executable, "-m", "porting", "verify", row.family, "--size", row.size]
    command += ["--encoder", row.encoder] if row.encoder else []
    done = subprocess.run([*command, "--output", str(output), "--one"], check=False)
    if done.returncode:
        verify.write_row(output, verify.failed(row, f"its process ended with {done.returncode}"))
