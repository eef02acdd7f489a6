"""Label spaces: names and colours of the classes, and reductions from one space to another.

255 is *ignore* in every space. A reduction is a table of 256 entries that is indexed with a label
map or a prediction.
"""

import colorsys
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from clouds_jax.constants import IGNORE

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class LabelSpace:
    """The classes of a label map: train id i is `names[i]`.

    Attributes:
        name: key in `SPACES`.
        names: one per train id.
        colours: RGB, 0..255, one per train id.
    """

    name: str
    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    def __len__(self) -> int:
        return len(self.names)

    def palette(self) -> UInt8[np.ndarray, "256 3"]:
        """RGB of every value of a label map; values that are not a class are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self)] = self.colours
        return palette

    def as_json(self) -> dict[str, Any]:
        """Name, classes and colours by value, as runs and weights folders keep them."""
        return {"name": self.name, "names": list(self.names), "colours": list(self.colours)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "LabelSpace":
        """The space that `as_json` wrote."""
        colours = tuple((int(r), int(g), int(b)) for r, g, b in stored["colours"])
        return cls(stored["name"], tuple(stored["names"]), colours)


def _space(name: str, **classes: Colour) -> LabelSpace:
    names = tuple(key.replace("_", " ") for key in classes)
    return LabelSpace(name, names, tuple(classes.values()))


SPACES: dict[str, LabelSpace] = {
    space.name: space
    for space in (
        # Names, order and colours of the 19 evaluated classes. Source: cityscapesScripts.
        _space(
            "cityscapes19",
            road=(128, 64, 128),
            sidewalk=(244, 35, 232),
            building=(70, 70, 70),
            wall=(102, 102, 156),
            fence=(190, 153, 153),
            pole=(153, 153, 153),
            traffic_light=(250, 170, 30),
            traffic_sign=(220, 220, 0),
            vegetation=(107, 142, 35),
            terrain=(152, 251, 152),
            sky=(70, 130, 180),
            person=(220, 20, 60),
            rider=(255, 0, 0),
            car=(0, 0, 142),
            truck=(0, 0, 70),
            bus=(0, 60, 100),
            train=(0, 80, 100),
            motorcycle=(0, 0, 230),
            bicycle=(119, 11, 32),
        ),
        # The 11 classes and their order in SegNet's CamVid.
        _space(
            "camvid11",
            sky=(128, 128, 128),
            building=(128, 0, 0),
            pole=(192, 192, 128),
            road=(128, 64, 128),
            sidewalk=(60, 40, 222),
            tree=(128, 128, 0),
            sign=(192, 128, 128),
            fence=(64, 64, 128),
            car=(64, 0, 128),
            pedestrian=(64, 64, 0),
            bicyclist=(0, 128, 192),
        ),
        # Cityscapes' categories; each takes the colour of its commonest class.
        _space(
            "categories7",
            flat=(128, 64, 128),
            construction=(70, 70, 70),
            object=(153, 153, 153),
            nature=(107, 142, 35),
            sky=(70, 130, 180),
            human=(220, 20, 60),
            vehicle=(0, 0, 142),
        ),
    )
}

# The classes that SYNTHIA shares with Cityscapes: all but terrain, truck and train. The 16-class
# mIoU is the mean over these of the 19-class IoUs.
SYNTHIA16: tuple[int, ...] = tuple(i for i in range(19) if i not in (9, 14, 16))

_REDUCTIONS: dict[tuple[str, str], dict[str, str]] = {
    ("cityscapes19", "camvid11"): {
        "road": "road",
        "sidewalk": "sidewalk",
        "building": "building",
        "wall": "building",
        "fence": "fence",
        "pole": "pole",
        "traffic light": "sign",
        "traffic sign": "sign",
        "vegetation": "tree",
        "terrain": "tree",
        "sky": "sky",
        "person": "pedestrian",
        "rider": "bicyclist",
        "car": "car",
        "truck": "car",
        "bus": "car",
        "train": "car",
        "motorcycle": "bicyclist",
        "bicycle": "bicyclist",
    },
    ("cityscapes19", "categories7"): {
        "road": "flat",
        "sidewalk": "flat",
        "building": "construction",
        "wall": "construction",
        "fence": "construction",
        "pole": "object",
        "traffic light": "object",
        "traffic sign": "object",
        "vegetation": "nature",
        "terrain": "nature",
        "sky": "sky",
        "person": "human",
        "rider": "human",
        "car": "vehicle",
        "truck": "vehicle",
        "bus": "vehicle",
        "train": "vehicle",
        "motorcycle": "vehicle",
        "bicycle": "vehicle",
    },
}


def get_space(name: str) -> LabelSpace:
    """The label space of that name."""
    if name not in SPACES:
        raise KeyError(f"SPACES has no {name!r}; it has: {', '.join(SPACES)}.")
    return SPACES[name]


def reduction(source: str, target: str) -> UInt8[np.ndarray, "256"]:
    """The table from train ids of space `source` to those of space `target`.

    Returns:
        `table[id]`; values that are not a class of `source` become ignore.

    Raises:
        KeyError: a space is unknown, or there is no reduction between them.
    """
    source_names, target_names = get_space(source).names, get_space(target).names
    table = np.full(256, IGNORE, np.uint8)
    if source == target:
        table[: len(source_names)] = np.arange(len(source_names))
        return table
    if (source, target) not in _REDUCTIONS:
        known = ", ".join(f"{a} -> {b}" for a, b in _REDUCTIONS)
        raise KeyError(f"labels of {source!r} do not reduce to {target!r}; known: {known}.")
    for name, to in _REDUCTIONS[source, target].items():
        table[source_names.index(name)] = target_names.index(to)
    return table


def numbered_space(count: int, names: tuple[str, ...] = ()) -> LabelSpace:
    """A space of classes that no dataset names, in colours that tell neighbours apart.

    Args:
        count: number of classes, 1..255.
        names: names of the classes; by default "class 0", "class 1", ...

    Raises:
        ValueError: too many classes, or a name occurs twice.
    """
    if not 1 <= count <= IGNORE:
        raise ValueError(f"{count} classes: a label map holds 1..{IGNORE}.")
    names = names or tuple(f"class {i}" for i in range(count))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"classes that stand twice: {', '.join(twice)}.")
    # a golden-ratio walk around the colour circle, in three steps of brightness
    hues = [(i * 0.618034) % 1 for i in range(count)]
    colours = [colorsys.hsv_to_rgb(h, 0.65, (0.95, 0.75, 0.55)[i % 3]) for i, h in enumerate(hues)]
    rgb = tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colours)
    return LabelSpace(f"classes{count}", names, rgb)
