"""The road and what lies flat: lanes, markings, sidewalks, gardens, shadows and lamp light."""

import numpy as np

from clouds_jax.streets import classes
from clouds_jax.streets.camera import FAR
from clouds_jax.streets.ground import DISC, Ground
from clouds_jax.streets.layout import Layout, Side
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.types import Flat, Number

_WHITE = (226, 226, 220)
_GRASS = (112, 128, 62)
_SNOW = (228, 232, 238)


def draw_street(scene: Scene, layout: Layout, rng: Rng) -> Ground:
    """Paints all flat areas with their labels; light and surface come later."""
    city, snow = scene.city, scene.condition.snow
    ground = Ground(scene)
    grass, lawn = (_SNOW, "snow") if snow else (_GRASS, "grass")
    pavement, paving = (_SNOW, "snow") if snow else (city.pavement, city.paving)
    wet = 1 - 0.36 * scene.condition.wet
    asphalt = tuple(c * wet for c in city.asphalt)
    if snow:
        asphalt = (176, 178, 182)
    surface = "cobbles" if layout.cobbled and not snow else "asphalt"
    ground.strip(-400, 400, 0, FAR, grass, classes.TERRAIN, lawn)
    left, right = layout.sides
    pavement = tuple(c * (1 - 0.3 * scene.condition.wet) for c in pavement)
    for side in layout.sides:
        _sidewalk(ground, layout, side, pavement, paving, grass, lawn)
    ground.strip(-left.kerb, right.kerb, 0, FAR, asphalt, classes.ROAD, surface)
    if layout.crossing:
        crossing = layout.crossing
        for side in layout.sides:
            x0, x1 = sorted((side.sign * side.kerb, side.sign * 120))
            ground.strip(x0, x1, crossing.z0 - 3, crossing.z0, pavement, classes.SIDEWALK, paving)
            ground.strip(x0, x1, crossing.z1, crossing.z1 + 3, pavement, classes.SIDEWALK, paving)
        ground.strip(-120, 120, crossing.z0, crossing.z1, asphalt, classes.ROAD, surface)
    _kerbs(ground, layout, snow)
    _wear(ground, layout, asphalt, rng, snow)
    if layout.median:
        half = layout.median / 2 - 0.25
        for z0, z1 in _open(layout, 4.0):
            ground.strip(-half, half, z0, z1, (178, 174, 168), classes.TERRAIN, "slabs")
            ground.strip(-half + 0.15, half - 0.15, z0, z1, grass, classes.TERRAIN, lawn)
    if layout.rails:
        for lane in (0, -1):
            for x in (-0.72, 0.72):
                x += layout.lane_x(lane)
                ground.strip(x - 0.08, x + 0.08, 0, 120, (70, 70, 72))
                ground.strip(x - 0.03, x + 0.03, 0, 120, (164, 166, 170))
    if not snow and not layout.cobbled or rng.chance(0.2):
        _markings(ground, layout, rng)
    return ground


def _open(layout: Layout, margin: Number) -> list[Flat]:
    """Returns the depths that the crossing leaves."""
    crossing = layout.crossing
    if not crossing:
        return [(0.0, FAR)]
    return [(0.0, crossing.z0 - margin), (crossing.z1 + margin, FAR)]


def _sidewalk(ground, layout, side: Side, pavement, paving, grass, lawn) -> None:
    """Paves from the kerb to the fronts; wide setbacks are gardens."""
    garden = side.front - side.walk > 3.0
    outer = side.walk if garden else side.front + 0.4
    x0, x1 = sorted((side.sign * side.kerb, side.sign * outer))
    ground.strip(x0, x1, 0, FAR, pavement, classes.SIDEWALK, paving)
    if side.verge:
        inner, far = side.kerb + 0.2, side.kerb + 0.2 + side.verge
        x0, x1 = sorted((side.sign * inner, side.sign * far))
        ground.strip(x0, x1, 0, FAR, grass, classes.TERRAIN, lawn)
    if garden:
        for sign, z0, z1 in layout.gaps:
            if sign == side.sign and z1 - z0 > 4:  # a drive beside the house
                middle = (z0 + z1) / 2
                x0, x1 = sorted((sign * outer, sign * (outer + 16)))
                ground.strip(x0, x1, middle - 1.5, middle + 1.5, pavement, classes.SIDEWALK, paving)


def _kerbs(ground: Ground, layout: Layout, snow: Number) -> None:
    stone = (196, 194, 188) if not snow else (206, 208, 212)
    for side in layout.sides:
        for z0, z1 in _open(layout, 0.0):
            for inner, outer, colour in (
                (side.kerb - 0.10, side.kerb, tuple(c * 0.5 for c in stone)),
                (side.kerb, side.kerb + 0.17, stone),
            ):
                x0, x1 = sorted((side.sign * inner, side.sign * outer))
                ground.strip(
                    x0, x1, z0, z1, colour, classes.SIDEWALK if inner == side.kerb else None
                )


def _wear(ground: Ground, layout: Layout, asphalt, rng: Rng, snow: Number) -> None:
    """Wheel tracks, repairs, cracks and covers."""
    for lane in range(-layout.lanes, layout.lanes):
        for x in (-0.8, 0.8):
            x += layout.lane_x(lane)
            tone = 0.80 if snow else 0.93
            ground.strip(x - 0.28, x + 0.28, 0, FAR, tuple(c * tone for c in asphalt))
    if snow or layout.cobbled:
        return
    for _ in range(rng.integer(0, 5)):
        x, z = rng.between(-layout.sides[0].kerb, layout.sides[1].kerb - 2.3), rng.between(4, 30)
        tone = rng.pick((0.72, 0.8, 1.12))
        ground.strip(x, x + rng.between(0.5, 2.2), z, z + rng.between(1, 7),
                     tuple(c * tone for c in asphalt))  # fmt: skip
    for _ in range(rng.integer(0, 4)):
        x, z = rng.between(-layout.sides[0].kerb, layout.sides[1].kerb), rng.between(4, 34)
        circle = np.array([(x + 0.33 * c, z + 0.33 * s) for c, s in DISC])
        ground.area(circle, tuple(c * 0.55 for c in asphalt), None, None)
        circle = np.array([(x + 0.26 * c, z + 0.26 * s) for c, s in DISC])
        ground.area(circle, tuple(c * 0.7 for c in asphalt), None, None)


def _markings(ground: Ground, layout: Layout, rng: Rng) -> None:
    """Middle line, lane lines, edge lines, stop lines, zebra crossings and arrows."""
    worn = rng.between(0.72, 1.0)
    white = tuple(c * worn for c in _WHITE)
    parts = _open(layout, 4.5)
    for z0, z1 in parts:
        if not layout.median:
            solid = rng.chance(0.3)
            _line(ground, 0.0, z0, z1, white, None if solid else (3.0, 4.5))
        for i in range(1, layout.lanes):
            for sign in (-1, 1):
                x = sign * (layout.median / 2 + i * layout.lane)
                _line(ground, x, z0, z1, white, (3.0, 6.0))
        for side in layout.sides:
            if side.parking:
                x = side.sign * side.lane_end
                _line(ground, x, z0, z1, white, None)
                z = 2.0
                while z < 80 and rng.chance(0.98):
                    if z0 < z < z1:
                        a, b = sorted((x, side.sign * (side.kerb - 0.1)))
                        ground.strip(a, b, z, z + 0.1, white)
                    z += 5.6
            elif layout.lanes > 1:
                _line(ground, side.sign * (side.lane_end - 0.15), z0, z1, white, None)
    right = layout.sides[1].lane_end
    left = layout.sides[0].lane_end
    crossing = layout.crossing
    if crossing:
        middle = layout.median / 2
        ground.strip(middle, right, crossing.z0 - 4.6, crossing.z0 - 4.1, white)
        ground.strip(-left, -middle, crossing.z1 + 4.1, crossing.z1 + 4.6, white)
        for z in (crossing.z0 - 3.4, crossing.z1 + 0.5):
            _zebra(ground, -left, right, z, 2.9, white)
        if layout.lanes > 1:
            for i in range(layout.lanes):
                _arrow(ground, layout.lane_x(i), crossing.z0 - 14, white)
    elif rng.chance(0.35):
        _zebra(ground, -left, right, rng.between(10, 40), 3.2, white)


def _line(ground, x, z0, z1, colour, dash) -> None:
    if dash is None:
        ground.strip(x - 0.07, x + 0.07, z0, min(z1, 160), colour)
        return
    z = 0.0
    while z < min(z1, 130):
        if z + dash[0] > z0:
            ground.strip(x - 0.07, x + 0.07, max(z, z0), min(z + dash[0], z1), colour)
        z += dash[0] + dash[1]


def _zebra(ground, x0, x1, z, deep, colour) -> None:
    x = x0 + 0.4
    while x + 0.5 < x1:
        ground.strip(x, x + 0.5, z, z + deep, colour)
        x += 1.0


def _arrow(ground, x, z, colour) -> None:
    ground.strip(x - 0.08, x + 0.08, z, z + 2.6, colour)
    ground.area(
        np.array([(x - 0.38, z + 2.6), (x + 0.38, z + 2.6), (x, z + 4.4)]), colour, None, None
    )
