"""Reads the config of the stages from argparse, with the same flags as the absl programs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from absl import flags
from ml_collections import ConfigDict, config_flags


def read(file: str, overrides: Sequence[str]) -> ConfigDict:
    """The config of a file with overrides applied.

    Args:
        file: path of the config file, with an optional `:mode` after it.
        overrides: flags `--config.KEY=VALUE`.

    Raises:
        ValueError: an unknown key or flag, or a value of a wrong type.
    """
    values = flags.FlagValues()
    argv = ["stage", f"--config={file}", *overrides]
    # sys_argv: by default it searches sys.argv for overridden keys
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)
    except AttributeError as error:  # raised for an unknown key below the first level
        raise ValueError(f"no such key of the config: {error}") from error
    except flags.Error as error:
        raise ValueError(str(error)) from error
    if rest[1:]:
        raise ValueError(f"unrecognized arguments: {' '.join(rest[1:])}")
    return cast(ConfigDict, values["config"].value)


def shards_root(config: ConfigDict, workdir: Path) -> Path:
    """The root folder of all shards."""
    return Path(str(config.shards)) if config.shards else workdir / "shards"


def add_config(command: argparse.ArgumentParser) -> None:
    """Adds the two flags of every stage."""
    command.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="config file, such as configs/stages/paper.py; --config.KEY=VALUE overrides a key",
    )
    command.add_argument("--workdir", type=Path, required=True, help="folder for all stages' files")
    command.set_defaults(overrides=())  # filled by porting.__main__ with the unparsed flags
