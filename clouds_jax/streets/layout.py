"""What stands where: the road, its two sides, and everything on them."""

import dataclasses

from clouds_jax.streets.buildings import Building
from clouds_jax.streets.types import Number, Point

# How long and wide things are, for keeping them apart and for their shadows.
SIZES = {
    "car": (4.6, 1.85, 1.5),
    "van": (5.0, 1.95, 2.0),
    "truck": (7.2, 2.5, 3.2),
    "bus": (11.0, 2.55, 3.0),
    "tram": (18.0, 2.45, 3.4),
    "motorcycle": (2.0, 0.6, 1.5),
    "bicycle": (1.8, 0.5, 1.6),
}


@dataclasses.dataclass(frozen=True)
class Thing:
    """Something that stands upright.

    Attributes:
        kind: which function draws it.
        x, z: of its middle.
        size: metres: length, width and height; a tree's height is the last.
        turn: depends on the kind: -1 comes towards the camera, 1 goes with it, 0 stands across.
        tier: things of a lower tier are drawn before all of a higher one.
        seed: of what else is to be decided.
    """

    kind: str
    x: Number
    z: Number
    size: Point
    turn: Number
    tier: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Barrier:
    """A hedge, fence or wall along the street from `z0` to `z1`."""

    kind: str
    x: Number
    z0: Number
    z1: Number
    height: Number
    seed: int


@dataclasses.dataclass(frozen=True)
class Crossing:
    """A street that crosses between `z0` and `z1`."""

    z0: Number
    z1: Number
    lights: bool


@dataclasses.dataclass(frozen=True)
class Side:
    """The cross section on one side, in metres from the middle line: kerb, walk, front."""

    sign: int
    parking: bool
    lane_end: Number
    kerb: Number
    walk: Number
    front: Number
    verge: Number


@dataclasses.dataclass
class Layout:
    """A street before it is drawn."""

    lanes: int
    lane: Number
    median: Number
    cobbled: bool
    rails: bool
    sides: tuple[Side, Side]
    crossing: Crossing | None
    camera_x: Number
    buildings: list[Building] = dataclasses.field(default_factory=list)
    barriers: list[Barrier] = dataclasses.field(default_factory=list)
    things: list[Thing] = dataclasses.field(default_factory=list)
    gaps: list[tuple[int, float, float]] = dataclasses.field(default_factory=list)

    def lane_x(self, index: int) -> float:
        """Returns the middle of lane `index` of our direction; negative ones are oncoming."""
        side = 1 if index >= 0 else -1
        count = index if index >= 0 else -index - 1
        return side * (self.median / 2 + self.lane * (count + 0.5))

    def crossed(self, z: Number, margin: Number = 0.0) -> bool:
        """Returns whether the crossing street is at depth `z`."""
        return bool(self.crossing and self.crossing.z0 - margin < z < self.crossing.z1 + margin)
