"""One program at a time in a folder: a lock file that names its holder.

It is a file and not a lock of the operating system, since those do not reach the other hosts of
every shared file system.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = ".in-use.json"
BEAT = 15.0  # seconds from one sign of life to the next
STALE = 150.0  # without a sign of life for so long, a holder on another host is taken for dead


@contextlib.contextmanager
def locked(folder: Path, program: str, *, patience: float = 0) -> Iterator[None]:
    """Holds a folder for this process. A holder that died is replaced, with a word about it.

    Args:
        folder: folder to hold, created where missing.
        program: name of the program, for others' messages.
        patience: seconds to wait for a holder that is about to end.

    Raises:
        ValueError: another process holds it; the text names it.
        OSError: the folder cannot be written.
    """
    path = folder / NAME
    folder.mkdir(parents=True, exist_ok=True)
    own = json.dumps(_holder(program)).encode()
    until, said = time.monotonic() + patience, False
    while not _create(path, own):
        content = _read(path)
        if content is None:  # just released
            continue
        if _is_dead(path, content):
            _take_away(path, content)
            continue
        if time.monotonic() >= until:
            raise ValueError(
                f"{folder} is in use by {_describe(content)}. Wait for it to end, choose another"
                f" folder, or remove {path} if that process is gone."
            )
        if not said:
            print(f"waiting for {_describe(content)} in {folder}", file=sys.stderr, flush=True)
            said = True
        time.sleep(0.2)
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if _read(path) == own:
            with contextlib.suppress(OSError):
                path.unlink()


def _holder(program: str) -> dict[str, Any]:
    return {
        "program": program,
        "host": _host(),
        "process": os.getpid(),
        "born": _born(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def _host() -> str:
    """The host's name, and inside of a container which one: numbers of processes differ there."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _born(process: int) -> str:
    """When a process started, in the kernel's ticks: numbers of processes come again."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _create(path: Path, content: bytes) -> bool:
    """Creates the lock file, unless it is there."""
    try:
        number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(number, "wb") as file:
        file.write(content)
    return True


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parsed(content: bytes) -> dict[str, Any]:
    """The holder; of a file that is being written, or was cut off, an unknown one."""
    try:
        return json.loads(content)
    except ValueError:
        return {}


def _describe(content: bytes) -> str:
    holder = _parsed(content)
    if not holder:
        return "a process that did not write its name"
    host = holder["host"].split()[0]
    return f"{holder['program']}, process {holder['process']} on {host} since {holder['since']}"


def _is_dead(path: Path, content: bytes) -> bool:
    holder = _parsed(content)
    if holder.get("host") == _host():
        alive = _born(holder["process"])
        if alive or holder["born"]:
            return alive != holder["born"]
        try:  # no /proc on this system
            os.kill(holder["process"], 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False
    # By the clock of the file system, which may differ from that of this host.
    probe = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime > STALE
    except FileNotFoundError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def _take_away(path: Path, content: bytes) -> None:
    """Removes a dead holder's file, but not that of another process which was quicker."""
    guard = path.with_name(f"{path.name}.taking")  # who has it may remove the file, nobody else
    if not _create(guard, b""):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - guard.stat().st_mtime > STALE:  # left by one that was killed here
                guard.unlink()
        time.sleep(0.05)
        return
    try:
        if _read(path) == content:
            path.unlink()
            print(
                f"{path.parent}: {_describe(content)} ended early; going on",
                file=sys.stderr,
                flush=True,
            )
    finally:
        guard.unlink(missing_ok=True)


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
