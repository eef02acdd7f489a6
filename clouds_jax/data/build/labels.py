"""Label files as train ids: by their ids, by their colours, and in the grid of their image."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from clouds_jax import images
from clouds_jax.constants import IGNORE
from clouds_jax.data.datasets.spec import DatasetSpec, LabelKind

_BLACK = (0, 0, 0)  # also what palettes hold where nobody set a colour


class BadSource(ValueError):
    """An example that cannot become a record; the message names it and the reason."""


class ForeignLabel(BadSource):
    """A label of another kind than the dataset's.

    It speaks against all labels of the set: those of that kind that show only ids which both kinds
    have would be read, with the wrong classes.
    """


def read_label(path: Path, spec: DatasetSpec) -> UInt8[np.ndarray, "h w"]:
    """A label file as train ids, 255 = ignore.

    A palette that holds the dataset's colours in another order than its ids is read by colour.

    Raises:
        ForeignLabel: it has ids, or a palette, that the dataset does not define.
        BadSource: it is no label map, or has colours that the dataset does not define.
    """
    ids, palette = spec.read_label(path)
    kind = spec.kind(path)
    if ids.ndim == 3 and ids.shape[-1] >= 3:
        ids = _ids_of_colours(ids, kind, spec, path)
    if ids.ndim != 2 or ids.dtype.kind not in "ui":
        raise BadSource(f"{path} is no label map: array {ids.shape} of {ids.dtype}.")
    present = values(ids)
    if palette is not None and (order := _order_of_palette(present, palette, kind, path)):
        ids = _lookup(order)[ids]
        present = values(ids)
    unknown = [value for value in present if not 0 <= value < 256 or kind.table[value] < 0]
    if unknown:
        raise ForeignLabel(
            f"label has ids {_listed(unknown)}, outside {_ranges(np.flatnonzero(kind.table >= 0))};"
            f" is {path.name} a label of another kind than {spec.name} writes? {kind.hint}".strip()
        )
    return kind.table.astype(np.uint8)[ids]


def values(ids: Shaped[np.ndarray, "h w"]) -> list[int]:
    """The distinct values, sorted; on 8 or 16 bits np.unique would take ten times longer."""
    if ids.dtype.kind == "u" and ids.dtype.itemsize <= 2:
        return np.flatnonzero(np.bincount(ids.reshape(-1))).tolist()
    return np.unique(ids).tolist()


def _listed(items: Iterable[object]) -> str:
    return ", ".join(str(item) for item in items)


def _ranges(values: Integer[np.ndarray, " n"]) -> str:
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return " and ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _by_colour(kind: LabelKind) -> dict[tuple[int, int, int], int]:
    return {colour: label_id for label_id, colour in reversed(kind.colours)}


def _lookup(order: dict[int, int]) -> UInt8[np.ndarray, "256"]:
    table = np.zeros(256, np.uint8)
    table[list(order)] = list(order.values())
    return table


def _order_of_palette(
    present: list[int], palette: UInt8[np.ndarray, "n 3"], kind: LabelKind, path: Path
) -> dict[int, int]:
    """Palette index to id where the palette has the dataset's colours; else empty.

    Raises:
        ForeignLabel: most of the colours are the dataset's in another order, and some are not.
    """
    by_colour = _by_colour(kind)
    colours = {i: tuple(palette[i].tolist()) for i in present if i < len(palette)}
    ids = {
        # Of ids that share a colour, the index says which.
        i: i if (i, colour) in kind.colours else by_colour[colour]
        for i, colour in colours.items()
        if colour in by_colour
    }
    telling = [i for i in ids if colours[i] != _BLACK]
    if not telling or _is_generic(palette):
        return {}
    others = [i for i in present if i not in ids]
    if not others:
        return ids
    if sum(kind.table[i] != kind.table[ids[i]] for i in telling) <= len(others):
        return {}  # a palette of its own, in which some colours coincide
    names = _listed("#{:02x}{:02x}{:02x}".format(*colours.get(i, _BLACK)) for i in others[:8])
    raise ForeignLabel(
        f"the palette of {path.name} has colours of the dataset under other indices than its ids, "
        f"and colours that it lacks: {names}. {kind.hint}".strip()
    )


def _is_generic(palette: UInt8[np.ndarray, "n 3"]) -> bool:
    """Whether it is a palette that tools give to any indices: greys, or PASCAL VOC's."""
    set_colours = np.flatnonzero(palette.any(axis=1))
    palette = palette[: set_colours.max(initial=-1) + 1]  # the rest is padding
    index = np.arange(len(palette), dtype=np.uint8)
    # VOC spreads the bits of the index over red, green and blue, the lowest to the highest.
    voc = np.zeros((len(palette), 3), np.uint8)
    for bit in range(8):
        voc[:, bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
    return bool((palette == voc).all() or (palette == index[:, None]).all())


def _ids_of_colours(
    colours: Shaped[np.ndarray, "h w c"], kind: LabelKind, spec: DatasetSpec, path: Path
) -> Shaped[np.ndarray, "h w"]:
    if not kind.colours:
        raise BadSource(f"{path} is a colour image; labels of {spec.name} hold ids in one channel.")
    packed = colours[..., :3].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    codes, inverse = np.unique(packed, return_inverse=True)
    table = {(r << 16) | (g << 8) | b: i for (r, g, b), i in _by_colour(kind).items()}
    if unknown := [int(code) for code in codes if int(code) not in table]:
        names = _listed(f"#{code:06x}" for code in unknown[:8])
        raise BadSource(f"label has {len(unknown)} colours that {spec.name} lacks: {names}.")
    ids = np.array([table[int(code)] for code in codes], np.uint8)
    return ids[inverse].reshape(packed.shape)


def in_grid_of_image(
    label: UInt8[np.ndarray, "h w"], size: tuple[int, int], orientation: int
) -> UInt8[np.ndarray, "h2 w2"]:
    """A label in the grid of its image, which was turned upright by its EXIF orientation.

    Args:
        label: label as stored.
        size: (h, w) of the image after it was turned.
        orientation: EXIF orientation of the image file, 1..8.

    Raises:
        BadSource: the sizes do not tell whether the label lies in the grid of the sensor or in
            that of the turned image.
    """
    if orientation == 1:
        return label
    exchanges_sides = orientation >= 5 and size[0] != size[1]
    if exchanges_sides and label.shape == size[::-1]:
        return images.turned(label, orientation)
    if not exchanges_sides and label.shape == size:
        raise BadSource(
            f"the image has EXIF orientation {orientation}, and the sizes do not tell whether its "
            "label is turned likewise. Turn the pixels of the image as the label needs it and "
            "remove the tag (exiftool -Orientation=1 -n, or jpegtran)."
        )
    return label


def wrong_classes(label: UInt8[np.ndarray, "h w"], classes: int) -> list[int]:
    """The values of a label that are no class and not 255."""
    return [value for value in values(label) if classes <= value != IGNORE]
