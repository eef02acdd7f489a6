"""Commit and package versions, for checkpoints, manifests and reports."""

import pathlib
import subprocess
from collections.abc import Sequence
from importlib import metadata

_PACKAGE = pathlib.Path(__file__).parent


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The installed version of each package."""
    out = {}
    for package in packages:
        try:
            out[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            out[package] = "not installed"
    return out


def commit() -> str:
    """The git commit of the code, "-dirty" appended where files differ; "unknown" without git."""
    try:
        name = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=_PACKAGE, capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return name.stdout.strip()
