"""Reads the config of the stages, as the programs on absl flags do: the last to see ConfigDicts."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from absl import flags
from ml_collections import ConfigDict, config_flags


def read(file: str, overrides: Sequence[str]) -> ConfigDict:
    """The config of a file with `--config.KEY=VALUE` applied.

    Args:
        file: path, with `:mode` behind it where the file knows modes.
        overrides: the flags; a key that the config lacks is an error that names the nearest.
    """
    values = flags.FlagValues()
    argv = ["stage", f"--config={file}", *overrides]
    # by default it looks in sys.argv for the keys that are overridden
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)
    except AttributeError as error:  # of a key below the first level
        raise ValueError(f"no such key of the config: {error}") from error
    except flags.Error as error:
        raise ValueError(str(error)) from error
    if rest[1:]:
        raise ValueError(f"unrecognized arguments: {' '.join(rest[1:])}")
    return cast(ConfigDict, values["config"].value)


def shards_root(config: ConfigDict, workdir: Path) -> Path:
    """The root of all shards of the stages."""
    return Path(str(config.shards)) if config.shards else workdir / "shards"


def add_config(one: argparse.ArgumentParser) -> None:
    """The two flags that every stage takes."""
    one.add_argument(
        "--config", required=True, metavar="FILE",
        help="such as configs/stages/paper.py; --config.KEY=VALUE changes a key of it",
    )  # fmt: skip
    one.add_argument("--workdir", type=Path, required=True, help="folder of all stages' files")
    one.set_defaults(overrides=())  # filled with what argparse does not know
