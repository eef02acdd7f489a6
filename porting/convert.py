"""From a checkpoint to a folder of weights, and back."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from porting.rules import ConversionError, Plan, Tree, apply_rules, invert_rules, plan
from porting.sources import Provenance, open_checkpoint, tensor_hash
from porting.tables import Table, get_table
from porting.targets import Target, choose

_PACKAGES = ("clouds-jax", "jax", "flax", "orbax-checkpoint", "numpy")


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A checkpoint that fits, and what it becomes.

    Attributes:
        state: the source tensors.
        provenance: of the file.
        table: the rules.
        target: the model.
        plan: which tensor goes where.
    """

    state: dict[str, np.ndarray]
    provenance: Provenance
    table: Table
    target: Target
    plan: Plan

    def tree(self) -> Tree:
        """The weights: nested dict with `encoder`, `head` or both."""
        return apply_rules(self.state, self.table.rules, self.target.want)

    def to_json(self) -> dict[str, Any]:
        """All that the weights' provenance.json says."""
        return {
            "source": self.provenance.to_json(),
            "table": {
                "name": self.table.name,
                "version": self.table.version,
                "source": self.table.source,
            },
            "licence": self.table.licence,
            "target": self.target.to_json(),
            "tensors": {
                name: {
                    **_describe(self.state[name]),
                    "layout": rule.layout.name,
                    "targets": [str(address) for address in addresses],
                }
                for name, (rule, addresses) in self.plan.used.items()
            },
            "dropped": {
                name: {**_describe(self.state[name]), "why": rule.why}
                for name, rule in self.plan.dropped.items()
            },
            "versions": versions(),
        }


def prepare(family: str, file: str, *, encoder: str | None = None, heads: int = 8) -> Conversion:
    """Opens a checkpoint and checks by names and shapes that it fits; reads no numbers.

    Raises:
        ConversionError: all that does not fit.
    """
    table = get_table(family)
    state, provenance = open_checkpoint(file)
    target = choose(state, table, encoder=encoder, heads=heads)
    planned = plan(state, table.rules, target.want)
    if planned.misfits:
        raise ConversionError(planned.misfits)
    return Conversion(state, provenance, table, target, planned)


def roundtrip(conversion: Conversion, tree: Tree) -> int:
    """Makes the source tensors anew from the weights and compares them bit by bit.

    Returns:
        How many tensors were compared: all but those the table leaves out.
    """
    back = invert_rules(tree, conversion.table.rules, conversion.state)
    wrong = [
        f"{name}: does not come back bit for bit"
        for name, tensor in back.items()
        if tensor_hash(tensor) != tensor_hash(conversion.state[name])
    ]
    if wrong:
        raise ConversionError(wrong)
    return len(back)


def save(conversion: Conversion, output: Path, *, force: bool = False) -> int:
    """Writes the weights and their provenance to the new folder `output`.

    Returns:
        How many source tensors the written weights give back bit for bit.
    """
    from clouds_jax import checkpoint  # the slow import; `inspect` does without

    if output.exists() and not force:
        raise FileExistsError(f"{output} exists; choose another --output or give --force.")
    tree = conversion.tree()
    same = roundtrip(conversion, tree)
    checkpoint.save_weights(output, tree, conversion.to_json(), overwrite=force)
    return same


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that take part."""
    found = {"python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def summary(state: Mapping[str, np.ndarray]) -> str:
    """`296 tensors, 4,700,112 numbers`."""
    total = sum(tensor.size for tensor in state.values())
    return f"{len(state):,} tensors, {total:,} numbers"


def _describe(tensor: np.ndarray) -> dict[str, Any]:
    return {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype),
        "sha256": tensor_hash(tensor),
    }
