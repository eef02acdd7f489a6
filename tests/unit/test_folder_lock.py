"""One program at a time in a folder: who holds it is named, who died is replaced."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from clouds_jax import folder_lock
from clouds_jax.folder_lock import NAME, locked

HOLD = """
import sys, time, pathlib
from clouds_jax.folder_lock import locked
with locked(pathlib.Path(sys.argv[1]), "train"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout and child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


def test_a_held_folder_is_refused_and_the_holder_named(tmp_path, holder):
    with pytest.raises(ValueError, match=f"in use by train, process {holder.pid} on"):
        with locked(tmp_path, "train"):
            pass
    assert (tmp_path / NAME).exists()


def test_a_killed_holder_is_replaced(tmp_path, holder, capsys):
    holder.kill()
    holder.wait()
    with locked(tmp_path, "train"):
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
    assert f"process {holder.pid}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_number_that_came_again_is_another_process(tmp_path):
    content = folder_lock._holder("train") | {"born": "1"}
    (tmp_path / NAME).write_text(json.dumps(content))
    with locked(tmp_path, "train"):
        pass


@pytest.mark.parametrize("content", [{"host": "elsewhere"}, {}])
def test_on_another_host_only_silence_is_death(tmp_path, content):
    whole = folder_lock._holder("build") | content if content else None
    path = tmp_path / NAME
    path.write_text(json.dumps(whole) if whole else "")
    with pytest.raises(ValueError, match="in use by"), locked(tmp_path, "build"):
        pass
    os.utime(path, (time.time() - 2 * folder_lock.STALE,) * 2)
    with locked(tmp_path, "build"):
        pass
    assert not list(tmp_path.iterdir())


def test_the_holder_shows_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "BEAT", 0.01)
    with locked(tmp_path, "train"):
        os.utime(tmp_path / NAME, (0, 0))
        time.sleep(0.2)
        assert (tmp_path / NAME).stat().st_mtime > 0


def test_patience_outlasts_a_holder_that_ends(tmp_path, holder):
    threading.Timer(0.5, holder.kill).start()
    threading.Timer(0.6, holder.wait).start()
    with locked(tmp_path, "train", patience=20.0):
        pass


def test_only_one_of_many_takes_a_dead_holders_place(tmp_path, holder):
    holder.kill()
    holder.wait()
    inside, most = [], []

    def work():
        with locked(tmp_path, "train", patience=20.0):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
