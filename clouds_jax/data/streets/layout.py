"""What stands where: the road, its two sides, and everything on them."""

import dataclasses

from clouds_jax.data.streets.buildings import Building, sample_look
from clouds_jax.data.streets.camera import FAR
from clouds_jax.data.streets.dice import Dice
from clouds_jax.data.streets.domains import Domain

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
    x: float
    z: float
    size: tuple[float, float, float]
    turn: float
    tier: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Barrier:
    """A hedge, fence or wall along the street from `z0` to `z1`."""

    kind: str
    x: float
    z0: float
    z1: float
    height: float
    seed: int


@dataclasses.dataclass(frozen=True)
class Crossing:
    """A street that crosses between `z0` and `z1`."""

    z0: float
    z1: float
    lights: bool


@dataclasses.dataclass(frozen=True)
class Side:
    """The cross section on one side, in metres from the middle line: kerb, walk, front."""

    sign: int
    parking: bool
    lane_end: float
    kerb: float
    walk: float
    front: float
    verge: float


@dataclasses.dataclass
class Layout:
    """A street before it is drawn."""

    lanes: int
    lane: float
    median: float
    cobbled: bool
    rails: bool
    sides: tuple[Side, Side]
    crossing: Crossing | None
    camera_x: float
    buildings: list[Building] = dataclasses.field(default_factory=list)
    barriers: list[Barrier] = dataclasses.field(default_factory=list)
    things: list[Thing] = dataclasses.field(default_factory=list)
    gaps: list[tuple[int, float, float]] = dataclasses.field(default_factory=list)

    def lane_x(self, index: int) -> float:
        """Returns the middle of lane `index` of our direction; negative ones are oncoming."""
        side = 1 if index >= 0 else -1
        count = index if index >= 0 else -index - 1
        return side * (self.median / 2 + self.lane * (count + 0.5))

    def crossed(self, z: float, margin: float = 0.0) -> bool:
        """Returns whether the crossing street is at depth `z`."""
        return bool(self.crossing and self.crossing.z0 - margin < z < self.crossing.z1 + margin)


def sample_layout(domain: Domain, dice: Dice) -> Layout:
    """Draws the layout of one picture."""
    city = domain.city
    lanes = dice.integer(*city.lanes)
    median = dice.between(2.0, 4.5) if dice.chance(city.median) else 0.0
    lane = city.lane * dice.between(0.95, 1.05)
    sides = tuple(_sample_side(domain, dice, sign, median / 2 + lanes * lane) for sign in (-1, 1))
    crossing = None
    if dice.chance(0.6):
        z0 = dice.between(16, 70)
        crossing = Crossing(z0, z0 + dice.between(7, 14), dice.chance(0.7))
    layout = Layout(
        lanes=lanes,
        lane=lane,
        median=median,
        cobbled=dice.chance(city.cobbled),
        rails=dice.chance(city.tram),
        sides=sides,
        crossing=crossing,
        camera_x=0.0,
    )
    layout.camera_x = layout.lane_x(dice.integer(0, lanes - 1)) + dice.between(-0.5, 0.5)
    for side in sides:
        _build_side(layout, domain, side, dice)
        _furnish(layout, domain, side, dice)
        _park(layout, domain, side, dice)
        _people(layout, domain, side, dice)
    _drive(layout, domain, dice)
    return layout


def _sample_side(domain: Domain, dice: Dice, sign: int, lane_end: float) -> Side:
    city = domain.city
    parking = dice.chance(city.parking)
    kerb = lane_end + (2.2 if parking else 0.25)
    verge = dice.between(1.2, 2.2) if dice.chance(0.3) else 0.0
    walk = kerb + verge + dice.between(*city.sidewalk)
    return Side(sign, parking, lane_end, kerb, walk, walk + dice.between(*city.setback), verge)


def _build_side(layout: Layout, domain: Domain, side: Side, dice: Dice) -> None:
    """Rows of buildings with gaps; gaps get fences, hedges, walls and trees."""
    city = domain.city
    garden = side.front - side.walk > 3.0
    crossing = layout.crossing
    z, corner, free = dice.between(-12, 0), False, False
    while z < FAR - 20:
        width = dice.between(*city.width)
        if crossing and z < crossing.z1 + 3 and z + width > crossing.z0 - 3:
            if crossing.z0 - 3 - z > 6:
                width = crossing.z0 - 3 - z
            else:
                z, corner, free = crossing.z1 + 3, True, True
                continue
        if dice.chance(0.13) and not corner:
            _fill_gap(layout, side, z, z + width, garden, dice)
            z, free = z + width, True
            continue
        x = side.sign * (side.front + (dice.between(0, 2.5) if garden else 0.0))
        deep = 45.0 if corner else dice.between(9, 13)
        layout.buildings.append(
            Building(sample_look(city, dice), x, side.sign, z, z + width, deep, free, dice.seed())
        )
        z, corner, free = z + width, False, garden
        if dice.chance(city.gap):
            gap = dice.between(3, 9) if not garden else dice.between(4, 12)
            end = min(z + gap, crossing.z0 - 3) if crossing and z < crossing.z0 else z + gap
            if end - z > 2:
                _fill_gap(layout, side, z, end, garden, dice)
                z, free = end, True
    if garden:
        _garden(layout, side, dice)


def _fill_gap(layout, side, z0, z1, garden, dice) -> None:
    layout.gaps.append((side.sign, z0, z1))
    if not garden:
        kind = dice.weighted({"brick": 2, "stone": 1, "concrete": 2, "bars": 2, "planks": 1,
                              "mesh": 1, "hedge": 1})  # fmt: skip
        x = side.sign * (side.front + 0.3)
        height = dice.between(1.4, 2.3)
        layout.barriers.append(Barrier(kind, x, z0, z1, height, dice.seed()))
    for _ in range(dice.integer(1, 3) + int((z1 - z0) / 5)):
        x = side.sign * (side.front + dice.between(2.5, 12))
        height = dice.between(5, 11)
        layout.things.append(
            Thing("tree", x, dice.between(z0, z1), (1, 1, height), 0, 0, dice.seed())
        )


def _garden(layout: Layout, side: Side, dice: Dice) -> None:
    """Front gardens: something along the sidewalk, bushes and trees behind it."""
    z = dice.between(-4, 2)
    while z < 120:
        long = dice.between(8, 16)
        kind = dice.weighted({"hedge": 4, "planks": 2, "bars": 2, "brick": 2, "stone": 1,
                              "mesh": 1, "none": 3})  # fmt: skip
        if kind != "none":
            height = dice.between(0.7, 1.5)
            start, stop = z, z + long - dice.pick((0.0, 3.0))
            crossing = layout.crossing
            if crossing and start < crossing.z1 + 3 and stop > crossing.z0 - 3:
                start, stop = (start, crossing.z0 - 3) if start < crossing.z0 - 4 else (0, 0)
            if stop > start:
                x = side.sign * (side.walk + 0.2)
                layout.barriers.append(Barrier(kind, x, start, stop, height, dice.seed()))
        z += long
    z = dice.between(3, 8)
    while z < 150:
        if not layout.crossed(z, 4):
            x = side.sign * dice.between(side.walk + 1.2, max(side.front - 1.0, side.walk + 1.4))
            if dice.chance(0.35):
                size = (1.0, 1.0, dice.between(4.5, 9.5))
                layout.things.append(Thing("tree", x, z, size, 0, 0, dice.seed()))
            elif dice.chance(0.6):
                size = (1.0, 1.0, dice.between(0.7, 1.8))
                layout.things.append(Thing("bush", x, z, size, 0, 0, dice.seed()))
        z += dice.between(2.5, 7)


def _furnish(layout: Layout, domain: Domain, side: Side, dice: Dice) -> None:
    """Lamps, trees, signs, traffic lights and bollards near the kerb."""
    edge = side.sign * (side.kerb + 0.5)

    def add(kind: str, x: float, z: float, height: float) -> None:
        layout.things.append(Thing(kind, x, z, (0.2, 0.2, height), 0, 2, dice.seed()))

    spacing, z = dice.between(20, 30), dice.between(8, 24)
    while z < 150:
        if not layout.crossed(z, 2):
            add("lamp", edge, z, 8.0)
        z += spacing
    spacing, z = dice.between(7, 13), dice.between(7, 14)
    if dice.chance(0.75):
        reach = side.front - side.kerb
        while z < 160:
            if not layout.crossed(z, 5) and dice.chance(domain.city.trees):
                x = side.sign * (side.kerb + min(0.9, reach * 0.4))
                add("tree", x, z, dice.between(5.0, 10.0))
            z += spacing
    z = dice.between(9, 24)
    while z < 90:
        if not layout.crossed(z):
            add("sign", edge + side.sign * dice.between(-0.1, 0.3), z, 2.8)
        z += dice.between(14, 40)
    if layout.crossing:
        crossing = layout.crossing
        kind = "light" if crossing.lights else "sign"
        add(kind, edge, crossing.z0 - 2.4, 3.3)
        if dice.chance(0.7):
            add(kind, edge, crossing.z1 + 1.2, 3.3)
    elif dice.chance(0.35):
        add("light", edge, dice.between(18, 50), 3.3)
    if dice.chance(0.25) and not side.parking:
        z = dice.between(5, 20)
        for _ in range(dice.integer(3, 9)):
            if not layout.crossed(z, 2):
                x = side.sign * (side.kerb + 0.3)
                layout.things.append(Thing("railing", x, z, (3.0, 0.1, 1.0), 1, 2, dice.seed()))
            z += 3.0
    elif dice.chance(0.3):
        z = dice.between(5, 20)
        for _ in range(dice.integer(3, 9)):
            if not layout.crossed(z):
                add("bollard", side.sign * (side.kerb + 0.35), z, 0.8)
            z += 1.8


def _park(layout: Layout, domain: Domain, side: Side, dice: Dice) -> None:
    """Parked cars, motorcycles and bicycles."""
    if side.parking:
        z, x = dice.between(2, 9), side.sign * (side.kerb - 1.08)
        busy = dice.between(0.35, 0.95)
        while z < 110:
            kind = dice.weighted({"car": 12, "van": 1.5, "motorcycle": 1.2, "truck": 0.25})
            long, wide, high = SIZES[kind]
            if dice.chance(busy) and not layout.crossed(z + long / 2, 5):
                turn = 1 if (side.sign > 0) == dice.chance(0.9) else -1
                size = (long, wide, high)
                layout.things.append(
                    Thing(kind, x + dice.between(-0.1, 0.1), z + long / 2, size, turn, 2,
                          dice.seed())
                )  # fmt: skip
            z += long + dice.between(0.7, 1.8)
    for kind, chance in (("bicycles", 0.4), ("motorcycles", 0.2)):
        if dice.chance(chance):
            z = dice.between(9, 34)
            for _ in range(dice.integer(1, 4)):
                x = side.sign * (side.kerb + dice.between(0.7, 1.3))
                if not layout.crossed(z, 1):
                    turn = dice.pick((-1, 1)) if dice.chance(0.7) else 0
                    size = SIZES[kind[:-1]]
                    layout.things.append(
                        Thing("parked_" + kind[:-1], x, z, size, turn, 2, dice.seed())
                    )
                z += dice.between(0.8, 1.6)


def _people(layout: Layout, domain: Domain, side: Side, dice: Dice) -> None:
    busy = domain.city.people * dice.between(0.3, 2.2)
    count = int(busy * 9 + dice.unit())
    for _ in range(count):
        near = dice.unit()
        z = 6.5 + 78 * near * near
        low = side.kerb + side.verge + 0.5
        x = side.sign * dice.between(low, max(side.walk - 0.3, low + 0.2))
        if layout.crossed(z):
            continue
        turn = dice.pick((-1, 1)) if dice.chance(0.3) else 0
        layout.things.append(Thing("person", x, z, (0.4, 0.5, 1.7), turn, 2, dice.seed()))
        if dice.chance(0.35):
            layout.things.append(
                Thing("person", x + dice.between(0.5, 0.7), z + dice.between(-0.3, 0.3),
                      (0.4, 0.5, 1.7), turn, 2, dice.seed())
            )  # fmt: skip


def _drive(layout: Layout, domain: Domain, dice: Dice) -> None:
    """What moves on the road, and who crosses it."""
    traffic = domain.city.traffic
    taken: dict[int, list[tuple[float, float]]] = {}

    def free(lane: int, z0: float, z1: float) -> bool:
        return all(z1 < a or z0 > b for a, b in taken.get(lane, []))

    def put(kind: str, lane: int, z: float, x: float, turn: float, size) -> None:
        taken.setdefault(lane, []).append((z - size[0] / 2 - 2.5, z + size[0] / 2 + 2.5))
        layout.things.append(Thing(kind, x, z, size, turn, 2, dice.seed()))

    if layout.rails and dice.chance(0.75):
        lane = dice.pick((0, -1, -1))
        z = dice.between(20, 50) if lane == 0 else dice.between(17, 45)
        put("tram", lane, z, layout.lane_x(lane), 1 if lane == 0 else -1, SIZES["tram"])
    if layout.median and dice.chance(0.45):
        for i in range(40):
            z = 3.0 + 3.0 * i
            if not layout.crossed(z, 6):
                layout.things.append(Thing("barrier", 0.2, z, (3.0, 0.4, 0.85), 1, 2, 0))
    busy = dice.between(0.2, 0.9)
    for lane in range(-layout.lanes, layout.lanes):
        own = layout.lane_x(lane)
        same = abs(own - layout.camera_x) < layout.lane * 0.6
        z = dice.between(9, 26) if same else dice.between(5, 20)
        while z < 130:
            kind = dice.weighted(traffic)
            long, wide, high = SIZES[kind]
            middle = z + long / 2
            if dice.chance(busy) and free(lane, z, z + long) and not (same and z < 8):
                x = own + dice.between(-0.3, 0.3)
                if kind in ("bicycle", "motorcycle"):
                    x += 0.8 if lane >= 0 else -0.8
                put(kind, lane, middle, x, 1 if lane >= 0 else -1, (long, wide, high))
            z += long + dice.between(5, 22)
    crossing = layout.crossing
    if crossing:
        middle = (crossing.z0 + crossing.z1) / 2
        for _ in range(dice.integer(0, 2)):
            kind = dice.weighted({"car": 6, "van": 1, "bicycle": 3, "truck": 0.7, "bus": 0.5})
            x = dice.between(-14, 14)
            if all(
                free(lane, middle - 2, middle + 2) for lane in range(-layout.lanes, layout.lanes)
            ):
                turn = dice.pick((-2, 2))
                layout.things.append(Thing(kind, x, middle, SIZES[kind], turn, 2, dice.seed()))
                break
    if dice.chance(0.5):
        z = crossing.z0 - 2.2 if crossing else dice.between(12, 40)
        for _ in range(dice.integer(1, 4)):
            x = dice.between(-layout.sides[0].kerb, layout.sides[1].kerb)
            if all(free(lane, z - 1, z + 1) for lane in range(-layout.lanes, layout.lanes)):
                turn = dice.pick((-1, 1))
                layout.things.append(
                    Thing("person", x, z + dice.between(-0.8, 0.8), (0.4, 0.5, 1.7), turn, 2,
                          dice.seed())
                )  # fmt: skip
    if dice.chance(0.18):
        z = dice.between(8, 30)
        if all(free(lane, z - 1, z + 1) for lane in range(-layout.lanes, layout.lanes)):
            x = dice.between(-layout.sides[0].kerb, layout.sides[1].kerb)
            layout.things.append(
                Thing("bicycle", x, z, SIZES["bicycle"], dice.pick((-2, 2)), 2, dice.seed())
            )
