"""From a checkpoint to a folder of weights."""

import dataclasses
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clouds_jax.weights import save_weights
from porting.conversion import family as guess
from porting.conversion import streaming
from porting.conversion.targets import Target, choose
from porting.files.open import Provenance, open_checkpoint
from porting.files.trees import Tree
from porting.tables import Table
from porting.tables.rules import ConversionError, Plan, apply_rules, plan

_PACKAGES = ("clouds-jax", "jax", "flax", "orbax-checkpoint", "numpy")


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A checkpoint, and what it would become.

    Attributes:
        state: the source tensors.
        provenance: of the file.
        table: the rules.
        target: the model.
        plan: which tensor goes where, and what does not fit.
        clip: provenance of the second file, which holds the CLIP encoder.
    """

    state: dict[str, np.ndarray]
    provenance: Provenance
    table: Table
    target: Target
    plan: Plan
    clip: Provenance | None = None

    def tree(self) -> Tree:
        """The weights, all at once: nested dict with `encoder`, `head` and the like."""
        return apply_rules(self.state, self.table.rules, self.target.want)

    def to_json(self, hashes: Mapping[str, str], dtype: str) -> dict[str, Any]:
        """All that the weights' provenance.json says; `hashes` are those of the tensors."""

        def describe(name: str) -> dict[str, Any]:
            tensor = self.state[name]
            return {
                "shape": list(tensor.shape),
                "dtype": str(tensor.dtype),
                "sha256": hashes[name],
            }

        return {
            "source": self.provenance.to_json(),
            **({"clip": self.clip.to_json()} if self.clip else {}),
            "table": {
                "name": self.table.name,
                "version": self.table.version,
                "source": self.table.source,
            },
            "licence": self.provenance.licence or self.table.licence,
            "target": self.target.to_json(),
            "dtype": dtype,
            "order": list(self.state),  # JSON objects of ours are sorted
            "tensors": {
                name: {
                    **describe(name),
                    "layout": rule.layout.name,
                    "targets": [str(address) for address in addresses],
                }
                for name, (rule, addresses) in self.plan.used.items()
            },
            "dropped": {
                name: {**describe(name), "why": rule.why}
                for name, rule in self.plan.dropped.items()
            },
            "versions": versions(),
        }


def prepare(
    family: str | None,
    file: str,
    *,
    encoder: str | None = None,
    heads: int = 8,
    clip: str | None = None,
    strict: bool = True,
) -> Conversion:
    """Opens a checkpoint and fits it to a family by names and shapes; reads no numbers.

    Args:
        family: name of the table, or None for the one that fits.
        file: what `open_checkpoint` takes.
        encoder: our name of the encoder; None takes the one that fits.
        heads: attention heads of a Mask2Former head.
        clip: a second checkpoint, with the CLIP encoder that `file` lacks.
        strict: raise what does not fit, instead of leaving it in the plan.

    Raises:
        ConversionError: all that does not fit.
    """
    state, provenance = open_checkpoint(file)
    found = guess.fit(family, state, provenance, encoder=encoder, heads=heads)
    made = Conversion(found.state, found.provenance, found.table, found.target, found.plan)
    if clip:
        made = _with_clip(made, clip, encoder, heads)
    if strict and made.plan.misfits:
        raise ConversionError(made.plan.misfits)
    return made


def _with_clip(made: Conversion, clip: str, encoder: str | None, heads: int) -> Conversion:
    """The same with the CLIP tensors of a second file."""
    prefix = made.table.clip_prefix
    if not prefix:
        raise ValueError(f"files of family {made.table.name} hold no CLIP; leave --clip out.")
    if any(name.startswith(prefix) for name in made.state):
        raise ValueError(f"{made.provenance.file} has a CLIP of its own; leave --clip out.")
    tensors, provenance = open_checkpoint(clip)
    state = {prefix + name: tensor for name, tensor in tensors.items()} | made.state
    target = choose(state, made.table, encoder=encoder, heads=heads)
    planned = plan(state, made.table.rules, target.want)
    return dataclasses.replace(made, state=state, target=target, plan=planned, clip=provenance)


def save(
    conversion: Conversion, output: Path, *, dtype: str = "float32", force: bool = False
) -> streaming.Parts:
    """Writes the weights and their provenance to the new folder `output`, part by part.

    Returns:
        The parts, which have counted the source tensors that come back bit for bit.
    """
    check_writable(output, force=force)
    pass  # the slow import; `inspect` does without

    parts = streaming.Parts(conversion.state, conversion.plan, conversion.target.want, dtype)
    hashes = streaming.check(conversion.state, conversion.plan)
    provenance = conversion.to_json(hashes, dtype)
    save_weights(output, iter(parts), provenance, overwrite=force)
    return parts


def check_writable(output: Path, *, force: bool = False) -> None:
    """Says before the work that `output` cannot be written; removes what killed runs left there."""
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
    for left in parent.glob(f".{output.name}.tmp-*"):
        if not _runs(left.name.rpartition("-")[2]):
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: str) -> bool:
    """Whether a process is there; what is no number might be one of another program."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):
        return True
    return True


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that take part."""
    found = {"python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def summary(state: Mapping[str, np.ndarray]) -> str:
    """`296 tensors, 4,700,112 numbers`."""
    total = sum(tensor.size for tensor in state.values())
    return f"{len(state):,} tensors, {total:,} numbers"
