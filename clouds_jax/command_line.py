"""What all programs share on the command line: how they end, and the source of a model.

Exit status of every program: 0 all was done; 1 an error, in one message; 2 wrong usage; 75 a
training stopped as asked, with a checkpoint to go on from; 130 and 143 another program stopped by
Ctrl-C or SIGTERM, what was finished is kept.
"""

import argparse
import atexit
import contextlib
import gc
import logging
import os
import signal
import sys
import sysconfig
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from absl import flags

# what a user can mend; FloatingPointError: a training that diverged
EXPECTED = (ValueError, KeyError, OSError, FloatingPointError)
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again later
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

_AGAIN = 0.3  # seconds until an interrupt that was swallowed is raised again
_LINES, _WIDTH = 18, 600  # of a message; libraries write thousands of lines
# where libraries and Python itself are installed
_FOREIGN = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("purelib", "platlib", "stdlib"))


class Terminated(KeyboardInterrupt):
    """SIGTERM, which schedulers send; handled as Ctrl-C is."""


def message(error: BaseException) -> str:
    """The text of an error; str() of a KeyError would put it in quotes."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


@contextlib.contextmanager
def one_line_errors(program: str, *, log: Path | None = None) -> Iterator[None]:
    """Ends the program with a short message and a status, whatever happens.

    Bad input, missing files and full disks are ValueError, KeyError and OSError here. Of what was
    raised elsewhere, by a library or by a bug, the traceback goes to a file that the message names.

    Args:
        program: name in front of the message.
        log: file for the traceback; None: one in the folder of temporary files.
    """
    # What was imported stays to the end: without it each collection is short, and so is the exit.
    gc.freeze()
    gc.enable()
    with _signals_raise() as received:
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            # a library that is interrupted may raise an error of its own
            if not (received or isinstance(error, KeyboardInterrupt)):
                text = f"{program}: {explained(error, program, log)}"
                if getattr(error, "ends_at_once", False):  # see hosts.HostLost
                    print(text, file=sys.stderr, flush=True)
                    os._exit(1)
                sys.exit(text)
            terminated = isinstance(error, Terminated) or signal.SIGTERM in received
            print(
                f"{program}: stopped by {'SIGTERM' if terminated else 'Ctrl-C'}; what was finished"
                " is kept, run the same command again.",
                file=sys.stderr,
            )
            atexit.register(_hush)
            sys.exit(TERMINATED if terminated else INTERRUPTED)


def _hush() -> None:
    """Lets the interpreter end without a word; for its end alone.

    Of each coroutine that the interrupt tore apart inside a library it would tell, with all that
    the library's exceptions hold.
    """
    sys.unraisablehook = lambda _: None
    logging.disable()
    warnings.simplefilter("ignore")


def explained(error: Exception, program: str, log: Path | None = None) -> str:
    """The message of an error for the terminal; a foreign one's traceback goes to a file."""
    own = isinstance(error, EXPECTED) and _raised_here(error)
    text = message(error) if isinstance(error, EXPECTED) else f"{type(error).__name__}: {error}"
    short = _shortened(text)
    if own and short == text:
        return text
    path = log or Path(tempfile.gettempdir()) / f"clouds_jax-{program}-{os.getpid()}.txt"
    try:
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return short
    return f"{short}\n(where it happened: {path})"


def parse_flags(program: str, argv: list[str]) -> list[str]:
    """Reads absl's flags, for `app.run(flags_parser=)`; a wrong one ends the program in one line.

    Args:
        program: name in front of the message.
        argv: the command line.
    """
    try:
        _check_config(argv)
        return flags.FLAGS(argv)
    except flags.Error as error:
        # ml_collections puts the whole traceback of a config that raised into its text
        text, traced, frames = str(error).partition("\nTraceback (most recent call last):")
        if traced:
            text = f"{text.splitlines()[0]} {frames.strip().splitlines()[-1]}"
        print(f"{program}: {_shortened(text)}", file=sys.stderr)
        sys.exit(1 if traced else 2)
    except Exception as error:  # a config file may raise anything
        sys.exit(f"{program}: {explained(error, program)}")


def _check_config(argv: list[str]) -> None:
    """Refuses a config file that is not there."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name not in ("--config", "-config"):
            continue
        path = Path((value if equals else following).partition(":")[0])
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no config file {path}; those of the project are configs/*.py, run from"
                " its folder, and :debug appended makes a run of a minute."
            )


def at_least_one(text: str) -> int:
    """A number of things, as a `type=` of argparse.

    Raises:
        argparse.ArgumentTypeError: it is none, or below 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def source_of(workdir: str, weights: str) -> str:
    """The folder of the model that --workdir or --weights names.

    Raises:
        ValueError: neither or both are given.
    """
    if bool(workdir) == bool(weights):
        raise ValueError("name either a run (--workdir) or a weights folder (--weights).")
    return workdir or weights


def _raised_here(error: BaseException) -> bool:
    """Whether the code that raised is of no library, or the opening of a file failed."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or (isinstance(error, OSError) and error.filename is not None):
        return True
    return not frames[-1].filename.startswith((*_FOREIGN, "<"))


def _shortened(text: str) -> str:
    lines = [
        line if len(line) <= _WIDTH else f"{line[:_WIDTH]} ... ({len(line) - _WIDTH:,} more)"
        for line in text.strip().splitlines()
    ]
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"... ({len(lines) - _LINES + 1:,} more lines)"]
    return "\n".join(lines)


@contextlib.contextmanager
def _signals_raise() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C raise, so that what is open is closed; where nobody else handles them.

    An exception that is raised while a library's callback runs, such as that of JAX in the garbage
    collector, is swallowed there. Hence it is raised again until the program ends.
    """
    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    # in the background a shell lets programs ignore Ctrl-C, and so they do
    free = [number for number, handler in usual.items() if signal.getsignal(number) is handler]
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread() or not free:
        yield received
        return

    def stop(number: int, frame: FrameType | None) -> None:
        received[:] = [number] if number != signal.SIGALRM else received
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        if isinstance(sys.exception(), KeyboardInterrupt):
            return  # on its way, closing things
        if not _in_callback(frame):
            raise Terminated if received[0] == signal.SIGTERM else KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (*free, signal.SIGALRM)}
    try:
        yield received
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_callback(frame: FrameType | None) -> bool:
    """Whether a callback of the garbage collector is running."""
    while frame is not None:
        if frame.f_code.co_name == "_xla_gc_callback":
            return True
        frame = frame.f_back
    return False
