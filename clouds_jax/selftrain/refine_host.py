"""Refinement of one pseudo-label on the host, with NumPy and SciPy: the offline stage's steps.

The rules are those of `clouds_jax.selftrain.refine_rules`, the random numbers those of
`clouds_jax.ops.components`: for the same numbers and masks the result is that of the compiled step,
bit for bit.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Int, UInt8, UInt32

from clouds_jax.constants import IGNORE
from clouds_jax.ops.components import Components, distinct_ranks, max_components
from clouds_jax.selftrain import refine_rules
from clouds_jax.selftrain.refine_rules import RefineRules

Label = UInt8[np.ndarray, "h w"]
Points = Int[np.ndarray, "n p 2"]
Masks = Bool[np.ndarray, "n h w"]


@dataclasses.dataclass(frozen=True)
class Refinement:
    """A refined pseudo-label and the steps that led to it.

    Attributes:
        label: class map to learn from; 255 where no mask is left.
        present: classes that are targets.
        components: large components of the teacher's label.
        points: (x, y) of the pixels that prompt SAM, a row per component.
        masks: SAM's masks, one per component.
        overlapped: pixels that several masks claim and the rules drop.
    """

    label: Label
    present: Bool[np.ndarray, " k"]
    components: Components
    points: Points
    masks: Masks
    overlapped: Bool[np.ndarray, "h w"]


def large_components(label: Label, min_area: int) -> Components:
    """Components of more than `min_area` pixels, as many slots as there are; 255 has none.

    Source: steps 1 and 2 of CLOUDS' refinement, scipy.ndimage.label with 4-connectivity.
    """
    components: list[tuple[int, int, Bool[np.ndarray, "h w"]]] = []
    for value in np.flatnonzero(np.bincount(label.reshape(-1), minlength=256)[:IGNORE]):
        regions = np.empty(label.shape, np.int32)
        scipy.ndimage.label(label == value, output=regions)
        areas = np.bincount(regions.reshape(-1))
        components += [
            (int(value), int(areas[r]), regions == r)
            for r in range(1, len(areas))
            if areas[r] > min_area
        ]
    slot = np.full(label.shape, len(components), np.int32)
    for i, (_, _, where) in enumerate(components):
        slot[where] = i
    return Components(
        slot=slot,
        label=np.array([value for value, _, _ in components], np.uint8),
        area=np.array([area for _, area, _ in components], np.int32),
        valid=np.ones(len(components), bool),
    )


def random_points(components: Components, bits: UInt32[np.ndarray, "m p"]) -> Points:
    """Distinct pixels (x, y) of each component, uniformly at random.

    Args:
        components: components of one map.
        bits: random numbers, a row for each component at least.
    """
    count = len(components.area)
    ranks = distinct_ranks(components.area, bits[:count], np)
    width = components.slot.shape[1]
    flat = components.slot.reshape(-1)
    pixels = [np.flatnonzero(flat == i)[ranks[i]] for i in range(count)]
    at = np.array(pixels, np.int64).reshape(count, bits.shape[1])
    return np.stack([at % width, at // width], -1).astype(np.int32)


def draws(
    seed: int, index: int, size: tuple[int, int], rules: RefineRules
) -> UInt32[np.ndarray, "m p"]:
    """The random numbers of image `index` of a run: a row per component that there can be."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, index)))
    shape = (max(1, max_components(size, rules.min_area)), rules.num_points)
    return rng.integers(0, 2**32, shape, np.uint32)


def refine_label(
    label: Label,
    bits: UInt32[np.ndarray, "m p"],
    prompt: Callable[[Points], Masks],
    *,
    rules: RefineRules,
    classes: int,
) -> Refinement:
    """Refines one pseudo-label.

    Args:
        label: class map of the teacher.
        bits: random numbers, see `draws`.
        prompt: prompts SAM: points (x, y) in pixels of the image, a row per mask -> masks [n, h, w]
            at image size.
        rules: rules of the refinement.
        classes: number of classes, k.

    Source: CLOUDS (CVPR 2024), the refinement in its training forward.
    """
    components = large_components(label, rules.min_area)
    points = random_points(components, bits)
    masks, claims = np.zeros((0, *label.shape), bool), refine_rules.no_claims(label.shape)
    if len(points):
        masks = prompt(points)
        claims = refine_rules.claim(claims, masks, components.label)
    resolved = refine_rules.resolve(claims, rules)
    refined, present = refine_rules.targets(
        label, resolved, components.label, components.valid, rules, classes
    )
    overlapped = (claims.count > 1) & (resolved == IGNORE)
    return Refinement(refined, present, components, points, masks, overlapped)


def statistics(before: Label, after: Refinement, names: tuple[str, ...]) -> dict[str, int]:
    """Counts of one image, to be added up over many.

    Args:
        before: the teacher's label.
        after: its refinement.
        names: names of the classes.

    Returns:
        "images", "fallback" (no component was large enough), "components", "emptied" (targets with
        an empty mask), and pixels: "teacher", "confirmed" (the class stays), "changed" (another
        class), "dropped" (no class), "overlapped" (dropped for that reason); of all but the last
        also per class of the teacher, "confirmed/road", and "components/road" likewise.
    """
    refined = after.label
    pixels = {
        "teacher": before != IGNORE,
        "confirmed": (refined == before) & (refined != IGNORE),
        "changed": (refined != before) & (refined != IGNORE),
        "dropped": refined == IGNORE,
    }
    out = {
        "images": 1,
        "fallback": int(not len(after.points)),
        "components": len(after.points),
        "emptied": int(after.present.sum() - np.isin(np.flatnonzero(after.present), refined).sum()),
        "overlapped": int(after.overlapped.sum()),
    }
    of_class = np.bincount(after.components.label, minlength=256)
    for name, where in pixels.items():
        counts = np.bincount(before[where], minlength=256)
        out[name] = int(counts.sum())
        out |= {f"{name}/{c}": int(counts[k]) for k, c in enumerate(names) if counts[k]}
    out |= {f"components/{c}": int(of_class[k]) for k, c in enumerate(names) if of_class[k]}
    return out
