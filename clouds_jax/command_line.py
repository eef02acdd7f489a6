"""What all programs share on the command line: errors of one line, the source of a model."""

import contextlib
import sys
from collections.abc import Iterator

EXPECTED = (ValueError, KeyError, OSError)


def message(error: BaseException) -> str:
    """The text of an error; str() of a KeyError would put it in quotes."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


@contextlib.contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Ends the program with status 1 and one line for errors that the user can correct.

    Bad input, missing files and full disks are ValueError, KeyError and OSError here; any other
    exception is a bug and keeps its traceback.
    """
    try:
        yield
    except EXPECTED as error:
        sys.exit(f"{program}: {message(error)}")


def source_of(workdir: str, weights: str) -> str:
    """The folder of the model that --workdir or --weights names.

    Raises:
        ValueError: neither or both are given.
    """
    if bool(workdir) == bool(weights):
        raise ValueError("name either a run (--workdir) or a weights folder (--weights).")
    return workdir or weights
