"""The training program from the command line: runs, is killed, goes on, refuses."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from runs import check_same, metrics

from clouds_jax import command_line, folder_lock
from clouds_jax.files import read_json_lines

pytestmark = pytest.mark.e2e

CONFIG = "--config=configs/warmup_gta.py:debug"
# Lines and checkpoints at different steps, so that a kill falls into the middle of a window.
SHORT = ("--config.steps=6", "--config.checkpoint_every=2", "--config.log_every=3")
TERMS = 3 * 4  # class, mask and dice loss of the queries and of three layers


@pytest.fixture(scope="module")
def straight(program, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    done = program("clouds_jax.train", CONFIG, *SHORT, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir, done.stderr


def test_a_run_writes_what_it_did(straight):
    workdir, log = straight
    names = {p.name for p in workdir.iterdir()}
    assert {"config.json", "run.txt", "metrics.jsonl", "best.json", "checkpoints"} <= names
    assert json.loads((workdir / "config.json").read_text())["steps"] == 6
    lines = metrics(workdir)
    assert [line["step"] for line in lines if "loss" in line] == [3, 6]
    assert [line["step"] for line in lines if "eval/fake/train/miou" in line] == [2, 4, 6]
    last = [line for line in lines if "loss" in line][-1]
    terms = {k: v for k, v in last.items() if k.startswith("loss_")}
    assert len(terms) == TERMS
    np.testing.assert_allclose(sum(terms.values()), last["loss"], rtol=1e-5)
    assert np.isfinite(last["loss"]) and last["grad_norm"] > 0
    assert (workdir / "run.txt").read_text().count("head.transformer_decoder") > 10
    assert "images/s  ETA" in log and "waiting for data" in log
    best = json.loads((workdir / "best.json").read_text())["eval/fake/train/miou"]["step"]
    assert {int(p.name) for p in (workdir / "checkpoints").iterdir()} == {best, 4, 6}


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(
            (("saving", 4),), marks=pytest.mark.slow
        ),  # while a checkpoint is being written
        pytest.param((("saving", 2), ("running", 5)), marks=pytest.mark.slow),  # there, after one
        pytest.param((("running", 1), ("saving", 6)), marks=pytest.mark.slow),  # at both ends
    ],
)
def test_a_run_killed_again_and_again_equals_the_straight_one(
    root, straight, tmp_path, program, kills
):
    script = root / "tests" / "e2e" / "train_killed.py"
    arguments = [CONFIG, *SHORT, f"--workdir={tmp_path}"]
    for moment, step in kills:
        killed = subprocess.run(
            [sys.executable, script, moment, str(step), *arguments],
            cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True,
        )  # fmt: skip
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = program("clouds_jax.train", *arguments)
    assert done.returncode == 0, done.stderr
    check_same(tmp_path, straight[0], 6)


@pytest.mark.slow
def test_what_fails_after_a_save_does_not_lose_the_checkpoint(root, straight, tmp_path, program):
    script = root / "tests" / "e2e" / "train_killed.py"
    arguments = [CONFIG, *SHORT, f"--workdir={tmp_path}"]
    failed = subprocess.run(
        [sys.executable, script, "scoring", "4", *arguments],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert failed.returncode == 1
    assert "train: JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "Traceback" in (tmp_path / "error.txt").read_text()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]
    done = program("clouds_jax.train", *arguments)
    assert done.returncode == 0 and "goes on from step 4" in done.stderr
    check_same(tmp_path, straight[0], 6)


@pytest.mark.slow  # it waits a while for the first one
def test_a_second_training_in_the_folder_is_refused(program, tmp_path):
    with folder_lock.locked(tmp_path, "train"):
        done = program("clouds_jax.train", CONFIG, *SHORT, f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert f"{tmp_path} is in use by train, process {os.getpid()} on" in done.stderr
    assert not (tmp_path / "checkpoints").exists()


def test_a_finished_run_started_again_changes_nothing(straight, program):
    before = metrics(straight[0])
    done = program("clouds_jax.train", CONFIG, *SHORT, f"--workdir={straight[0]}")
    assert done.returncode == 0, done.stderr
    assert "goes on from step 6" in done.stderr
    assert metrics(straight[0]) == before


def test_a_run_asked_to_stop_saves_and_says_that_it_is_not_done(root, tmp_path):
    command = [
        sys.executable, "-m", "clouds_jax.train", CONFIG, "--config.steps=1000000",
        "--config.checkpoint_every=1000000", "--config.eval.enabled=False", f"--workdir={tmp_path}",
    ]  # fmt: skip
    run = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
    try:
        while not read_json_lines(tmp_path / "metrics.jsonl"):
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.2)
        run.send_signal(signal.SIGTERM)
        _, log = run.communicate(timeout=120)
    finally:
        run.kill()
    assert run.returncode == command_line.STOPPED, log
    assert "asked to stop: saved step" in log
    (step,) = (int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert metrics(tmp_path)[-1]["step"] <= step


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config.optimizer.lrr=1"], 'Did you mean "lr"'),
        (["--config.encoder.name=convnext_big"], "ENCODERS has no 'convnext_big'; it has: "),
        (["--config.data.crop=(64, 50)"], "must be multiples of 32"),
    ],
)
def test_a_wrong_setting_is_one_clear_error_and_leaves_nothing(
    program, tmp_path, arguments, message
):
    done = program("clouds_jax.train", CONFIG, *arguments, f"--workdir={tmp_path}/run")
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    left = list((tmp_path / "run").iterdir()) if (tmp_path / "run").exists() else []
    assert [p.name for p in left] in ([], ["error.txt"])


def test_a_run_of_another_config_is_refused(program, straight):
    before = {p: p.stat().st_mtime_ns for p in straight[0].rglob("*.json*")}
    done = program(
        "clouds_jax.train", CONFIG, *SHORT, "--config.optimizer.lr=0.5", f"--workdir={straight[0]}"
    )
    assert done.returncode == 1
    assert "checkpoints of another config (optimizer.lr 1e-05, now 0.5)" in done.stderr
    assert before == {p: p.stat().st_mtime_ns for p in straight[0].rglob("*.json*")}


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_steps(program, tmp_path):
    done = program(
        "clouds_jax.train", CONFIG, *SHORT, "--config.optimizer.lr=1e38",
        "--config.checkpoint_every=4", "--config.eval.enabled=False", f"--workdir={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 1
    assert "loss became nan between step" in done.stderr
    assert "--config.debug.nans=True" in done.stderr
    assert not any((tmp_path / "checkpoints").iterdir())
