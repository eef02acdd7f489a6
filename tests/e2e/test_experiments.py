"""The launcher of tables: a row in debug mode, from training to the printed table."""

import json
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.e2e


@pytest.mark.slow
def test_a_row_is_trained_scored_and_shown_and_the_others_are_not_run(program, tmp_path):
    arguments = ["experiments.run", "table_camvid", "--debug", f"--workdir={tmp_path}"]
    done = program(*arguments, "--row", "FPN head")
    assert done.returncode == 0, done.stderr
    results = tmp_path / "debug" / "results" / "table_camvid"
    record = json.loads((results / "fpn_head.json").read_text())
    assert record["config"] == "configs/warmup_camvid_fpn.py:debug"
    assert 0 <= record["results"]["fake/train"]["miou"] <= 1
    assert (results / "curves.png").stat().st_size > 0
    rows = (results / "table.md").read_text().splitlines()
    (missing,) = [row for row in rows if row.startswith("| Mask2Former head")]
    assert missing.count("not run") == 3


@pytest.mark.slow
def test_a_row_of_the_joint_phase_runs_its_warm_up_first(program, tmp_path):
    arguments = ["experiments.run", "table_gta", "--debug", f"--workdir={tmp_path}"]
    done = program(*arguments, "--row", "CLOUDS, ResNet-50 CLIP")
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "debug" / "rows"
    assert {run.name for run in runs.iterdir()} == {"warmup_gta_r50", "joint_gta_r50"}
    joint = json.loads((runs / "joint_gta_r50" / "seed0" / "config.json").read_text())
    assert joint["init_from"] == str(runs / "warmup_gta_r50" / "seed0")
    assert joint["selftrain"]["enabled"]
    assert "published" in done.stdout and "54.6 / 46.7 / 58.6 / 53.3" in done.stdout

    again = program(*arguments, "--row", "CLOUDS, ResNet-50 CLIP")
    assert again.returncode == 0 and "clouds_jax.train" not in again.stdout


@pytest.mark.slow
def test_a_row_stopped_on_the_way_is_no_result_and_the_next_call_finishes_it(root, tmp_path):
    command = [sys.executable, "-m", "experiments.run", "table_camvid", "--debug",
               f"--workdir={tmp_path}", "--row", "FPN head"]  # fmt: skip
    rows = tmp_path / "debug" / "rows"
    driver = subprocess.Popen(command, cwd=root, text=True, stderr=subprocess.PIPE)
    until = time.monotonic() + 300
    while not list(rows.rglob("config.json")):  # it compiles its first step now
        assert driver.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    driver.send_signal(signal.SIGINT)
    _, told = driver.communicate(timeout=120)
    assert driver.returncode == 75, told
    assert "Traceback" not in told
    results = tmp_path / "debug" / "results" / "table_camvid" / "fpn_head.json"
    assert not results.exists() and not list(rows.rglob("trained"))
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    assert 0 <= json.loads(results.read_text())["results"]["fake/train"]["miou"] <= 1
    assert list(rows.rglob("trained"))


def test_an_unknown_table_is_answered_with_the_known_ones(program):
    done = program("experiments.run", "table_none")
    assert done.returncode == 2
    assert (
        "there is no table 'table_none'; there are: figure_images, figure_overview," in done.stderr
    )
