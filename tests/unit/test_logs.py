"""Lines, windows, timing and tables of a run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run

from clouds_jax.files import read_json_lines
from clouds_jax.training import logs


def writer(folder, step=0, **options):
    return logs.MetricsWriter(folder, step=step, config={}, **options)


def test_a_resumed_run_keeps_whole_lines_up_to_its_step(tmp_path):
    first = writer(tmp_path)
    for step in (1, 2, 3):
        first.write(step, {"loss": step / 2})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    second = writer(tmp_path, step=2)
    second.write(3, {"loss": 9.0})
    second.close()
    lines = read_json_lines(tmp_path / "metrics.jsonl")
    assert lines == [
        {"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 9.0},
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_the_best_value_and_its_first_step_are_kept(tmp_path):
    out = writer(tmp_path)
    for step, miou in ((10, 0.3), (20, 0.5), (30, 0.5)):
        out.write(step, {"miou": miou})
        best = out.best("miou")
    assert best == {"step": 20, "value": 0.5}
    out.write(30, {"other": 1.0})
    out.best("other")
    saved = json.loads((tmp_path / "best.json").read_text())
    assert saved == {"miou": {"step": 20, "value": 0.5}, "other": {"step": 30, "value": 1.0}}
    assert out.has(20, "miou") and not out.has(20, "other") and not out.has(5, "miou")
    out.close()


def test_tensorboard_files_are_written_when_asked(tmp_path):
    out = writer(tmp_path, tensorboard=True)
    out.write(1, {"loss": 1.0})
    out.close()
    assert [p for p in (tmp_path / "tensorboard").iterdir() if p.stat().st_size]


def test_wandb_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ImportError, match=r"pip install clouds-jax\[wandb\]"):
        writer(tmp_path, wandb={"project": "p", "name": ""})


def test_a_window_taken_up_again_gives_the_mean_of_the_whole():
    straight, first = logs.Window(), logs.Window()
    values = [0.1, 0.7, 1 / 3]
    for value in values:
        straight.add({"loss": np.float32(value)})
    first.add({"loss": np.float32(values[0])})
    second = logs.Window(json.loads(json.dumps(first.state())))
    for value in values[1:]:
        second.add({"loss": np.float32(value)})
    assert second.mean() == straight.mean()


def test_progress_counts_images_time_left_and_waiting(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(logs.time, "perf_counter", lambda: now[0])
    progress = logs.Progress(steps=50, images=8)
    progress.start(10)
    now[0] += 30.0
    progress.pause(10.0)
    progress.wait(5.0)
    timing = progress.read(20)
    assert timing["images_per_s"] == 10 * 8 / 20
    assert timing["seconds_left"] == 30 * 2
    assert timing["waiting_for_data"] == 0.25
    now[0] += 1.0
    assert progress.read(21)["waiting_for_data"] == 0
    line = progress.line(20, {"loss": 1.5, "lr": 1e-5}, timing)
    assert "step 20/50  loss 1.5000  lr 1.00e-05  4.0 images/s  ETA 0:01:00" in line
    assert "waiting for data 25%" in line


@pytest.mark.parametrize("seconds, text", [(0, "0:00:00"), (59.6, "0:01:00"), (7_322, "2:02:02")])
def test_seconds_read_as_a_clock(seconds, text):
    assert logs.clock(seconds) == text


def test_the_parameter_table_tells_shapes_means_and_parts():
    _, state, _, _ = small_run.make()
    frozen = jax.tree.map(jnp.ones_like, state.frozen)
    table = logs.parameter_table({"trained": state.params, "frozen": frozen}).splitlines()
    assert table[0] == "parameters: 45 trained, 392 frozen"
    row = next(line for line in table if line.startswith("encoder.conv.kernel"))
    assert row.split() == [
        "encoder.conv.kernel",
        "(4,",
        "4,",
        "3,",
        "8)",
        "+1",
        "0",
        "P()",
        "frozen",
    ]


def test_the_banner_names_the_versions_and_devices():
    banner = logs.banner()
    assert f"jax {jax.__version__}" in banner and "2 x cpu" in banner
