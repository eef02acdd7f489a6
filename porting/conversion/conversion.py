"""A checkpoint matched against a rule table: what it becomes, and what does not fit."""

import dataclasses
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from clouds_jax import provenance
from porting.conversion.targets import Target, infer_target
from porting.files.open import Provenance
from porting.files.trees import Tree
from porting.tables import Table
from porting.tables.apply import Plan, apply_rules, plan

_PACKAGES = ("clouds-jax", "jax", "flax", "orbax-checkpoint", "numpy")


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A checkpoint and the model it is converted to.

    Attributes:
        state: source tensors by name, under the names that the table's rules match.
        provenance: origin of the tensors.
        table: rules of the checkpoint's family.
        target: the model.
        plan: targets of each source tensor, and all misfits.
        clip: provenance of the second file, if CLIP came from one.
    """

    state: dict[str, np.ndarray]
    provenance: Provenance
    table: Table
    target: Target
    plan: Plan
    clip: Provenance | None = None

    def tree(self) -> Tree:
        """All weights at once: a nested dict with `encoder`, `text`, `head` or `sam`.

        Raises:
            ConversionError: lists all misfits.
        """
        return apply_rules(self.state, self.table.rules, self.target.shapes)

    def to_json(self, hashes: Mapping[str, str], dtype: str) -> dict[str, Any]:
        """The content of a weights folder's provenance.json.

        Args:
            hashes: SHA-256 of each source tensor, by name.
            dtype: key of `streaming.DTYPES`.
        """

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
            "order": list(self.state),  # the file itself is written with sorted keys
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


def match(
    state: dict[str, np.ndarray],
    provenance: Provenance,
    table: Table,
    *,
    encoder: str | None = None,
    heads: int = 8,
) -> Conversion:
    """Matches a state dict against one table by names, shapes and dtypes; reads no values.

    Args:
        state: source tensors by name.
        provenance: origin of the tensors.
        table: rules of the family.
        encoder: name in `ENCODERS` or `SAMS`; None infers it from the shapes.
        heads: attention heads of a Mask2Former head.

    Raises:
        ConversionError: no tensor is of the family.
    """
    target = infer_target(state, table, encoder=encoder, heads=heads)
    return Conversion(state, provenance, table, target, plan(state, table.rules, target.shapes))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that take part in a conversion."""
    return {"python": platform.python_version(), **provenance.versions(_PACKAGES)}
