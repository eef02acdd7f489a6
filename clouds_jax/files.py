"""Files that are written whole or not at all, and JSON Lines that may end in a torn line."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file that is renamed to `path` when all of it was written.

    Missing parent folders are created. After an error the temporary file is removed and the file
    that was at `path` before is still there.

    Raises:
        OSError: the disk is full or the folder read-only; the text names `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        # The system's own errors have a number; that of a full disk names no file. Errors of the
        # body, which have a text of their own or name another file, stay as they are.
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise type(error)(
            f"{path} cannot be written: {error.strerror}. Free some space or choose"
            " another folder, then run again."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file as UTF-8."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, indented by one, with a newline at its end."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file, such as `metrics.jsonl`; none where there is no file.

    A line that a killed program left half written is left out.
    """
    objects = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            objects.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return objects
