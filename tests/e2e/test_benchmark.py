"""The benchmark in small: rows are compared, timed, and written as table, JSON and picture."""

import json

import pytest

from experiments.benchmark.report import roofline

pytestmark = pytest.mark.e2e
pytest.importorskip("torch")
ROWS = ("deform", "depthwise", "components", "refinement", "evaluation", "joint_stored")
UNCOMPARED = {"evaluation", "joint, stored"}  # of random weights the class maps say nothing


@pytest.mark.slow
def test_rows_are_compared_and_timed(program, tmp_path):
    done = program(
        "experiments.benchmark", *ROWS, "--small", "--rounds=2", f"--output={tmp_path / 'out'}"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out/results.json").read_text())
    about = found["about"]
    assert about["small"] and about["matmul_tflops"] > 0 and about["copy_gb_s"] > 0
    names = {row["name"].split(":")[0] for row in found["rows"]}
    assert names == {*ROWS} - {"joint_stored"} | {"joint, stored"}
    for row in found["rows"]:
        assert "not_run" not in row, row
        assert len(row["jax"]) == len(row["torch"]) == 2 and row["ratio"] > 0
        assert row["error"] is None or row["error"] <= 1e-3
        assert row["bytes"] is None or 0 < roofline(about, row) < 1
        assert (row["error"] is None) == (row["name"].split(":")[0] in UNCOMPARED)
    table = (tmp_path / "out/table.md").read_text()
    assert "| refinement: 1 x 96x64" in table
    assert (tmp_path / "out/ratios.png").stat().st_size > 0


def test_an_unknown_row_is_answered_with_the_known_ones(program):
    done = program("experiments.benchmark", "nothing")
    assert done.returncode == 2 and "there is no row nothing; there are: depthwise" in done.stderr
