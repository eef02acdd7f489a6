"""The faults: each runs a command, disturbs it, and returns its status and its last words."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from programs import ROOT

# These run a command after they took something from their own process.
_LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))  # bytes per file
os.execv(sys.argv[1], sys.argv[1:])
"""
_UNPRIVILEGED = """
import ctypes, os, sys
if os.getuid() == 0:
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: to write anywhere
        ctypes.CDLL(None).prctl(24, capability)  # PR_CAPBSET_DROP
os.execv(sys.argv[1], sys.argv[1:])
"""

Run = Callable[[Sequence[str], Path, dict[str, str], float], tuple[int, str]]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        name: its name in the table.
        run: (command, output folder, environment, moment in seconds) -> status, stderr.
        allows: (status, statuses of a stopped program) -> whether the status is right.
        random: comes at a random moment, and is tried several times.
        training: strikes the training that the program has started.
    """

    name: str
    run: Run
    allows: Callable[[int, tuple[int, ...]], bool]
    random: bool = False
    training: bool = False


def _start(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def _signalled(number: signal.Signals) -> Run:
    def run(
        command: Sequence[str], out: Path, environment: dict[str, str], moment: float
    ) -> tuple[int, str]:
        process = _start(command, environment)
        try:
            _, error = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            try:
                _, error = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                _, error = process.communicate()
                return -1, f"still running 60 s after {number.name}\n{error}"
        return process.returncode, error

    return run


def _training_of(driver: int) -> int | None:
    """The training that a program has started, itself or through another one."""

    def status(process: Path) -> tuple[int, bytes]:
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            return int(fields[1]), (process / "cmdline").read_bytes()
        return 0, b""

    found = {int(p.name): status(p) for p in Path("/proc").iterdir() if p.name.isdigit()}
    for number, (parent, command) in found.items():
        while b"clouds_jax.train" in command and parent > 1:
            if parent == driver:
                return number
            parent = found.get(parent, (0, b""))[0]
    return None


def _training_signalled(number: signal.Signals) -> Run:
    def run(
        command: Sequence[str], out: Path, environment: dict[str, str], moment: float
    ) -> tuple[int, str]:
        process = _start(command, environment)
        time.sleep(moment)
        while process.poll() is None:
            if (training := _training_of(process.pid)) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(training, number)
                break
            time.sleep(0.05)
        _, error = process.communicate(timeout=300)
        return process.returncode, error

    return run


def _full_disk(
    command: Sequence[str], out: Path, environment: dict[str, str], moment: float
) -> tuple[int, str]:
    """No file may grow: every larger write fails, as on a full disk."""

    process = _start([sys.executable, "-c", _LIMITED, *command], environment)
    _, error = process.communicate(timeout=300)
    return process.returncode, error


def _read_only(
    command: Sequence[str], out: Path, environment: dict[str, str], moment: float
) -> tuple[int, str]:
    """The output folder may not be written, not even by root."""

    folders = [out, *(path for path in out.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        process = _start([sys.executable, "-c", _UNPRIVILEGED, *command], environment)
        _, error = process.communicate(timeout=300)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    return process.returncode, error


def _two_at_once(
    command: Sequence[str], out: Path, environment: dict[str, str], moment: float
) -> tuple[int, str]:
    """The same command twice: both may end well, or one is told that the folder is in use."""
    pair = [_start(command, environment) for _ in range(2)]
    ends = [(p.communicate(timeout=300)[1], p.returncode) for p in pair]
    failed = [(error, status) for error, status in ends if status]
    if len(failed) == 2:
        return -1, f"both failed:\n{failed[0][0]}\n{failed[1][0]}"
    return (failed[0][1], failed[0][0]) if failed else (0, "")


FAULTS = (
    Fault("kill -9", _signalled(signal.SIGKILL), lambda s, stopped: s in (0, -9), random=True),
    # -15, -2: while it imports or exits, when it does not handle signals
    Fault(
        "SIGTERM",
        _signalled(signal.SIGTERM),
        lambda s, stopped: s in (0, -15, *stopped),
        random=True,
    ),
    Fault(
        "Ctrl-C",
        _signalled(signal.SIGINT),
        lambda s, stopped: s in (0, -2, *stopped),
        random=True,
    ),
    Fault(
        "kill -9 of the training",
        _training_signalled(signal.SIGKILL),
        lambda s, stopped: s in (0, 1, 137),  # 137: as a shell says it
        random=True,
        training=True,
    ),
    Fault(
        "SIGTERM to the training",
        _training_signalled(signal.SIGTERM),
        lambda s, stopped: s in (0, 1, *stopped),
        random=True,
        training=True,
    ),
    Fault("full disk", _full_disk, lambda s, stopped: s == 1),
    Fault("read-only", _read_only, lambda s, stopped: s == 1),
    Fault("two at once", _two_at_once, lambda s, stopped: s in (0, 1)),
)
