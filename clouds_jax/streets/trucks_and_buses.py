"""Trucks, buses and trams."""

import functools

from clouds_jax.streets.mesh import Builder, Mesh
from clouds_jax.streets.types import Number
from clouds_jax.streets.vehicles import wheel


def _lamps(builder: Builder, x: Number, y: Number, z: Number, slot: str, w=0.3, h=0.16) -> None:
    for sign in (1, -1):
        builder.end(sign * (x - w), sign * x, y, y + h, z, slot, 3)


@functools.cache
def truck(name: str) -> Mesh:
    """Returns a truck: "box" with a closed body, "flat" with a low bed and load, "tipper"."""
    builder = Builder()
    back, front = -3.6, 1.55
    high = {"box": 3.3, "flat": 1.55, "tipper": 2.3}[name]
    builder.part((0.0, 2.0, -1.0))
    builder.box(-1.22, 1.22, 1.0, high, back, front, "load")
    builder.box(-1.0, 1.0, 0.55, 1.0, back + 0.1, front, "trim")
    if name == "box":
        builder.end(-0.015, 0.015, 1.05, high - 0.05, back - 0.02, "gap")
        builder.end(-1.15, -1.05, 1.0, high, back - 0.02, "gap")
        builder.end(1.05, 1.15, 1.0, high, back - 0.02, "gap")
        builder.end(-1.22, 1.22, high - 0.12, high, back - 0.02, "gap")
        builder.sides(1.225, 1.7, 2.7, -2.6, 0.6, "sign")
        builder.sides(1.23, 2.05, 2.35, -2.2, 0.2, "load", 2)
        builder.sides(1.225, 1.0, 1.12, back, front, "gap")
    else:
        for z in (-2.5, -1.3, -0.1, 1.0):
            builder.sides(1.23, 1.0, high, z, z + 0.08, "gap")
        builder.end(-1.22, 1.22, 1.25, 1.3, back - 0.02, "gap")
        if name == "flat":
            builder.box(-0.9, 0.2, 1.55, 2.3, -2.8, -0.9, "cargo", 2)
            builder.box(-0.6, 0.9, 1.55, 2.0, -0.7, 1.0, "crate", 2)
    builder.end(-1.15, 1.15, 0.5, 0.75, back - 0.03, "trim")
    _lamps(builder, 1.1, 0.78, back - 0.05, "tail", 0.34, 0.16)
    builder.end(-0.3, 0.3, 0.78, 0.92, back - 0.05, "plate", 3)
    for z in (-2.6, -1.55):
        wheel(builder, 1.2, z, 0.48, 0.4)
    builder.part((0.0, 1.6, 2.6))
    top = 2.75
    builder.box(-1.15, 1.15, 0.5, 1.55, 1.7, 3.45, "paint")
    slope = [(1.15, 1.55, 1.7), (1.15, 1.55, 3.45), (1.08, top, 3.1), (1.08, top, 1.7)]
    builder.pair(slope, "paint")
    builder.face([(-1.15, 1.55, 3.45), (1.15, 1.55, 3.45), (1.08, top, 3.1), (-1.08, top, 3.1)],
                 "paint")  # fmt: skip
    builder.face(
        [(-1.08, top, 1.7), (1.08, top, 1.7), (1.08, top, 3.1), (-1.08, top, 3.1)], "paint"
    )
    builder.face([(-1.05, 1.62, 3.44), (1.05, 1.62, 3.44), (1.0, top - 0.2, 3.17),
                  (-1.0, top - 0.2, 3.17)], "glass", 1)  # fmt: skip
    builder.face([(-1.05, 2.1, 3.3), (1.05, 2.1, 3.3), (1.0, top - 0.2, 3.17),
                  (-1.0, top - 0.2, 3.17)], "sheen", 2)  # fmt: skip
    builder.pair([(1.16, 1.62, 2.2), (1.16, 1.62, 3.3), (1.1, top - 0.2, 3.0),
                  (1.1, top - 0.2, 2.2)], "glass", 1)  # fmt: skip
    builder.end(-0.75, 0.75, 0.95, 1.4, 3.46, "gap")
    builder.end(-1.15, 1.15, 0.42, 0.7, 3.48, "trim")
    builder.end(-0.3, 0.3, 0.5, 0.62, 3.5, "plate", 3)
    _lamps(builder, 1.08, 0.74, 3.5, "head", 0.3, 0.2)
    builder.pair(
        [(1.16, 0.6, 2.1), (1.16, 0.6, 2.13), (1.16, 1.5, 2.13), (1.16, 1.5, 2.1)], "gap", 1
    )
    wheel(builder, 1.16, 2.5, 0.48, 0.36)
    builder.pair([(1.18, 1.6, 3.42), (1.42, 1.6, 3.42), (1.42, 2.1, 3.4), (1.18, 2.1, 3.4)],
                 "trim", 6)  # fmt: skip
    return builder.build()


@functools.cache
def bus(name: str) -> Mesh:
    """Returns a city bus, or a "coach"."""
    builder = Builder()
    builder.part((0.0, 1.4, 0.0))
    half, back, front, high = 1.25, -5.4, 5.4, 2.95
    floor = 0.95 if name == "city" else 1.35
    ring = [(half, 0.32), (half, floor), (half - 0.04, high - 0.2), (half - 0.22, high)]
    for (x0, y0), (x1, y1) in zip(ring, ring[1:], strict=False):
        slot = "stripe" if y0 == 0.32 and name == "city" else "paint"
        builder.pair([(x0, y0, back), (x0, y0, front), (x1, y1, front), (x1, y1, back)], slot)
    builder.face([(-half + 0.22, high, back), (half - 0.22, high, back), (half - 0.22, high, front),
                  (-half + 0.22, high, front)], "roof")  # fmt: skip
    builder.box(-0.8, 0.8, high, high + 0.25, -3.0, -0.5, "roof", 1)
    for z in (back, front):
        outline = [(x, y, z) for x, y in ring]
        builder.face(outline + [(-x, y, q) for x, y, q in outline[::-1]], "paint")
    z = back + 0.3
    while z < front - 1.2:
        width = 1.35
        builder.sides(half + 0.005, floor + 0.12, floor + 0.7, z, z + width, "glass")
        builder.sides(half - 0.01, floor + 0.7, high - 0.42, z, z + width, "sheen")
        z += 1.47
    for z in (3.9, -0.6):  # doors on the kerb side
        points = [(half + 0.012, 0.4, z), (half + 0.012, 0.4, z + 1.2),
                  (half + 0.012, 2.45, z + 1.2), (half + 0.012, 2.45, z)]  # fmt: skip
        builder.face(points, "gap", 2)
        for q in (z + 0.06, z + 0.63):
            x = half + 0.015
            pane = [(x, 0.5, q), (x, 0.5, q + 0.5), (x, 2.35, q + 0.5), (x, 2.35, q)]
            builder.face(pane, "sheen", 3)
    builder.end(-1.1, 1.1, floor + 0.35, high - 0.5, back - 0.02, "glass")
    builder.end(-1.1, 1.1, floor + 0.85, high - 0.5, back - 0.025, "sheen", 2)
    builder.end(-0.5, 0.5, high - 0.42, high - 0.16, back - 0.02, "gap")
    builder.end(-0.3, 0.3, high - 0.38, high - 0.2, back - 0.025, "display", 2)
    builder.end(-0.9, 0.9, 0.6, floor + 0.15, back - 0.02, "gap")
    builder.end(-1.2, 1.2, 0.3, 0.5, back - 0.03, "trim")
    builder.end(-0.3, 0.3, 0.52, 0.64, back - 0.03, "plate", 3)
    _lamps(builder, 1.18, 0.7, back - 0.03, "tail", 0.2, 0.4)
    builder.end(-1.15, 1.15, floor + 0.05, high - 0.5, front + 0.02, "glass")
    builder.end(-1.15, 1.15, floor + 0.85, high - 0.5, front + 0.025, "sheen", 2)
    builder.end(-0.9, 0.9, high - 0.42, high - 0.12, front + 0.02, "gap")
    builder.end(-0.7, 0.7, high - 0.36, high - 0.18, front + 0.025, "display", 2)
    builder.end(-1.2, 1.2, 0.3, 0.5, front + 0.03, "trim")
    builder.end(-0.3, 0.3, 0.42, 0.54, front + 0.035, "plate", 3)
    _lamps(builder, 1.15, 0.62, front + 0.03, "head", 0.34, 0.2)
    for z in (-3.3, 2.9):
        wheel(builder, half + 0.01, z, 0.48, 0.3)
    builder.pair([(half, 1.9, front), (half + 0.28, 1.9, front), (half + 0.28, 2.3, front),
                  (half, 2.3, front)], "trim", 6)  # fmt: skip
    return builder.build()


@functools.cache
def tram(cars: int) -> Mesh:
    """Returns a tram of `cars` cars with rounded ends."""
    builder = Builder()
    length, half, high = 9.0, 1.2, 3.35
    start = -length * cars / 2
    for i in range(cars):
        z0, z1 = start + i * length + 0.15, start + (i + 1) * length - 0.15
        builder.part((0.0, 1.6, (z0 + z1) / 2))
        head, tail = i == cars - 1, i == 0
        stations = [(z0, 0.74 if tail else 1.0), (z0 + 0.7, 1.0), (z1 - 0.7, 1.0),
                    (z1, 0.74 if head else 1.0)]  # fmt: skip
        shape = ((1.0, 0.28), (1.0, 1.0), (1.0, 1.12), (0.98, 2.85), (0.72, high))
        rows = [[(half * k * x, y, z) for x, y in shape] for z, k in stations]
        for a, b in zip(rows, rows[1:], strict=False):
            for j, slot in enumerate(("paint", "stripe", "white", "roof")):
                builder.pair([a[j], b[j], b[j + 1], a[j + 1]], slot)
            top = [a[4], b[4], (-b[4][0], *b[4][1:]), (-a[4][0], *a[4][1:])]
            builder.face(top, "roof")
        for row in (rows[0], rows[-1]):
            builder.face(row + [(-x, y, z) for x, y, z in row[::-1]], "white")
        z = z0 + 0.85
        number = 0
        while z < z1 - 1.2:
            low = 0.36 if number % 3 == 1 else 1.35
            builder.sides(half + 0.005, low, 2.0, z, z + 1.1, "glass")
            builder.sides(half * 0.99 + 0.005, 2.0, 2.7, z, z + 1.1, "sheen")
            if number % 3 == 1:
                builder.sides(half + 0.01, low, 2.7, z + 0.53, z + 0.58, "gap", 2)
            z += 1.22
            number += 1
        for end, sign, lamp in ((z0, -1, "tail"), (z1, 1, "head")):
            if not (tail if sign < 0 else head):
                builder.end(-half, half, 0.4, 3.0, end + sign * 0.02, "gap")
                continue
            w = half * 0.74
            builder.end(-w + 0.06, w - 0.06, 1.35, 1.95, end + sign * 0.02, "glass")
            builder.end(-w + 0.06, w - 0.06, 1.95, 2.65, end + sign * 0.02, "sheen")
            builder.end(-0.55, 0.55, 2.75, 3.0, end + sign * 0.02, "gap")
            builder.end(-0.45, 0.45, 2.79, 2.96, end + sign * 0.03, "display", 2)
            builder.end(-w, w, 0.28, 1.02, end + sign * 0.02, "paint")
            builder.end(-w, w, 0.28, 0.45, end + sign * 0.03, "trim", 2)
            _lamps(builder, w - 0.06, 0.72, end + sign * 0.04, lamp, 0.26, 0.18)
        if i == cars // 2:
            builder.part((0.0, 3.7, (z0 + z1) / 2))
            m = (z0 + z1) / 2
            for step in range(4):
                y, z = high + 0.38 * step, m - 0.2 * (step if step < 2 else 3 - step)
                builder.box(-0.06, 0.06, y, y + 0.4, z - 0.05, z + 0.05, "gap", 3)
            builder.box(-0.7, 0.7, 4.88, 4.94, m - 0.65, m - 0.55, "gap", 4)
    return builder.build()
