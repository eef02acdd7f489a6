"""A driver passes signals on, waits for its program, and takes it along when it dies."""

import os
import signal
import subprocess
import sys
import time

import pytest

# ends half a second after it was asked to, with a status of its own, like a training that saves
CHILD = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
asked = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: asked.append(1))
(folder / "started").touch()
while not asked:
    time.sleep(0.02)
time.sleep(0.5)
(folder / "saved").write_text(str(len(asked)))
sys.exit(75)
"""
DRIVER = """
import pathlib, sys
from experiments.supervise import supervise
sys.exit(supervise([sys.executable, "-c", *sys.argv[1:]], pathlib.Path.cwd()))
"""


@pytest.fixture
def driver(root, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, CHILD, str(tmp_path)], cwd=root, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    until = time.time() + 60
    while not (tmp_path / "started").exists():
        assert process.poll() is None and time.time() < until
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_program_once_and_it_may_finish(driver, tmp_path, number):
    os.killpg(driver.pid, number)  # as a terminal does
    assert driver.wait(timeout=30) == 75
    assert (tmp_path / "saved").read_text() == "1"


def test_a_killed_driver_leaves_no_program_behind(driver, tmp_path):
    driver.kill()
    until = time.time() + 30
    while not (tmp_path / "saved").exists():
        assert time.time() < until
        time.sleep(0.05)


def test_a_program_killed_by_a_signal_has_the_status_of_a_shell(root):
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    done = subprocess.run([sys.executable, "-c", DRIVER, *command[2:]], cwd=root)
    assert done.returncode == 128 + signal.SIGKILL
