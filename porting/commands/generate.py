"""`generate`: a diffusion model generates images from prompts."""

import argparse
import time
from typing import Any

from clouds_jax.stages import runner
from porting.commands import parser
from porting.stages import config as stage_config

_SHOWN = 24  # images on the contact sheet


def add(commands) -> None:
    """Adds the subcommand."""
    command = parser(
        commands,
        "generate",
        "Make images from prompts with a diffusion model, or take photos in their place. Image i"
        " depends on the seed and i, so parts can be made alone; blank images are made again; goes"
        " on where it was killed.",
        "python -m porting generate --config configs/stages/base.py --workdir runs/stages\n"
        "python -m porting generate --config configs/stages/base.py --workdir runs/stages \\\n"
        "    --config.generate.provider=folder --config.generate.folder.path=photos",
    )
    stage_config.add_config(command)
    runner.add_running(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Generates the images, then draws the contact sheet."""
    from clouds_jax import images
    from clouds_jax.data import records
    from porting.stages.images import contact_sheet
    from porting.stages.images import stage as generate

    config: Any = stage_config.read(args.config, args.overrides)
    prompts = args.workdir / "prompts/prompts.jsonl"
    provider = generate.get_provider(config.generate, seed=config.seed, prompts=prompts)
    for note in provider.notes:
        print(f"note: {note}")
    stage = generate.Generate(
        stage_config.shards_root(config, args.workdir),
        config.generate.name,
        provider,
        size=tuple(config.generate.size),
        count=config.generate.shards,
        codec=config.generate.codec,
    )
    print(stage.folder.state())
    began = time.perf_counter()
    command = runner.without_running(args.command)
    done = runner.run(stage, command, shard=args.shard, processes=args.processes, ray=args.ray)
    rate = done / (time.perf_counter() - began)
    print(f"{done} images made ({rate:.2f} per second); {stage.folder.state()}")
    summary = stage.folder.finish()
    if summary is None:
        return 0
    stats = ", ".join(f"{name} {count:,}" for name, count in summary["stats"].items() if count)
    if stats:
        print(f"of all images: {stats}")
    if done or not stage.contact_sheet.exists():
        examples = records.open_ref(stage.folder.ref, stage.shards)
        count = min(_SHOWN, len(examples))
        shown = [examples[i * len(examples) // count] for i in range(count)]
        images.write_png(stage.contact_sheet, contact_sheet.draw(shown))
    print(f"contact sheet: {stage.contact_sheet}")
    return 0
