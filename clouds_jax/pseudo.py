r"""Labels the images of some shards with a trained model: the program.

    python -m clouds_jax.pseudo --workdir runs/warmup_gta --shards shards --ref generated/train

Writes `generated.pseudo/train` beside `generated/train`: shards with the keys and the pseudo-labels
of the images, in their order and at their own size, every pixel with a class. A shard that is
already there is not made again; an interrupted program goes on at the first missing one, with the
same bytes.
"""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from clouds_jax import command_line
from clouds_jax.evaluation import protocols
from clouds_jax.stages import runner
from clouds_jax.stages.pseudo import PseudoLabels


def describe(summary: Mapping[str, dict[str, int]]) -> str:
    """Share of the pixels of each class, largest first."""
    counts = summary["stats"]
    total = sum(counts.values())
    shares = sorted(((n / total, name) for name, n in counts.items()), reverse=True)
    return "\n".join(f"{name:<16}{100 * share:>7.2f} %" for share, name in shares)


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m clouds_jax.pseudo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, help="run that was trained")
    parser.add_argument("--shards", type=Path, required=True, help="root of all shards")
    parser.add_argument("--ref", required=True, help="name/split of the images")
    parser.add_argument("--name", default="", help="of the new shards (default: NAME.pseudo)")
    parser.add_argument("--step", type=int, help="checkpoint of the run (default: the newest)")
    parser.add_argument("--teacher", action="store_true", help="the teacher of a joint run")
    parser.add_argument(
        "--protocol", default="native", choices=list(protocols.PROTOCOLS), help="default: native"
    )
    runner.add_running(parser)
    args = parser.parse_args(argv)
    logging.disable(logging.INFO)  # Orbax tells much of reading a checkpoint
    command = ["clouds_jax.pseudo", *runner.without_running(argv or sys.argv[1:])]
    names = [field.name for field in dataclasses.fields(PseudoLabels)]
    with command_line.one_line_errors("pseudo"):
        made = PseudoLabels(**{name: getattr(args, name) for name in names})
        done = runner.run(made, command, shard=args.shard, processes=args.processes, ray=args.ray)
        summary = made.folder.finish()
    print(f"{done} images labelled; {made.folder.state()}")
    if summary:
        print(describe(summary))


if __name__ == "__main__":
    main()
