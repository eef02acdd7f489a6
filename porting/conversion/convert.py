"""Converts a checkpoint to a weights folder."""

import contextlib
import dataclasses
import io
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from clouds_jax.weights import save_weights
from porting.conversion import streaming
from porting.conversion.conversion import Conversion, match
from porting.conversion.family import fit_family
from porting.conversion.fitting import Fitting
from porting.files.open import EVERYTHING, Selection, below_prefix, open_checkpoint
from porting.files.write_errors import write_errors_named
from porting.tables import get_table
from porting.tables.apply import ConversionError

_CLIP = ("open_clip_convnext", "open_clip_resnet")  # families of the second file
# An unfinished folder is removed until it was not there several times, with pauses in seconds.
_TRIES, _ABSENT, _PAUSE = 30, 4, 0.1


def prepare(
    family: str | None,
    file: str,
    *,
    encoder: str | None = None,
    heads: int = 8,
    clip: str | None = None,
    strict: bool = True,
    selection: Selection = EVERYTHING,
) -> Conversion:
    """Opens a checkpoint and matches it against a family by names and shapes; reads no values.

    Args:
        family: name of the table; None or "auto" takes the family that fits best.
        file: a source that `open_checkpoint` accepts.
        encoder: name in `ENCODERS` or `SAMS`; None infers it from the shapes.
        heads: attention heads of a Mask2Former head.
        clip: a second checkpoint, with the CLIP that `file` lacks.
        strict: raise all misfits instead of leaving them in the plan.
        selection: the tensors of `file` to read.

    Raises:
        ConversionError: lists all misfits.
        ValueError: the file holds several models, and `selection` names none of them.
    """
    state, provenance = open_checkpoint(file, selection)
    if provenance.alternatives and not selection.entry:
        found = ", ".join([provenance.entry, *provenance.alternatives])
        raise ValueError(
            f"{provenance.file} holds several state dicts of one model: {found}; choose one with"
            " --entry NAME."
        )
    conversion = fit_family(family, state, provenance, encoder=encoder, heads=heads)
    if clip:
        conversion = _with_clip(conversion, clip, encoder, heads)
    if strict and conversion.plan.misfits:
        raise ConversionError(conversion.plan.misfits)
    return conversion


def _with_clip(conversion: Conversion, clip: str, encoder: str | None, heads: int) -> Conversion:
    """Adds the CLIP tensors of a second file."""
    table = conversion.table
    if not table.clip_prefix:
        raise ValueError(f"files of family {table.name} hold no CLIP; leave --clip out.")
    if any(name.startswith(table.clip_prefix) for name in conversion.state):
        raise ValueError(f"{conversion.provenance.file} has a CLIP of its own; leave --clip out.")
    tensors, provenance = open_checkpoint(clip)
    candidates = Fitting(tensors, provenance, encoder, heads).candidates(map(get_table, _CLIP))
    if candidates:
        tensors, provenance = below_prefix(tensors, provenance, candidates[0].prefix)
    state = {table.clip_prefix + name: tensor for name, tensor in tensors.items()}
    whole = match(
        state | conversion.state, conversion.provenance, table, encoder=encoder, heads=heads
    )
    return dataclasses.replace(whole, clip=provenance)


def save(
    conversion: Conversion, output: Path, *, dtype: str = "float32", force: bool = False
) -> streaming.WeightStream:
    """Writes weights and provenance to the new folder `output`, part by part.

    Returns:
        The exhausted stream, which has counted the source tensors that can be restored exactly.
    """
    check_writable(output, force=force)
    hashes = streaming.check_values(conversion)
    stream = streaming.WeightStream(conversion, dtype)
    _check_space(output, stream.nbytes)
    provenance = conversion.to_json(hashes, dtype)
    with write_errors_named(output), _muted():
        try:
            save_weights(output, iter(stream), provenance, overwrite=force)
        except BaseException:
            _remove(_temporary(output))
            raise
    return stream


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Holds back what Orbax logs, and its threads print, about an error that it raises as well."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _check_space(output: Path, nbytes: int) -> None:
    free = shutil.disk_usage(output.absolute().parent).free
    if free < nbytes:
        raise OSError(
            f"{output} needs {nbytes:,} bytes, its disk has {free:,} free; free some space or"
            " choose another --output."
        )


def _temporary(output: Path) -> Path:
    """The folder that `save_weights` writes to before it has its name."""
    return output.absolute().with_name(f".{output.name}.tmp-{os.getpid()}")


def _remove(folder: Path) -> None:
    """Removes an unfinished folder, to which threads may still write, until it stays away."""
    absent = 0
    for _ in range(_TRIES):
        absent = 0 if folder.exists() else absent + 1
        if absent == _ABSENT:
            return
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_PAUSE)


def check_writable(output: Path, *, force: bool = False) -> None:
    """Raises before the work if `output` cannot be written; removes leftovers of killed runs."""
    if output.exists() and not force:
        raise FileExistsError(f"{output} exists; choose another --output or give --force.")
    parent, probe = output.absolute().parent, _temporary(output)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{output} cannot be written: {reason}; choose another --output.") from error
    for leftover in parent.glob(f".{output.name}.tmp-*"):
        if not _is_running(leftover.name.rpartition("-")[2]):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_running(process: str) -> bool:
    """Whether a process id is in use; true for text that is no id, which is not ours to remove."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):
        return True
    return True
