"""Files that appear whole or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file that takes the name `path` when all of it was written.

    Its folder is made where it is missing. After an error the temporary file is removed and what
    was at `path` before is still there.

    Raises:
        OSError: the disk is full or the folder read-only; the text names `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:  # of a full disk it does not name the file
        if error.filename not in (None, str(temporary)):
            raise
        raise type(error)(
            f"{path} cannot be written: {error.strerror or error}. Free some space or choose"
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
