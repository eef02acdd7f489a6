"""Cars and vans: bodies lofted through cross sections, with glass, lamps and wheels."""

import functools

from clouds_jax.streets.mesh import Builder, Mesh
from clouds_jax.streets.types import Number, Point

# Half of a wheel's circle, and the whole of it.
_COS = (1.0, 0.809, 0.309, -0.309, -0.809, -1.0, -0.809, -0.309, 0.309, 0.809)
_SIN = (0.0, 0.588, 0.951, 0.951, 0.588, 0.0, -0.588, -0.951, -0.951, -0.588)

# Stations from rear to front: z, height of the belt line, height of the top, half widths of belt
# and top. Then the intervals whose top is the rear and the front window; the cabin lies between.
PROFILES = {
    "sedan": (
        (
            (-2.30, 0.82, 0.92, 0.80, 0.64),
            (-2.22, 0.94, 1.04, 0.87, 0.70),
            (-1.62, 0.98, 1.10, 0.90, 0.72),
            (-0.85, 0.98, 1.40, 0.905, 0.60),
            (-0.30, 0.97, 1.45, 0.91, 0.59),
            (0.25, 0.96, 1.43, 0.91, 0.60),
            (1.10, 0.94, 1.06, 0.90, 0.73),
            (1.75, 0.88, 0.98, 0.88, 0.68),
            (2.14, 0.78, 0.88, 0.84, 0.62),
            (2.32, 0.68, 0.74, 0.76, 0.54),
        ),
        (2, 5),
    ),
    "hatch": (
        (
            (-1.98, 0.90, 1.00, 0.80, 0.64),
            (-1.91, 0.99, 1.09, 0.85, 0.70),
            (-1.52, 1.00, 1.43, 0.87, 0.58),
            (-0.72, 0.99, 1.50, 0.89, 0.58),
            (0.15, 0.97, 1.47, 0.89, 0.59),
            (0.98, 0.95, 1.08, 0.88, 0.72),
            (1.55, 0.90, 1.00, 0.86, 0.66),
            (1.88, 0.79, 0.88, 0.81, 0.60),
            (2.02, 0.68, 0.75, 0.74, 0.52),
        ),
        (1, 4),
    ),
    "estate": (
        (
            (-2.34, 0.88, 0.98, 0.82, 0.66),
            (-2.27, 0.98, 1.07, 0.88, 0.72),
            (-1.90, 0.99, 1.40, 0.90, 0.60),
            (-1.05, 0.99, 1.47, 0.91, 0.60),
            (-0.35, 0.98, 1.49, 0.91, 0.60),
            (0.28, 0.97, 1.46, 0.91, 0.61),
            (1.12, 0.95, 1.07, 0.90, 0.73),
            (1.78, 0.89, 0.99, 0.88, 0.68),
            (2.16, 0.79, 0.89, 0.84, 0.62),
            (2.34, 0.69, 0.75, 0.76, 0.54),
        ),
        (1, 5),
    ),
    "suv": (
        (
            (-2.22, 1.02, 1.12, 0.86, 0.70),
            (-2.14, 1.12, 1.22, 0.92, 0.76),
            (-1.78, 1.14, 1.62, 0.94, 0.66),
            (-1.00, 1.13, 1.70, 0.95, 0.66),
            (-0.36, 1.12, 1.72, 0.95, 0.66),
            (0.26, 1.11, 1.68, 0.95, 0.67),
            (1.00, 1.10, 1.22, 0.94, 0.78),
            (1.70, 1.05, 1.15, 0.92, 0.74),
            (2.08, 0.95, 1.05, 0.88, 0.68),
            (2.22, 0.82, 0.90, 0.80, 0.60),
        ),
        (1, 5),
    ),
    "van": (
        (
            (-2.46, 1.14, 1.30, 0.94, 0.88),
            (-2.44, 1.16, 1.36, 0.96, 0.88),
            (-2.36, 1.18, 1.98, 0.97, 0.84),
            (-0.50, 1.17, 2.06, 0.97, 0.84),
            (0.55, 1.16, 2.06, 0.97, 0.84),
            (1.22, 1.14, 2.00, 0.96, 0.83),
            (1.95, 1.10, 1.26, 0.94, 0.82),
            (2.34, 1.00, 1.10, 0.90, 0.72),
            (2.52, 0.80, 0.90, 0.84, 0.62),
        ),
        (1, 5),
    ),
}
PAINTS = (
    (190, 192, 196), (36, 38, 42), (226, 226, 224), (124, 128, 134), (150, 26, 30), (34, 58, 112),
    (86, 100, 118), (62, 74, 66), (196, 168, 120), (168, 60, 30), (20, 84, 92), (226, 186, 40),
    (74, 36, 40), (104, 142, 176),
)  # fmt: skip


def wheel(builder: Builder, x: Number, z: Number, radius: Number, thick: Number = 0.22) -> None:
    """Adds wheels at x and -x: tread, tyre, rim and hub."""
    ring = list(zip(_COS, _SIN, strict=True))

    def disc(size: Number, offset: Number):
        return [(x + offset, radius + s * size, z + c * size) for c, s in ring]

    for c0, s0, c1, s1 in ((0.309, -0.951, 0.809, -0.588), (0.809, -0.588, 1.0, 0.0)):
        for sign in (1, -1):
            builder.pair(
                [
                    (x, radius + s0 * radius, z + sign * c0 * radius),
                    (x - thick, radius + s0 * radius, z + sign * c0 * radius),
                    (x - thick, radius + s1 * radius, z + sign * c1 * radius),
                    (x, radius + s1 * radius, z + sign * c1 * radius),
                ],
                "tyre",
                -1,
            )
    builder.pair(disc(radius * 1.16, -0.02), "arch", 1)
    builder.pair(disc(radius, 0.0), "tyre", 2)
    builder.pair(disc(radius * 0.66, 0.01), "rim", 3)
    builder.pair(disc(radius * 0.5, 0.012), "spoke", 4)
    builder.pair(disc(radius * 0.2, 0.014), "rim", 5)


def between(a, b, t: Number):
    """Returns the point at share `t` of the way from `a` to `b`."""
    return tuple(p + (q - p) * t for p, q in zip(a, b, strict=True))


def inset(quad, s0: Number, s1: Number, t0: Number, t1: Number, lift: Number = 0.0):
    """Returns the part of `quad` (a, b, c, d) between shares s of a-b and t of a-d."""
    a, b, c, d = quad
    low0, low1 = between(a, b, s0), between(a, b, s1)
    high0, high1 = between(d, c, s0), between(d, c, s1)
    points = [
        between(low0, high0, t0),
        between(low1, high1, t0),
        between(low1, high1, t1),
        between(low0, high0, t1),
    ]
    return [(x + lift * (1 if x > 0 else -1), y, z) for x, y, z in points]


def _glass(builder: Builder, quad, mirrored: bool, s0=0.06, s1=0.94, t0=0.1, t1=0.88) -> None:
    """Adds a window that is darker below."""
    add = builder.pair if mirrored else builder.face
    lift = 0.004 if mirrored else 0.0
    middle = t0 + (t1 - t0) * 0.55
    add(inset(quad, s0, s1, t0, middle, lift), "glass", 1)
    add(inset(quad, s0, s1, middle, t1, lift), "sheen", 1)


@functools.cache
def car(name: str) -> Mesh:
    """Returns the mesh of the profile of that name."""
    stations, (rear, front) = PROFILES[name]
    builder = Builder()
    builder.part((0.0, 0.5, 0.0))
    rows = [_section(s, i in (0, len(stations) - 1)) for i, s in enumerate(stations)]
    for i, (a, b) in enumerate(zip(rows, rows[1:], strict=False)):
        seam = (between(a[0], a[1], 0.35), between(b[0], b[1], 0.35))
        builder.pair([a[0], b[0], seam[1], seam[0]], "trim")
        builder.pair([seam[0], seam[1], b[1], a[1]], "paint")
        for j in (1, 2, 3):
            builder.pair([a[j], b[j], b[j + 1], a[j + 1]], "paint")
        cover = [a[4], _mirror(a[4]), _mirror(b[4]), b[4]]
        builder.face(cover, "paint")
        if i in (rear, front):
            low, high = (a, b) if i == rear else (b, a)
            pane = [low[4], _mirror(low[4]), _mirror(high[4]), high[4]]
            _glass(builder, pane, False, 0.0, 1.0, 0.06, 0.95)
            # The window's flank narrows to nothing at its foot.
            tip = [between(low[2], high[2], 0.22), high[2], high[3]]
            inner = [between(p, between(low[2], high[3], 0.6), 0.14) for p in tip]
            builder.pair(inner + [inner[-1]], "glass", 1)
        elif rear < i < front and not (name == "van" and i < front - 1):
            _glass(builder, [a[2], b[2], b[3], a[3]], True, 0.04, 0.96)
    for i in range(rear + 1, front + 1):  # door gaps and handles
        foot, head = rows[i][0], rows[i][2]
        later = [(x, y, z + 0.02) for x, y, z in (foot, rows[i][1], head)]
        builder.pair([foot, later[0], later[1], rows[i][1]], "seam", 1)
        builder.pair([rows[i][1], later[1], later[2], head], "seam", 1)
        x, y, z = head
        if i > rear + 1:
            builder.sides(x + 0.012, y - 0.15, y - 0.11, z - 0.26, z - 0.1, "seam", 2)
    _tail(builder, stations[0], name)
    _nose(builder, stations[-1])
    x, y, z = rows[front][2]
    z += 0.42
    mirror = [(x, y, z), (x + 0.2, y, z - 0.04), (x + 0.2, y + 0.16, z - 0.04), (x, y + 0.14, z)]
    builder.pair(mirror, "paint", 6)
    length = stations[-1][0] - stations[0][0]
    radius = 0.37 if name in ("suv", "van") else 0.33
    for z in (stations[0][0] + length * 0.19, stations[-1][0] - length * 0.19):
        wheel(builder, stations[front][3] + 0.015, z, radius)
    return builder.build()


def _mirror(point):
    return (-point[0], point[1], point[2])


def _section(station, end: bool) -> list[Point]:
    """Returns the right half of a cross section from the sill to the roof's middle part."""
    z, belt, top, wide, narrow = station
    drop = min(0.09, (top - belt) * 0.35)
    shrink = 0.04 if end else 0.0
    return [
        (wide - 0.05 - shrink, 0.22 + shrink, z),
        (wide + 0.015, 0.56, z),
        (wide, belt, z),
        (narrow, top - drop, z),
        (narrow * 0.84, top, z),
    ]


def _tail(builder: Builder, station, name: str) -> None:
    z, belt, top, wide, narrow = station
    ring = _section(station, True)
    builder.face(ring + [_mirror(p) for p in ring[::-1]], "paint")
    z -= 0.012
    builder.end(-wide + 0.08, wide - 0.08, 0.28, 0.42, z, "trim")
    builder.end(-wide + 0.03, wide - 0.03, 0.50, 0.515, z, "seam")
    low, high = belt - 0.24, belt - 0.04
    for sign in (1, -1):
        builder.end(sign * (wide - 0.32), sign * (wide - 0.02), low, high, z, "tail", 2)
        builder.end(sign * (wide - 0.30), sign * (wide - 0.20), low, low + 0.07, z, "reverse", 3)
        builder.end(sign * (wide - 0.16), sign * (wide - 0.04), low, low + 0.07, z, "amber", 3)
    builder.end(-0.27, 0.27, belt - 0.25, belt - 0.13, z, "plate", 2)
    if name == "van":
        builder.end(-0.012, 0.012, 0.42, top, z, "seam", 2)


def _nose(builder: Builder, station) -> None:
    z, belt, top, wide, narrow = station
    ring = _section(station, True)
    builder.face(ring + [_mirror(p) for p in ring[::-1]], "paint")
    z += 0.012
    builder.end(-wide + 0.1, wide - 0.1, 0.28, 0.40, z, "trim")
    builder.end(-wide + 0.34, wide - 0.34, belt - 0.14, belt + 0.03, z, "gap")
    builder.end(-0.27, 0.27, 0.40, 0.50, z, "plate", 2)
    for sign in (1, -1):
        builder.end(
            sign * (wide - 0.31), sign * (wide - 0.03), belt - 0.12, belt + 0.02, z, "head", 2
        )
