"""The rules by which masks of prompts become one refined label map.

The functions take NumPy or JAX arrays alike, and give the same bits for both: the offline stage
runs them on the host, the training step inside its compiled program.
"""

import dataclasses
import typing
from typing import Any

import jax
import numpy as np

from clouds_jax.constants import IGNORE

_ALLOWED = {
    "overlap": ("any", "classes"),
    "emptied": ("keep", "drop"),
    "unlabelled": ("negative", "ignore"),
}


@dataclasses.dataclass(frozen=True)
class RefineRules:
    """How pseudo-labels are refined.

    Attributes:
        min_area: largest area, in pixels, of components that are left out. (paper's code: 5000)
        num_points: points inside a component that make one prompt. (paper's code: 5)
        overlap: pixels that are dropped because masks disagree: those of "any" two masks, or
            only those of masks of two "classes".
        emptied: a class whose masks were dropped entirely is still a target, with an empty mask
            ("keep"), or none ("drop").
        unlabelled: pixels outside all masks are negatives of every mask ("negative"), or take no
            part in the mask losses ("ignore").
    """

    min_area: int = 5000
    num_points: int = 5
    overlap: str = "any"
    emptied: str = "keep"
    unlabelled: str = "negative"

    def __post_init__(self):
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"RefineRules.{name} is {getattr(self, name)!r}; allowed are: "
                    f"{', '.join(allowed)}."
                )


PRESETS: dict[str, RefineRules] = {
    # what the public code does
    "release": RefineRules(),
    # what the text says: only masks of different classes conflict, and what no mask confirms is
    # left unlabelled; of classes without a pixel it says nothing
    "paper": RefineRules(overlap="classes", unlabelled="ignore"),
    # our reading of what both meant
    "fixed": RefineRules(overlap="classes", emptied="drop", unlabelled="ignore"),
}


@typing.no_type_check  # JAX also fills a pytree with shapes
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Claims:
    """The masks that claim each pixel, as far as the rules need to know them.

    Attributes:
        count: masks that hold the pixel.
        lowest: lowest class of these masks; 255 without a mask.
        highest: highest class of these masks; -1 without a mask.
    """

    count: Any
    lowest: Any
    highest: Any


def no_claims(size: tuple[int, int], xp: Any = np) -> Claims:
    """Before any mask; `size` is (h, w), `xp` numpy or jax.numpy."""
    return Claims(
        count=xp.zeros(size, xp.int32),
        lowest=xp.full(size, IGNORE, xp.int32),
        highest=xp.full(size, -1, xp.int32),
    )


def claim(claims: Claims, masks: Any, classes: Any, xp: Any = np) -> Claims:
    """Adds masks.

    Args:
        claims: claims of the masks before.
        masks: booleans (n, h, w); a row without any True claims nothing.
        classes: classes of the masks (n,).
        xp: numpy or jax.numpy.
    """
    ids = classes.astype(xp.int32)[:, None, None]
    return Claims(
        count=claims.count + masks.sum(0, dtype=xp.int32),
        lowest=xp.minimum(claims.lowest, xp.where(masks, ids, IGNORE).min(0)),
        highest=xp.maximum(claims.highest, xp.where(masks, ids, -1).max(0)),
    )


def resolve(claims: Claims, rules: RefineRules, xp: Any = np) -> Any:
    """The label map (h, w) uint8: the class of the pixels that the rules leave, 255 elsewhere.

    Source: step 9 of CLOUDS' refinement, RM_INTERSECTION.
    """
    if rules.overlap == "any":
        kept = claims.count == 1
    else:
        kept = claims.lowest == claims.highest
    return xp.where(kept, claims.lowest, IGNORE).astype(xp.uint8)


def targets(
    teacher: Any, refined: Any, classes: Any, valid: Any, rules: RefineRules, k: int, xp: Any = np
) -> tuple[Any, Any]:
    """The label map to learn from and which classes it has as targets.

    Where no component was large enough, the teacher's own label is taken.

    Args:
        teacher: label map (h, w) before the refinement.
        refined: label map (h, w) of `resolve`.
        classes: class of each component slot (n,).
        valid: which component slots hold a component (n,).
        rules: rules of the refinement.
        k: number of classes.
        xp: numpy or jax.numpy.

    Returns:
        Label map (h, w) uint8 and booleans (k,).

    Source: steps 10 and 11 of CLOUDS' refinement.
    """
    ids = xp.arange(k, dtype=xp.int32)
    prompted = (valid[:, None] & (classes.astype(xp.int32)[:, None] == ids[None])).any(0)
    if rules.emptied == "drop":
        shown = (refined[None] == ids[:, None, None].astype(xp.uint8)).any((1, 2))
        prompted = prompted & shown
    whole = (teacher[None] == ids[:, None, None].astype(xp.uint8)).any((1, 2))
    some = valid.any()
    return xp.where(some, refined, teacher), xp.where(some, prompted, whole)
