r"""Embeds generated images and their mirror images with SAM.

    python -m clouds_jax.embed --shards shards --ref generated/train --size 768 768 \
        --sam sam_vit_h --weights weights/sam_vit_h

Writes the shards that `clouds_jax.data.embeddings` describes, beside the image shards, in float16.
A shard that exists is not made again; an interrupted program continues at the first missing one,
with the same bytes.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clouds_jax import command_line, hosts
from clouds_jax.data.part import Part
from clouds_jax.nn.sam import registry
from clouds_jax.stages import runner
from clouds_jax.stages.embed import Embed


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m clouds_jax.embed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shards", type=Path, required=True, help="root of all shards")
    parser.add_argument("--ref", required=True, help="name/split of the generated images")
    parser.add_argument(
        "--size",
        type=command_line.at_least_one,
        nargs=2,
        metavar=("H", "W"),
        default=(768, 768),
        help="images are fitted to it",
    )
    parser.add_argument("--sam", required=True, help=", ".join(registry.SAMS))
    parser.add_argument(
        "--weights", required=True, help="weights folder of `python -m porting convert`"
    )
    parser.add_argument(
        "--count", type=int, default=0, help="number of shards (default: that of the images)"
    )
    runner.add_running(parser)
    args = parser.parse_args(argv)
    settings: dict[str, Any] = {
        name: getattr(args, name) for name in ("shards", "ref", "sam", "weights", "count")
    }
    command = ["clouds_jax.embed", *runner.without_running(argv or sys.argv[1:])]
    with command_line.one_line_errors("embed"), hosts.joined():
        start = time.perf_counter()
        stage = Embed(**settings, size=(args.size[0], args.size[1]))
        count = runner.run(
            stage, command, shard=args.shard, host=Part(hosts.index(), hosts.count()),
            processes=args.processes, ray=args.ray,
        )  # fmt: skip
        hosts.wait("embeddings")
        if hosts.is_first():
            stage.folder.finish()
    rate = count / (time.perf_counter() - start)
    print(f"{count} images embedded ({rate:.2f} per second); {stage.folder.state()}")


if __name__ == "__main__":
    main()
