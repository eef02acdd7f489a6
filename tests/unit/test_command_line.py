"""How programs end: one message and a status, whatever happened."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from clouds_jax.command_line import one_line_errors


def ended(capsys, error, **options):
    """The words of a program that raised an error."""
    with pytest.raises(SystemExit) as caught, one_line_errors("name", **options):
        raise error
    return caught.value.code


def test_an_error_of_ours_is_its_message(capsys):
    assert ended(capsys, ValueError("bad value")) == "name: bad value"
    assert ended(capsys, KeyError("no such key")) == "name: no such key"
    assert ended(capsys, FloatingPointError("loss became nan")) == "name: loss became nan"


def test_of_a_librarys_error_the_traceback_goes_to_a_file(capsys, tmp_path):
    with pytest.raises(SystemExit) as caught, one_line_errors("name", log=tmp_path / "e.txt"):
        json.loads("{")
    text = str(caught.value.code)
    assert text.startswith("name: Expecting property name")
    assert text.endswith(f"(where it happened: {tmp_path / 'e.txt'})")
    assert "Traceback (most recent call last)" in (tmp_path / "e.txt").read_text()


def test_thousands_of_lines_become_a_few(capsys, tmp_path):
    text = ended(capsys, RuntimeError("\n".join("x" * 5_000 for _ in range(2_000))),
                 log=tmp_path / "e.txt")  # fmt: skip
    assert len(text.splitlines()) <= 20 and len(text) < 20_000
    assert "RuntimeError: xxx" in text and "more lines)" in text
    assert len((tmp_path / "e.txt").read_text()) > 5_000 * 2_000


def test_where_nothing_can_be_written_the_message_comes_all_the_same(capsys, tmp_path):
    text = ended(capsys, RuntimeError("disk full"), log=tmp_path / "none" / "e.txt")
    assert text == "name: RuntimeError: disk full"


@pytest.mark.parametrize(
    "number, status, word", [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_an_interrupted_program_cleans_up_and_says_so(number, status, word, tmp_path):
    script = (
        "import pathlib, sys, time\n"
        "from clouds_jax.command_line import one_line_errors\n"
        "from clouds_jax.files import written_whole\n"
        "with one_line_errors('name'):\n"
        "    with written_whole(pathlib.Path(sys.argv[1])) as temporary:\n"
        "        temporary.write_text('half')\n"
        "        print('writing', flush=True)\n"
        "        time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "file")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "writing\n"
    os.kill(process.pid, number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == status
    assert error.startswith(f"name: stopped by {word}") and len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_handler_of_before_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with one_line_errors("name"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_that_a_callback_swallows_comes_again(tmp_path):
    script = (
        "import gc, time\n"
        "from clouds_jax.command_line import one_line_errors\n"
        "def callback(*_):\n"
        "    print('collecting', flush=True)\n"
        "    time.sleep(2)\n"  # an exception in here is written down and forgotten
        "with one_line_errors('name'):\n"
        "    gc.callbacks.append(callback)\n"
        "    gc.collect()\n"
        "    gc.callbacks.clear()\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "collecting\n"
    os.kill(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 143
    assert error.splitlines()[-1].startswith("name: stopped by SIGTERM")


def test_an_error_that_an_interrupt_became_is_still_an_interrupt():
    with pytest.raises(SystemExit) as caught, one_line_errors("name"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt as error:  # as libraries do
            raise RuntimeError("half read") from error
    assert caught.value.code == 143
