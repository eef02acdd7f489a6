"""The script for a lent GPU: what it would run exists, and without a GPU it runs nothing."""

import os
import shlex
import shutil
import subprocess

import pytest


@pytest.fixture(scope="module")
def checks(root):
    def run(*args, **environment):
        command = ["bash", "experiments/gpu_checks.sh", *args]
        return subprocess.run(
            command, cwd=root, env={**os.environ, "VENV": "/venv", **environment},
            capture_output=True, text=True,
        )  # fmt: skip

    return run


def test_the_dry_run_names_commands_rows_and_tests_that_exist(checks, root):
    from experiments.benchmark import rows, training

    known = {**rows.ROWS, **training.ROWS}
    done = checks("--dry-run", OUT="results")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    order = ["tests", "inference", "warmup", "joint", "compiled", "memory", "memory_bfloat16"]
    assert list(lines) == order
    asked = set()
    for step, line in lines.items():
        timeout, limit, python, *words = shlex.split(line)
        assert (timeout, python) == ("timeout", "/venv/bin/python") and 0 < int(limit) <= 600
        assert f"results/CARD-bfloat16/{step}" in line
        if step == "tests":
            assert words[:2] == ["-m", "pytest"] and (root / words[2]).exists()
            continue
        assert words[:2] == ["-m", "experiments.benchmark"]
        named = words[2 : words.index("--device")]
        named = [word for word in named if not word.startswith("--") and word in known]
        assert named
        asked |= {*named}
    assert {"warmup", "joint_online", "inference"} <= asked
    assert "--compile" in lines["compiled"]
    assert "--head-dtype bfloat16" in lines["memory_bfloat16"]


def test_the_options_of_the_dry_run_are_those_of_the_benchmark(checks, root):
    source = (root / "experiments/benchmark/__main__.py").read_text()
    for line in checks("--dry-run").stdout.splitlines():
        if "experiments.benchmark" in line:
            for word in shlex.split(line):
                assert not word.startswith("--") or f'"{word}"' in source, word


def test_steps_can_be_chosen_and_unknown_ones_are_refused(checks):
    assert checks("--dry-run", "memory").stdout.startswith("memory: timeout")
    done = checks("memroy")
    assert done.returncode == 1 and "unknown argument 'memroy'; there are" in done.stderr


def test_without_a_gpu_nothing_is_run(checks, tmp_path):
    nowhere = tmp_path / "bin"
    nowhere.mkdir()
    for name in ("bash", "dirname", "sed", "tr"):
        (nowhere / name).symlink_to(str(shutil.which(name)))
    done = checks(PATH=str(nowhere), OUT=str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr == "gpu_checks.sh: nvidia-smi finds no GPU here; nothing was run\n"
    assert not (tmp_path / "out").exists()
