"""The layout of a street: the road, its two sides, and everything that stands on them."""

import dataclasses

from clouds_jax.streets.buildings import Building
from clouds_jax.streets.types import Number, Point

# Length, width and height in metres, for keeping things apart and for their shadows.
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
        kind: name of what it is; decides which function draws it.
        x, z: position of its middle, metres.
        size: length, width and height, metres.
        turn: heading, whose meaning depends on the kind; of vehicles, 1 drives as the camera does,
            -1 towards it, 2 and -2 across; of people and parked bicycles, 1 and -1 show a side, 0
            an end.
        tier: things of a lower tier are drawn before all things of a higher one.
        seed: seed of the details that are sampled when it is drawn.
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
    """The cross section on one side of the road; distances in metres from the middle line.

    Attributes:
        sign: -1 left, 1 right.
        parking: whether there is a parking lane.
        lane_end: end of the driving lanes.
        kerb: edge of the road.
        walk: outer edge of the sidewalk.
        front: facades.
        verge: width of the strip of grass at the kerb, 0 for none.
    """

    sign: int
    parking: bool
    lane_end: Number
    kerb: Number
    walk: Number
    front: Number
    verge: Number


@dataclasses.dataclass
class Layout:
    """A street before it is drawn.

    Attributes:
        lanes: driving lanes per direction.
        lane: width of a lane, metres.
        median: width of the strip between the directions, 0 for none.
        cobbled: whether the road is cobbled.
        rails: whether trams run here.
        sides: left and right.
        crossing: street that crosses, or None.
        camera_x: x of the camera.
        buildings, barriers, things: what stands on it.
        gaps: (side, z0, z1) of the gaps between buildings.
    """

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
