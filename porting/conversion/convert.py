"""Converts a checkpoint to a weights folder."""

import dataclasses
import os
import shutil
from pathlib import Path

from clouds_jax.weights import save_weights
from porting.conversion import streaming
from porting.conversion.conversion import Conversion, match
from porting.conversion.family import fit_family
from porting.files.open import EVERYTHING, Selection, open_checkpoint
from porting.tables.apply import ConversionError


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
    stream = streaming.WeightStream(conversion, dtype)
    hashes = streaming.check_values(conversion)
    provenance = conversion.to_json(hashes, dtype)
    save_weights(output, iter(stream), provenance, overwrite=force)
    return stream


def check_writable(output: Path, *, force: bool = False) -> None:
    """Raises before the work if `output` cannot be written; removes leftovers of killed runs."""
    if output.exists() and not force:
        raise FileExistsError(f"{output} exists; choose another --output or give --force.")
    parent = output.absolute().parent
    probe = parent / f".{output.name}.tmp-{os.getpid()}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise OSError(f"{output} cannot be written: {error}; choose another --output.") from error
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
