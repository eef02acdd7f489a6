"""Runs a program as a child that is asked to end, and not cut off, when its parent is."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

_ON_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of Linux' prctl
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def supervise(command: Sequence[str], cwd: Path) -> int:
    """Runs a command and returns its status as a shell does: 128 + N after signal N.

    SIGTERM and Ctrl-C reach the command once each, and it may take its time to end. It is in a
    process group of its own, since a terminal would send it Ctrl-C beside us. Where this process is
    killed, the command gets SIGTERM.

    Args:
        command: program and arguments.
        cwd: folder to run in.
    """
    parent, received = os.getpid(), []

    def ends_with_parent() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_ON_PARENTS_DEATH, signal.SIGTERM)
            if os.getppid() != parent:  # killed before the line above
                os.kill(os.getpid(), signal.SIGTERM)

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if child is not None:
            child.send_signal(number)

    child: subprocess.Popen | None = None
    before = {s: signal.signal(s, pass_on) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        child = subprocess.Popen(command, cwd=cwd, process_group=0, preexec_fn=ends_with_parent)
        for number in received:  # before there was a child
            child.send_signal(number)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code == 0 and received:  # it had just ended, but we are to end too
        return 128 + received[0]
    return code if code >= 0 else 128 - code
