"""The launcher of tables: a row in debug mode, from training to the printed table."""

import json

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


def test_an_unknown_table_is_answered_with_the_known_ones(program):
    done = program("experiments.run", "table_none")
    assert done.returncode == 2
    assert (
        "there is no table 'table_none'; there are: figure_images, figure_overview," in done.stderr
    )
