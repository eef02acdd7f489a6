"""`refine`: SAM refines the pseudo-labels of generated images."""

import argparse
import time
from collections.abc import Mapping
from typing import Any

from clouds_jax.stages import runner
from porting.commands import parser
from porting.stages import config as stage_config


def add(commands) -> None:
    """Adds the subcommand."""
    command = parser(
        commands,
        "refine",
        "Refine pseudo-labels by SAM: the large connected components of each class prompt it with"
        " points, and its masks are the new label. Reads NAME/train and NAME.pseudo/train, writes"
        " NAME.refined/train with statistics and pictures; goes on where it was killed.",
        "python -m porting refine --config configs/stages/base.py --workdir runs/stages\n"
        "python -m porting refine --config configs/stages/base.py --workdir runs/stages \\\n"
        "    --config.refine.preset=fixed --config.refine.sam=sam_vit_h \\\n"
        "    --config.refine.weights=sam_vit_h_4b8939.pth",
    )
    stage_config.add_config(command)
    command.add_argument(
        "--ref", default="", help="images, NAME/SPLIT (default: those of generate)"
    )
    command.add_argument("--labels", default="", help="NAME/SPLIT (default: NAME.pseudo/SPLIT)")
    command.add_argument(
        "--name", default="", help="name of the new shards (default: NAME.refined)"
    )
    runner.add_running(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Refines the labels, then prints statistics."""
    from porting.stages.refine import stage as refine
    from porting.stages.refine.sam import SamSettings

    config: Any = stage_config.read(args.config, args.overrides)
    settings = config.refine.to_dict()
    rules = {name: settings.pop(name) for name in ("preset", "min_area", "num_points")}
    stage = refine.Refine(
        stage_config.shards_root(config, args.workdir),
        args.ref or f"{config.generate.name}/train",
        refine.get_rules(rules.pop("preset"), **rules),
        embeddings=settings.pop("embeddings"),
        panels=settings.pop("panels"),
        sam=SamSettings(**settings),
        labels=args.labels,
        name=args.name,
        seed=config.seed,
    )
    print(stage.folder.state())
    began = time.perf_counter()
    command = runner.without_running(args.command)
    done = runner.run(stage, command, shard=args.shard, processes=args.processes, ray=args.ray)
    summary = stage.folder.finish()
    rate = done / (time.perf_counter() - began)
    print(f"{done} labels refined ({rate:.2f} per second); {stage.folder.state()}")
    if summary:
        print(_table(summary["stats"], stage.space.names))
        print(f"pictures: {stage.panel(0).parent}")
    return 0


def _table(stats: Mapping[str, int], names: tuple[str, ...]) -> str:
    """Shares of the teacher's pixels that were confirmed, changed and dropped, per class."""

    def row(name: str, key: str) -> str:
        total = stats.get(f"teacher{key}", 0)
        shares = (
            100 * stats.get(f"{what}{key}", 0) / max(1, total)
            for what in ("confirmed", "changed", "dropped")
        )
        cells = "".join(f"{share:>10.1f} %" for share in shares)
        return f"{name:<16}{total:>14,}{cells}{stats.get(f'components{key}', 0):>12,}"

    present = [name for name in names if stats.get(f"teacher/{name}")]
    overlapped = 100 * stats["overlapped"] / max(1, stats["teacher"])
    return "\n".join(
        [
            f"{'':<16}{'pixels':>14}{'confirmed':>12}{'changed':>12}{'dropped':>12}{'components':>12}",
            *(row(name, f"/{name}") for name in present),
            row("all", ""),
            f"claimed by several masks and dropped: {overlapped:.1f} % of the pixels;"
            f" {stats['fallback']:,} of {stats['images']:,} images without a component keep the"
            f" teacher's label; {stats['emptied']:,} targets without a pixel",
        ]
    )
