"""Errors of libraries that could not write, as one line that names the file and the reason."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

_CODE = re.compile(r"os_error_code='?(\d+)")  # in the errors of TensorStore
# reasons that have nothing to do with what is written
_REASONS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
)  # fmt: skip


@contextlib.contextmanager
def write_errors_named(path: Path) -> Iterator[None]:
    """Raises OSError in place of whatever a library raises on a full disk or a read-only folder.

    Args:
        path: file or folder that is written in the block, for the text.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if not reason or (isinstance(error, OSError) and error.errno is None):
            raise  # ours, or about something else
        raise OSError(
            f"{path} cannot be written: {reason}. Free some space or choose another folder, then"
            " run again."
        ) from error


def _reason(error: BaseException | None) -> str:
    """The system's reason in an error or one that led to it; "" if there is none."""
    while error is not None:
        text = str(error)
        code = _CODE.search(text)
        number = error.errno if isinstance(error, OSError) else int(code[1]) if code else None
        if number in _REASONS:
            return os.strerror(number)
        for number in _REASONS:
            if os.strerror(number) in text:
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return ""
