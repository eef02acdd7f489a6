r"""Labels the images of some shards with a trained model.

    python -m clouds_jax.pseudo --workdir runs/warmup_gta --shards shards --ref generated/train

Writes `generated.pseudo/train` beside `generated/train`: shards with the keys and the pseudo-labels
of the images, in their order and at their own size, every pixel with a class. A shard that exists
is not made again; an interrupted program continues at the first missing one, with the same bytes.
Several hosts share the shards.
"""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from clouds_jax import command_line, hosts
from clouds_jax.data.part import Part
from clouds_jax.evaluation import protocols
from clouds_jax.stages import runner
from clouds_jax.stages.pseudo import PseudoLabels


def describe(summary: Mapping[str, dict[str, int]]) -> str:
    """Share of each class in all pixels, largest first, as text."""
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
    parser.add_argument("--workdir", required=True, help="directory of the training run")
    parser.add_argument("--shards", type=Path, required=True, help="root of all shards")
    parser.add_argument("--ref", required=True, help="name/split of the images")
    parser.add_argument("--name", default="", help="name of the new shards (default: NAME.pseudo)")
    parser.add_argument(
        "--step", help="checkpoint of the run: a number, best, or best:NAME/SPLIT (default: newest)"
    )
    parser.add_argument(
        "--teacher", action="store_true", help="label with the EMA teacher of a joint run"
    )
    parser.add_argument(
        "--protocol", default="native", choices=list(protocols.PROTOCOLS), help="default: native"
    )
    runner.add_running(parser)
    args = parser.parse_args(argv)
    logging.disable(logging.INFO)  # Orbax logs many lines per checkpoint
    command = ["clouds_jax.pseudo", *runner.without_running(argv or sys.argv[1:])]
    names = [field.name for field in dataclasses.fields(PseudoLabels)]
    with command_line.one_line_errors("pseudo"), hosts.joined():
        stage = PseudoLabels(**{name: getattr(args, name) for name in names})
        count = runner.run(
            stage, command, shard=args.shard, host=Part(hosts.index(), hosts.count()),
            processes=args.processes, ray=args.ray,
        )  # fmt: skip
        hosts.wait("pseudo-labels")
        summary = stage.folder.finish() if hosts.is_first() else None
    print(f"{count} images labelled; {stage.folder.state()}")
    if summary:
        print(describe(summary))


if __name__ == "__main__":
    main()
