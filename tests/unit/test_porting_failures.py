"""A full disk, a read-only folder, Ctrl-C and SIGTERM: one line, and nothing half-written."""

import contextlib
import errno
import io
import os
import re
import resource
import signal
import subprocess
import sys
import time
import types
import urllib.request

import porting_files
import pytest

from porting.__main__ import main
from porting.conversion import convert
from porting.files.locate import download
from porting.files.write_errors import write_errors_named

STOPS = [
    pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    (signal.SIGTERM, 143),
]
# `python -m porting`, which sends itself a signal or fails at one place
PROGRAM = """
import os, sys
from porting import __main__
{change}
sys.argv[0] = "porting"
__main__._program()
"""
# the conversion is at its twentieth array, and threads of Orbax write the ones before
WHILE_WRITING = """
from porting.conversion import streaming
streaming._BATCH = 1
fill, count = streaming.WeightStream._fill, [0]
def stopped(self, names):
    count[0] += 1
    if count[0] == 20:
        os.kill(os.getpid(), {signal})
    return fill(self, names)
streaming.WeightStream._fill = stopped
"""
TIMED = """
import time
kill, end = os.kill, os._exit
def timed_kill(*args):
    global began
    began = time.monotonic()
    kill(*args)
def timed_end(status):
    print(time.monotonic() - began, flush=True)
    end(status)
os.kill, os._exit = timed_kill, timed_end
"""
WHILE_IMPORTING = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            os.kill(os.getpid(), {signal})
sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def file(tmp_path):
    return porting_files.save(tmp_path / "a.safetensors", porting_files.timm_state())


@contextlib.contextmanager
def full_disk(size):
    """No file may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run_program(change, *args):
    command = [sys.executable, "-c", PROGRAM.format(change=change), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True)


def lines_of(stderr):
    """The lines that are no progress bar."""
    return [line for line in stderr.replace("\r", "\n").splitlines() if line and "it/s" not in line
            and "%|" not in line]  # fmt: skip


def test_a_full_disk_ends_a_conversion_in_one_line(tmp_path, file):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    done = run_program(limit, "convert", file, "--output", tmp_path / "w")
    assert done.returncode == 1
    assert lines_of(done.stderr) == [
        f"error: {tmp_path / 'w'} cannot be written: {os.strerror(errno.EFBIG)}. Free some space"
        " or choose another folder, then run again."
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_disk_too_small_for_the_weights_is_told_before_they_are_written(
    tmp_path, file, monkeypatch, capsys
):
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=9_999))
    assert main(["convert", file, "--output", str(tmp_path / "w")]) == 1
    error = capsys.readouterr().err
    assert re.search(r"w needs 12\d,\d{3} bytes, its disk has 9,999 free; free some space", error)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    file = porting_files.save(folder / "a.safetensors", porting_files.timm_state())
    assert main(["convert", file, "--output", str(folder / "w")]) == 0
    return str(folder / "w")


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth", "bin"])
def test_a_full_disk_ends_invert_in_one_line(tmp_path, weights, capsys, ending):
    if ending in ("pth", "bin"):
        pytest.importorskip("torch")
    output = tmp_path / f"b.{ending}"
    output.write_text("as it was")
    with full_disk(60_000):
        assert main(["invert", weights, "--output", str(output), "--force"]) == 1
    error = capsys.readouterr().err
    assert f"error: {output} cannot be written: {os.strerror(errno.EFBIG)}. Free some" in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    assert output.read_text() == "as it was"


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth"])
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_becomes_read_only_ends_invert_in_one_line(
    tmp_path, weights, capsys, monkeypatch, ending, number
):
    """The check before the work passes; then opening the new file fails, also inside a library."""
    if ending == "pth":
        pytest.importorskip("torch")
    import safetensors.numpy

    def refuse():
        raise OSError(number, os.strerror(number))

    def refuse_in_rust(*args, **kwargs):
        raise safetensors.SafetensorError(f"I/O error: {os.strerror(number)} (os error {number})")

    opened = type(tmp_path).open

    def opening(self, mode="r", *args, **kwargs):
        return refuse() if mode == "wb" else opened(self, mode, *args, **kwargs)

    monkeypatch.setattr(safetensors.numpy, "save_file", refuse_in_rust)
    monkeypatch.setattr(type(tmp_path), "open", opening)
    output = tmp_path / f"b.{ending}"
    assert main(["invert", weights, "--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert f"{output} cannot be written: {os.strerror(number)}" in error
    assert len(error.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_read_only_folder_is_refused_before_the_work(tmp_path, weights, monkeypatch, capsys):
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(type(tmp_path), "touch", refuse)
    output = tmp_path / "b.npz"
    assert main(["invert", weights, "--output", str(output)]) == 1
    expected = f"error: {output} cannot be written: {os.strerror(errno.EROFS)}; choose another"
    assert expected in capsys.readouterr().err


def test_a_full_disk_ends_a_download_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDS_CACHE", str(tmp_path))

    class Response(io.BytesIO):
        headers: dict[str, str] = {}

    content = Response(bytes(1 << 18))
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: content)
    with full_disk(1 << 17), pytest.raises(OSError, match=r"a\.pth cannot be written"):
        download("https://host/a.pth", name="a.pth")
    assert not list(tmp_path.iterdir())


def chained():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("PytorchStreamWriter failed writing file data/0") from None
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "error, number",
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (ValueError("OUT_OF_RANGE: Error writing [os_error_code='27'] [x='y']"), errno.EFBIG),
        (RuntimeError('IoError(Os { code: 30, message: "Read-only file system" })'), errno.EROFS),
        (chained(), errno.ENOSPC),
        (ValueError("dtype is 'int3'"), None),
        (OSError("our own text: No space left on device"), None),
        (OSError(errno.ENOENT, "No such file or directory"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_errors_of_the_disk_are_named_as_such(tmp_path, error, number):
    with pytest.raises(Exception) as raised, write_errors_named(tmp_path / "w"):
        raise error
    if number is None:
        assert raised.value is error
    else:
        assert isinstance(raised.value, OSError)
        text = str(raised.value)
        assert text.startswith(f"{tmp_path / 'w'} cannot be written: {os.strerror(number)}. Free")


@pytest.mark.parametrize("number, status", STOPS)
def test_a_stopped_conversion_ends_soon_with_one_line_and_leaves_nothing(
    tmp_path, file, number, status
):
    # the time from the signal to the end, which the program prints
    change = WHILE_WRITING.format(signal=int(number)) + TIMED
    done = run_program(change, "convert", file, "--output", tmp_path / "w")
    assert done.returncode == status
    assert float(done.stdout.splitlines()[-1]) < 5
    (line,) = lines_of(done.stderr)
    assert line.startswith("porting: stopped by ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("number, status", STOPS)
def test_a_program_that_is_stopped_while_it_imports_ends_with_one_line(
    tmp_path, file, number, status
):
    began = time.monotonic()
    change = WHILE_IMPORTING.format(signal=int(number))
    done = run_program(change, "convert", file, "--output", tmp_path / "w")
    assert done.returncode == status
    assert lines_of(done.stderr) == [f"porting: stopped by {number.name}."]
    assert time.monotonic() - began < 30 and not (tmp_path / "w").exists()
