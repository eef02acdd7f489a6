"""The launcher of tables: a row in debug mode, from training to the printed table."""

import json

import pytest

pytestmark = pytest.mark.e2e


def test_a_row_is_trained_scored_and_shown_and_the_others_are_not_run(program, tmp_path):
    arguments = ["experiments.run", "table_camvid", "--debug", f"--workdir={tmp_path}"]
    done = program(*arguments, "--row", "FPN head")
    assert done.returncode == 0, done.stderr
    results = tmp_path / "results_debug" / "table_camvid"
    record = json.loads((results / "fpn_head.json").read_text())
    assert record["config"] == "configs/warmup_camvid_fpn.py:debug"
    assert 0 <= record["results"]["fake/train"]["miou"] <= 1
    assert (results / "curves.png").stat().st_size > 0
    rows = (results / "table.md").read_text().splitlines()
    (missing,) = [row for row in rows if row.startswith("| Mask2Former head")]
    assert missing.count("not run") == 3


def test_an_unknown_table_is_answered_with_the_known_ones(program):
    done = program("experiments.run", "table_none")
    assert done.returncode == 2
    assert "there is no table 'table_none'; there are: table_camvid" in done.stderr
