"""Puts things into a layout: street furniture, parked and moving vehicles, people."""

from clouds_jax.streets.domains import Domain
from clouds_jax.streets.layout import SIZES, Layout, Side, Thing
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.types import Flat, Number


def furnish(layout: Layout, domain: Domain, side: Side, rng: Rng) -> None:
    """Lamps, trees, signs, traffic lights and bollards near the kerb."""
    edge = side.sign * (side.kerb + 0.5)

    def add(kind: str, x: Number, z: Number, height: Number) -> None:
        layout.things.append(Thing(kind, x, z, (0.2, 0.2, height), 0, 2, rng.seed()))

    spacing, z = rng.between(20, 30), rng.between(8, 24)
    while z < 150:
        if not layout.crossed(z, 2):
            add("lamp", edge, z, 8.0)
        z += spacing
    spacing, z = rng.between(7, 13), rng.between(7, 14)
    if rng.chance(0.75):
        reach = side.front - side.kerb
        while z < 160:
            if not layout.crossed(z, 5) and rng.chance(domain.city.trees):
                x = side.sign * (side.kerb + min(0.9, reach * 0.4))
                add("tree", x, z, rng.between(5.0, 10.0))
            z += spacing
    z = rng.between(9, 24)
    while z < 90:
        if not layout.crossed(z):
            add("sign", edge + side.sign * rng.between(-0.1, 0.3), z, 2.8)
        z += rng.between(14, 40)
    if layout.crossing:
        crossing = layout.crossing
        kind = "light" if crossing.lights else "sign"
        add(kind, edge, crossing.z0 - 2.4, 3.3)
        if rng.chance(0.7):
            add(kind, edge, crossing.z1 + 1.2, 3.3)
    elif rng.chance(0.35):
        add("light", edge, rng.between(18, 50), 3.3)
    if rng.chance(0.25) and not side.parking:
        z = rng.between(5, 20)
        for _ in range(rng.integer(3, 9)):
            if not layout.crossed(z, 2):
                x = side.sign * (side.kerb + 0.3)
                layout.things.append(Thing("railing", x, z, (3.0, 0.1, 1.0), 1, 2, rng.seed()))
            z += 3.0
    elif rng.chance(0.3):
        z = rng.between(5, 20)
        for _ in range(rng.integer(3, 9)):
            if not layout.crossed(z):
                add("bollard", side.sign * (side.kerb + 0.35), z, 0.8)
            z += 1.8


def park(layout: Layout, domain: Domain, side: Side, rng: Rng) -> None:
    """Parked cars, motorcycles and bicycles."""
    if side.parking:
        z, x = rng.between(2, 9), side.sign * (side.kerb - 1.08)
        busy = rng.between(0.35, 0.95)
        while z < 110:
            kind = rng.weighted({"car": 12, "van": 1.5, "motorcycle": 1.2, "truck": 0.25})
            long, wide, high = SIZES[kind]
            if rng.chance(busy) and not layout.crossed(z + long / 2, 5):
                turn = 1 if (side.sign > 0) == rng.chance(0.9) else -1
                size = (long, wide, high)
                layout.things.append(
                    Thing(kind, x + rng.between(-0.1, 0.1), z + long / 2, size, turn, 2,
                          rng.seed())
                )  # fmt: skip
            z += long + rng.between(0.7, 1.8)
    for kind, chance in (("bicycles", 0.4), ("motorcycles", 0.2)):
        if rng.chance(chance):
            z = rng.between(9, 34)
            for _ in range(rng.integer(1, 4)):
                x = side.sign * (side.kerb + rng.between(0.7, 1.3))
                if not layout.crossed(z, 1):
                    turn = rng.pick((-1, 1)) if rng.chance(0.7) else 0
                    size = SIZES[kind[:-1]]
                    layout.things.append(
                        Thing("parked_" + kind[:-1], x, z, size, turn, 2, rng.seed())
                    )
                z += rng.between(0.8, 1.6)


def people(layout: Layout, domain: Domain, side: Side, rng: Rng) -> None:
    """People on the sidewalk, alone and in pairs."""
    busy = domain.city.people * rng.between(0.3, 2.2)
    count = int(busy * 9 + rng.unit())
    for _ in range(count):
        near = rng.unit()
        z = 6.5 + 78 * near * near
        low = side.kerb + side.verge + 0.5
        x = side.sign * rng.between(low, max(side.walk - 0.3, low + 0.2))
        if layout.crossed(z):
            continue
        turn = rng.pick((-1, 1)) if rng.chance(0.3) else 0
        layout.things.append(Thing("person", x, z, (0.4, 0.5, 1.7), turn, 2, rng.seed()))
        if rng.chance(0.35):
            layout.things.append(
                Thing("person", x + rng.between(0.5, 0.7), z + rng.between(-0.3, 0.3),
                      (0.4, 0.5, 1.7), turn, 2, rng.seed())
            )  # fmt: skip


def drive(layout: Layout, domain: Domain, rng: Rng) -> None:
    """Vehicles that move on the road, and people and bicycles that cross it."""
    traffic = domain.city.traffic
    taken: dict[int, list[Flat]] = {}

    def free(lane: int, z0: Number, z1: Number) -> bool:
        return all(z1 < a or z0 > b for a, b in taken.get(lane, []))

    def put(kind: str, lane: int, z: Number, x: Number, turn: Number, size) -> None:
        taken.setdefault(lane, []).append((z - size[0] / 2 - 2.5, z + size[0] / 2 + 2.5))
        layout.things.append(Thing(kind, x, z, size, turn, 2, rng.seed()))

    if layout.rails and rng.chance(0.75):
        lane = rng.pick((0, -1, -1))
        z = rng.between(20, 50) if lane == 0 else rng.between(17, 45)
        put("tram", lane, z, layout.lane_x(lane), 1 if lane == 0 else -1, SIZES["tram"])
    if layout.median and rng.chance(0.45):
        for i in range(40):
            z = 3.0 + 3.0 * i
            if not layout.crossed(z, 6):
                layout.things.append(Thing("barrier", 0.2, z, (3.0, 0.4, 0.85), 1, 2, 0))
    busy = rng.between(0.2, 0.9)
    for lane in range(-layout.lanes, layout.lanes):
        own = layout.lane_x(lane)
        same = abs(own - layout.camera_x) < layout.lane * 0.6
        z = rng.between(9, 26) if same else rng.between(5, 20)
        while z < 130:
            kind = rng.weighted(traffic)
            long, wide, high = SIZES[kind]
            middle = z + long / 2
            if rng.chance(busy) and free(lane, z, z + long) and not (same and z < 8):
                x = own + rng.between(-0.3, 0.3)
                if kind in ("bicycle", "motorcycle"):
                    x += 0.8 if lane >= 0 else -0.8
                put(kind, lane, middle, x, 1 if lane >= 0 else -1, (long, wide, high))
            z += long + rng.between(5, 22)
    crossing = layout.crossing
    if crossing:
        middle = (crossing.z0 + crossing.z1) / 2
        for _ in range(rng.integer(0, 2)):
            kind = rng.weighted({"car": 6, "van": 1, "bicycle": 3, "truck": 0.7, "bus": 0.5})
            x = rng.between(-14, 14)
            if all(
                free(lane, middle - 2, middle + 2) for lane in range(-layout.lanes, layout.lanes)
            ):
                turn = rng.pick((-2, 2))
                layout.things.append(Thing(kind, x, middle, SIZES[kind], turn, 2, rng.seed()))
                break
    if rng.chance(0.5):
        z = crossing.z0 - 2.2 if crossing else rng.between(12, 40)
        for _ in range(rng.integer(1, 4)):
            x = rng.between(-layout.sides[0].kerb, layout.sides[1].kerb)
            if all(free(lane, z - 1, z + 1) for lane in range(-layout.lanes, layout.lanes)):
                turn = rng.pick((-1, 1))
                layout.things.append(
                    Thing("person", x, z + rng.between(-0.8, 0.8), (0.4, 0.5, 1.7), turn, 2,
                          rng.seed())
                )  # fmt: skip
    if rng.chance(0.18):
        z = rng.between(8, 30)
        if all(free(lane, z - 1, z + 1) for lane in range(-layout.lanes, layout.lanes)):
            x = rng.between(-layout.sides[0].kerb, layout.sides[1].kerb)
            layout.things.append(
                Thing("bicycle", x, z, SIZES["bicycle"], rng.pick((-2, 2)), 2, rng.seed())
            )
