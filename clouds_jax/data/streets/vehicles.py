"""Cars and vans: bodies lofted through cross sections, with glass, lamps and wheels."""

import functools

from clouds_jax.data.streets.mesh import Builder, Mesh

# Half of a wheel's circle, and the whole of it.
_COS = (1.0, 0.809, 0.309, -0.309, -0.809, -1.0, -0.809, -0.309, 0.309, 0.809)
_SIN = (0.0, 0.588, 0.951, 0.951, 0.588, 0.0, -0.588, -0.951, -0.951, -0.588)

# Stations from rear to front: z, height of the belt line, height of the top, half widths of belt
# and top. Then the intervals whose top is glass (rear and front window) and that are cabin.
PROFILES = {
    "sedan": (
        (
            (-2.24, 0.74, 0.86, 0.82, 0.70),
            (-2.12, 0.88, 0.98, 0.88, 0.74),
            (-1.42, 0.94, 1.02, 0.90, 0.74),
            (-0.78, 0.95, 1.41, 0.90, 0.60),
            (0.22, 0.94, 1.44, 0.90, 0.61),
            (1.02, 0.92, 1.00, 0.89, 0.74),
            (1.95, 0.78, 0.84, 0.85, 0.68),
            (2.22, 0.62, 0.68, 0.78, 0.62),
        ),
        (2, 4),
        3,
    ),
    "hatch": (
        (
            (-1.96, 0.80, 0.92, 0.80, 0.68),
            (-1.86, 0.92, 1.02, 0.86, 0.72),
            (-1.42, 0.96, 1.44, 0.88, 0.60),
            (0.10, 0.94, 1.48, 0.88, 0.61),
            (0.92, 0.92, 1.02, 0.87, 0.72),
            (1.70, 0.80, 0.88, 0.83, 0.68),
            (1.94, 0.64, 0.72, 0.76, 0.60),
        ),
        (1, 3),
        2,
    ),
    "estate": (
        (
            (-2.30, 0.82, 0.92, 0.84, 0.72),
            (-2.22, 0.95, 1.02, 0.89, 0.74),
            (-1.86, 0.97, 1.45, 0.90, 0.62),
            (0.24, 0.95, 1.48, 0.90, 0.62),
            (1.04, 0.93, 1.02, 0.89, 0.74),
            (1.98, 0.80, 0.86, 0.85, 0.68),
            (2.25, 0.63, 0.70, 0.78, 0.62),
        ),
        (1, 3),
        2,
    ),
    "suv": (
        (
            (-2.18, 0.98, 1.08, 0.88, 0.76),
            (-2.10, 1.10, 1.18, 0.93, 0.78),
            (-1.74, 1.12, 1.68, 0.94, 0.68),
            (0.26, 1.10, 1.72, 0.94, 0.68),
            (0.98, 1.08, 1.18, 0.93, 0.80),
            (1.90, 0.98, 1.06, 0.90, 0.74),
            (2.16, 0.76, 0.86, 0.82, 0.66),
        ),
        (1, 3),
        2,
    ),
    "van": (
        (
            (-2.42, 1.12, 1.26, 0.94, 0.88),
            (-2.40, 1.14, 1.34, 0.96, 0.88),
            (-2.34, 1.16, 2.02, 0.96, 0.84),
            (1.16, 1.14, 2.06, 0.96, 0.84),
            (1.88, 1.10, 1.24, 0.94, 0.84),
            (2.36, 0.96, 1.04, 0.90, 0.74),
            (2.52, 0.74, 0.82, 0.84, 0.66),
        ),
        (1, 3),
        2,
    ),
}
PAINTS = (
    (190, 192, 196), (36, 38, 42), (226, 226, 224), (124, 128, 134), (150, 26, 30), (34, 58, 112),
    (86, 100, 118), (62, 74, 66), (196, 168, 120), (168, 60, 30), (20, 84, 92), (226, 186, 40),
    (74, 36, 40), (104, 142, 176),
)  # fmt: skip


def wheel(builder: Builder, x: float, z: float, radius: float, thick: float = 0.22) -> None:
    """Adds wheels at x and -x: tread, tyre, rim and hub."""
    ring = list(zip(_COS, _SIN, strict=True))

    def disc(size: float, offset: float):
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


def between(a, b, t: float):
    """Returns the point at share `t` of the way from `a` to `b`."""
    return tuple(p + (q - p) * t for p, q in zip(a, b, strict=True))


def inset(quad, s0: float, s1: float, t0: float, t1: float, lift: float = 0.0):
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
    stations, (rear, front), roof = PROFILES[name]
    builder = Builder()
    builder.part((0.0, 0.5, 0.0))
    rows = []
    for i, (z, belt, top, wide, narrow) in enumerate(stations):
        end = 0.04 if i in (0, len(stations) - 1) else 0.0
        rows.append(
            [
                (wide - 0.05 - end, 0.24 + end, z),
                (wide + 0.01, 0.52, z),
                (wide, belt, z),
                (narrow, top - 0.03, z),
            ]
        )
    for i, (a, b) in enumerate(zip(rows, rows[1:], strict=False)):
        builder.pair([a[0], b[0], between(b[0], b[1], 0.35), between(a[0], a[1], 0.35)], "trim")
        builder.pair([between(a[0], a[1], 0.35), between(b[0], b[1], 0.35), b[1], a[1]], "paint")
        builder.pair([a[1], b[1], b[2], a[2]], "paint")
        upper = [a[2], b[2], b[3], a[3]]
        builder.pair(upper, "paint")
        left = [(-x, y, z) for x, y, z in (a[3], b[3])]
        cover = [a[3], left[0], left[1], b[3]]
        builder.face(cover, "paint")
        if i in (rear, front):
            low, high = (a, b) if i == rear else (b, a)
            pane = [low[3], (-low[3][0], *low[3][1:]), (-high[3][0], *high[3][1:]), high[3]]
            _glass(builder, pane, False, 0.06, 0.94, 0.08, 0.94)
            # The window's flank narrows to nothing at its foot.
            tip = [between(low[2], high[2], 0.22), high[2], high[3]]
            inner = [between(p, between(low[2], high[3], 0.6), 0.14) for p in tip]
            builder.pair(inner + [inner[-1]], "glass", 1)
    a, b = rows[roof], rows[roof + 1]
    upper = [a[2], b[2], b[3], a[3]]
    if name == "van":
        _glass(builder, upper, True, 0.72, 0.97)
    elif name in ("estate", "suv"):
        _glass(builder, upper, True, 0.03, 0.3)
        _glass(builder, upper, True, 0.33, 0.64)
        _glass(builder, upper, True, 0.67, 0.97)
    else:
        _glass(builder, upper, True, 0.03, 0.46)
        _glass(builder, upper, True, 0.5, 0.97)
    for t in (0.48, 0.97):  # door gaps and handles
        foot, head = between(a[0], b[0], t), between(a[2], b[2], t)
        builder.pair(
            [foot, (foot[0], foot[1], foot[2] + 0.025), (head[0], head[1], head[2] + 0.025), head],
            "gap",
            1,
        )
        x, y, z = head
        builder.sides(x + 0.012, y - 0.16, y - 0.12, z - 0.24, z - 0.08, "gap", 2)
    _tail(builder, stations[0], name)
    _nose(builder, stations[-1])
    x, y, z = rows[front + (0 if name == "sedan" else 0)][2]
    z += 0.42
    builder.pair([(x, y, z), (x + 0.2, y, z - 0.04), (x + 0.2, y + 0.16, z - 0.04),
                  (x, y + 0.14, z)], "paint", 6)  # fmt: skip
    length = stations[-1][0] - stations[0][0]
    radius = 0.36 if name in ("suv", "van") else 0.32
    for z in (stations[0][0] + length * 0.19, stations[-1][0] - length * 0.19):
        wheel(builder, stations[roof][3] + 0.015, z, radius)
    return builder.build()


def _tail(builder: Builder, station, name: str) -> None:
    z, belt, top, wide, narrow = station
    ring = [(wide - 0.09, 0.28, z), (wide, 0.52, z), (wide, belt, z), (narrow, top - 0.03, z)]
    builder.face(ring + [(-x, y, q) for x, y, q in ring[::-1]], "paint")
    z -= 0.012
    builder.end(-wide + 0.08, wide - 0.08, 0.28, 0.42, z, "trim")
    builder.end(-wide + 0.03, wide - 0.03, 0.50, 0.52, z, "gap")
    low, high = belt - 0.24, belt - 0.04
    for sign in (1, -1):
        builder.end(sign * (wide - 0.32), sign * (wide - 0.02), low, high, z, "tail", 2)
        builder.end(sign * (wide - 0.32), sign * (wide - 0.22), low, low + 0.08, z, "reverse", 3)
    builder.end(-0.27, 0.27, belt - 0.25, belt - 0.13, z, "plate", 2)
    if name == "van":
        builder.end(-0.012, 0.012, 0.42, top, z, "gap", 2)


def _nose(builder: Builder, station) -> None:
    z, belt, top, wide, narrow = station
    ring = [(wide - 0.09, 0.28, z), (wide, 0.52, z), (wide, belt, z), (narrow, top - 0.03, z)]
    builder.face(ring + [(-x, y, q) for x, y, q in ring[::-1]], "paint")
    z += 0.012
    builder.end(-wide + 0.1, wide - 0.1, 0.28, 0.40, z, "trim")
    builder.end(-wide + 0.34, wide - 0.34, belt - 0.14, belt + 0.03, z, "gap")
    builder.end(-0.27, 0.27, 0.40, 0.50, z, "plate", 2)
    for sign in (1, -1):
        builder.end(
            sign * (wide - 0.31), sign * (wide - 0.03), belt - 0.12, belt + 0.02, z, "head", 2
        )
