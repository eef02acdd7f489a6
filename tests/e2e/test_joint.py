"""The joint phase from the command line: it runs, is killed, goes on with its teacher."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from runs import check_same, metrics, saved

from clouds_jax.images import read_image
from clouds_jax.visual.labels import panels_width

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CONFIG = "--config=configs/joint_gta.py:debug"
SHORT = (
    "--config.steps=4",
    "--config.checkpoint_every=2",
    "--config.log_every=2",
    "--config.evals={'fake/train': 4}",
)


@pytest.fixture(scope="module")
def straight(program, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("straight")
    done = program("clouds_jax.train", CONFIG, *SHORT, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def test_what_became_of_the_labels_is_in_the_metrics(straight):
    lines = [line for line in metrics(straight) if "loss" in line]
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        shares = [line[f"pseudo/{name}"] for name in ("confirmed", "changed", "dropped")]
        np.testing.assert_allclose(sum(shares), 1, atol=1e-5)
        assert 0 <= line["pseudo/agreement"] <= 1


def test_what_became_of_generated_images_is_drawn(straight):
    picture = read_image(straight / "eval" / "0000004" / "generated_panels.png")
    assert picture.shape[1] == panels_width(6)  # SAM's steps and the student beside the image
    assert not (straight / "eval" / "0000002").exists()


def test_the_teacher_is_saved_and_is_not_the_student(straight):
    tree = saved(straight, 4)
    teacher = {name: leaf for name, leaf in tree.items() if "teacher" in name}
    student = {name: tree[name.replace("teacher", "params", 1)] for name in teacher}
    assert len(teacher) > 100
    assert any((leaf != student[name]).any() for name, leaf in teacher.items())


def test_a_joint_run_is_scored_without_sam(program, straight, tmp_path):
    done = program(
        "clouds_jax.evaluate", f"--workdir={straight}", "--datasets=fake/train", "--limit=1",
        "--protocol=native", f"--shards={straight / 'shards'}", f"--output={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results.json").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits_teacher_included(root, straight, tmp_path, program):
    # a checkpoint is complete when the next one is begun
    often = "--config.checkpoint_every=1"
    arguments = [CONFIG, *SHORT, often, f"--workdir={tmp_path}"]
    script = root / "tests" / "e2e" / "train_killed.py"
    killed = subprocess.run(
        [sys.executable, script, "running", "3", *arguments],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = program("clouds_jax.train", *arguments)
    assert done.returncode == 0, done.stderr
    assert "goes on from step" in done.stderr
    check_same(tmp_path, straight, 4)


def test_a_joint_phase_without_a_warm_up_is_refused(program, tmp_path):
    done = program(
        "clouds_jax.train", "--config=configs/joint_streets.py", "--config.init_from=",
        f"--workdir={tmp_path}",
    )  # fmt: skip
    assert done.returncode != 0
    assert "config.init_from is empty" in done.stderr
    assert not list(tmp_path.iterdir())
