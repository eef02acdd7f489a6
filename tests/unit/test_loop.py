"""When things happen in a run, and how it reads its steps."""

import signal

import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax import runtime
from clouds_jax.files import read_json_lines
from clouds_jax.training import logs, loop

PLAN = loop.Plan(
    steps=10, images=8, log_every=3, checkpoint_every=4, evals={"a/val": 5, "b/val": 7}
)


@pytest.mark.parametrize(
    "step, saves, due",
    [
        (0, True, []),
        (3, False, []),
        (4, True, []),
        (5, False, ["a/val"]),
        (7, False, ["b/val"]),
        (10, True, ["a/val", "b/val"]),
    ],
)
def test_the_plan_says_what_happens_after_a_step(step, saves, due):
    assert PLAN.saves(step) == saves
    assert PLAN.due(step) == due


def reader(folder, done=0):
    progress = logs.Progress(steps=10, images=8)
    writer = logs.MetricsWriter(folder, step=0, config={})
    return loop.Reader(PLAN, writer, progress, logs.Window(), done=done), writer


def metrics(loss, finite=True):
    values = {"loss": loss, "grad_norm": 1.0, "lr": 0.1}
    return {k: jnp.float32(v) for k, v in values.items()} | {"finite": jnp.asarray(finite)}


def test_a_line_is_the_mean_of_its_steps_and_waits_for_the_next_step(tmp_path):
    read, writer = reader(tmp_path)
    for step in (1, 2, 3):
        read.add(step, metrics(float(step)))
    assert not read_json_lines(tmp_path / "metrics.jsonl")
    read.add(4, metrics(9.0))
    (line,) = read_json_lines(tmp_path / "metrics.jsonl")
    assert (line["step"], line["loss"]) == (3, 2.0)
    read.read()
    assert read.window.state() == {
        "steps": 1, "sums": {"loss": 9.0, "grad_norm": 1.0, "lr": float(np.float32(0.1))},
    }  # fmt: skip
    writer.close()


def test_what_is_not_finite_is_named_with_its_steps(tmp_path):
    read, writer = reader(tmp_path, done=4)
    read.add(5, metrics(1.0))
    read.add(6, metrics(np.nan, finite=False))
    message = r"loss became nan between step 5 and 6 \(not finite: loss\)"
    with pytest.raises(FloatingPointError, match=message):
        read.read()
    writer.close()


def test_a_signal_asks_for_the_end_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with loop.stop_on_signal() as stop:
        assert not stop.after(1)
        signal.raise_signal(signal.SIGTERM)
        assert stop.after(2)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_profile_window_records_its_steps_only(tmp_path):
    window = runtime.ProfileWindow(tmp_path, first=2, steps=1)
    for step in (1, 2, 3):
        window.before(step)
        assert (tmp_path / "profile").exists() == (step > 2)
        window.after(step, jnp.zeros(()))
    assert [p for p in (tmp_path / "profile").rglob("*") if p.is_file()]


def test_no_window_records_nothing(tmp_path):
    window = runtime.ProfileWindow(tmp_path, first=1, steps=0)
    window.before(1)
    window.after(1, jnp.zeros(()))
    assert not (tmp_path / "profile").exists()
