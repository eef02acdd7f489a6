"""Ctrl-C and SIGTERM during a build: one line, soon, and nothing half-written."""

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from clouds_jax.data.build import __main__ as program
from clouds_jax.data.build import jobs, workspace

PATIENCE = 60.0  # seconds until a build must have begun
COUNT = 6_000  # rectangles: many seconds


def command(output, workers, count=COUNT):
    return [sys.executable, "-m", "clouds_jax.data.build", "fake", "--count", str(count),
            "--shards", "6", "--workers", str(workers), "--output", str(output)]  # fmt: skip


@pytest.mark.parametrize(
    "number, status, whole_group",
    [
        (signal.SIGINT, 130, True),  # as a terminal sends it
        (signal.SIGTERM, 143, False),  # as kill and schedulers send it
        (signal.SIGTERM, 143, True),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_build_ends_soon_with_one_line(
    tmp_path, root, number, status, whole_group, workers
):
    process = subprocess.Popen(
        command(tmp_path, workers), cwd=root, stderr=subprocess.PIPE, start_new_session=True
    )
    hidden, limit = tmp_path / "fake/.train.building", time.monotonic() + PATIENCE
    while not list(hidden.glob(".train-*.tmp")):  # a shard is being written
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    start = time.monotonic()
    (os.killpg if whole_group else os.kill)(process.pid, number)
    _, printed = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - start < 5
    assert process.returncode == status
    (line,) = printed.decode().splitlines()
    assert line.startswith("build: interrupted; ")
    assert line.endswith(
        f" of 6 shards are finished, in {hidden}. The same command goes on from there."
    )
    finished = int(line.split()[2])
    assert workspace.progress(tmp_path / "fake", "train") == (finished, 6)
    assert len(list(hidden.glob("*.array_record"))) == finished
    assert not list(hidden.glob(".*.tmp")) and not list((tmp_path / "fake").glob("train*"))
    assert ends(process.pid)  # no worker is left


def ends(group):
    """Whether a group of processes has ended, soon."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_signal_waits_for_the_end_of_an_image_and_a_second_one_does_not():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), jobs._signals_deferred() as check:
        check()
        os.kill(os.getpid(), signal.SIGINT)
        done = "the image"
        check()
    assert done == "the image"
    with pytest.raises(KeyboardInterrupt), jobs._signals_deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        done = "more"
    assert done == "the image"
    with pytest.raises(KeyboardInterrupt), jobs._signals_deferred():
        os.kill(os.getpid(), signal.SIGINT)  # after the last image
    assert signal.getsignal(signal.SIGINT) is before


def test_a_build_in_another_thread_leaves_signals_alone():
    before = signal.getsignal(signal.SIGINT)

    def work():
        with jobs._signals_deferred() as check:
            assert signal.getsignal(signal.SIGINT) is before
            check()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def test_nothing_is_told_of_a_build_that_did_not_begin(tmp_path):
    assert workspace.progress(tmp_path, "train") is None


def test_an_interruption_after_the_last_shard_says_that_all_is_there(tmp_path, monkeypatch, capsys):
    program.main(command(tmp_path, 1, count=6)[3:])

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "build", interrupt)
    with pytest.raises(SystemExit) as end:
        program.main(command(tmp_path, 1, count=6)[3:])
    assert end.value.code == 130
    assert "interrupted when all shards were in place" in capsys.readouterr().err


def test_a_worker_that_does_not_stop_is_killed(monkeypatch):
    monkeypatch.setattr(jobs, "_GRACE", 0.1)
    worker = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    worker.start()
    jobs._end([worker])
    worker.join(10)
    assert worker.exitcode == -signal.SIGKILL
