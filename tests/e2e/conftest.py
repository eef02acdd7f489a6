"""Runs of the programs, as a person starts them."""

import os
import pathlib
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def program(root):
    """`program(module, *arguments)` runs `python -m module` and returns what it did."""

    def run(module: str, *arguments: str | pathlib.Path) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.run(
            command, cwd=root, capture_output=True, text=True, env=dict(os.environ)
        )

    return run


@pytest.fixture(scope="session")
def debug_run(program, shared_folder) -> pathlib.Path:
    """A run of the dense baseline in debug mode, one step long."""

    def train(workdir: pathlib.Path) -> None:
        done = program(
            "clouds_jax.train",
            "--config=configs/warmup_camvid_fpn.py:debug",
            "--config.steps=1",
            "--config.data.batch={'fake': 2}",
            f"--workdir={workdir}",
        )
        assert done.returncode == 0, done.stderr

    return shared_folder("debug_run", train)
