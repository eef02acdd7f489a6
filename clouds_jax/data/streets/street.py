"""The road and what lies flat: lanes, markings, sidewalks, gardens, shadows and lamp light."""

import cv2
import numpy as np

from clouds_jax.data.streets import labels
from clouds_jax.data.streets.camera import FAR, clip_near
from clouds_jax.data.streets.canvas import fixed
from clouds_jax.data.streets.dice import Dice
from clouds_jax.data.streets.ground import Ground
from clouds_jax.data.streets.layout import Layout, Side
from clouds_jax.data.streets.scene import Scene

_WHITE = (226, 226, 220)
_GRASS = (112, 128, 62)
_SNOW = (228, 232, 238)


def draw_street(scene: Scene, layout: Layout, dice: Dice) -> Ground:
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
    ground.strip(-400, 400, 0, FAR, grass, labels.TERRAIN, lawn)
    left, right = layout.sides
    pavement = tuple(c * (1 - 0.3 * scene.condition.wet) for c in pavement)
    for side in layout.sides:
        _sidewalk(ground, layout, side, pavement, paving, grass, lawn)
    ground.strip(-left.kerb, right.kerb, 0, FAR, asphalt, labels.ROAD, surface)
    if layout.crossing:
        crossing = layout.crossing
        for side in layout.sides:
            x0, x1 = sorted((side.sign * side.kerb, side.sign * 120))
            ground.strip(x0, x1, crossing.z0 - 3, crossing.z0, pavement, labels.SIDEWALK, paving)
            ground.strip(x0, x1, crossing.z1, crossing.z1 + 3, pavement, labels.SIDEWALK, paving)
        ground.strip(-120, 120, crossing.z0, crossing.z1, asphalt, labels.ROAD, surface)
    _kerbs(ground, layout, snow)
    _wear(ground, layout, asphalt, dice, snow)
    if layout.median:
        half = layout.median / 2 - 0.25
        for z0, z1 in _open(layout, 0.0):
            ground.strip(-half, half, z0, z1, (178, 174, 168), labels.TERRAIN, "slabs")
            ground.strip(-half + 0.15, half - 0.15, z0, z1, grass, labels.TERRAIN, lawn)
    if layout.rails:
        for lane in (0, -1):
            for x in (-0.72, 0.72):
                x += layout.lane_x(lane)
                ground.strip(x - 0.08, x + 0.08, 0, 120, (70, 70, 72))
                ground.strip(x - 0.03, x + 0.03, 0, 120, (164, 166, 170))
    if not snow and not layout.cobbled or dice.chance(0.2):
        _markings(ground, layout, dice)
    return ground


def _open(layout: Layout, margin: float) -> list[tuple[float, float]]:
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
    ground.strip(x0, x1, 0, FAR, pavement, labels.SIDEWALK, paving)
    if side.verge:
        inner, far = side.kerb + 0.2, side.kerb + 0.2 + side.verge
        x0, x1 = sorted((side.sign * inner, side.sign * far))
        ground.strip(x0, x1, 0, FAR, grass, labels.TERRAIN, lawn)
    if garden:
        for sign, z0, z1 in layout.gaps:
            if sign == side.sign and z1 - z0 > 4:  # a drive beside the house
                middle = (z0 + z1) / 2
                x0, x1 = sorted((sign * outer, sign * (outer + 16)))
                ground.strip(x0, x1, middle - 1.5, middle + 1.5, pavement, labels.SIDEWALK, paving)


def _kerbs(ground: Ground, layout: Layout, snow: float) -> None:
    stone = (196, 194, 188) if not snow else (206, 208, 212)
    for side in layout.sides:
        for z0, z1 in _open(layout, 0.0):
            for inner, outer, colour in (
                (side.kerb - 0.10, side.kerb, tuple(c * 0.5 for c in stone)),
                (side.kerb, side.kerb + 0.17, stone),
            ):
                x0, x1 = sorted((side.sign * inner, side.sign * outer))
                ground.strip(
                    x0, x1, z0, z1, colour, labels.SIDEWALK if inner == side.kerb else None
                )


def _wear(ground: Ground, layout: Layout, asphalt, dice: Dice, snow: float) -> None:
    """Wheel tracks, repairs, cracks and covers."""
    for lane in range(-layout.lanes, layout.lanes):
        for x in (-0.8, 0.8):
            x += layout.lane_x(lane)
            tone = 0.80 if snow else 0.93
            ground.strip(x - 0.28, x + 0.28, 0, FAR, tuple(c * tone for c in asphalt))
    if snow or layout.cobbled:
        return
    for _ in range(dice.integer(0, 5)):
        x, z = dice.between(-layout.sides[0].kerb, layout.sides[1].kerb - 2.3), dice.between(4, 30)
        tone = dice.pick((0.72, 0.8, 1.12))
        ground.strip(x, x + dice.between(0.5, 2.2), z, z + dice.between(1, 7),
                     tuple(c * tone for c in asphalt))  # fmt: skip
    for _ in range(dice.integer(0, 4)):
        x, z = dice.between(-layout.sides[0].kerb, layout.sides[1].kerb), dice.between(4, 34)
        circle = np.array([(x + 0.33 * c, z + 0.33 * s) for c, s in _DISC])
        ground.area(circle, tuple(c * 0.55 for c in asphalt), None, None)
        circle = np.array([(x + 0.26 * c, z + 0.26 * s) for c, s in _DISC])
        ground.area(circle, tuple(c * 0.7 for c in asphalt), None, None)


_DISC = ((1, 0), (0.707, 0.707), (0, 1), (-0.707, 0.707), (-1, 0), (-0.707, -0.707), (0, -1),
         (0.707, -0.707))  # fmt: skip


def _markings(ground: Ground, layout: Layout, dice: Dice) -> None:
    """Middle line, lane lines, edge lines, stop lines, zebra crossings and arrows."""
    worn = dice.between(0.72, 1.0)
    white = tuple(c * worn for c in _WHITE)
    parts = _open(layout, 4.5)
    for z0, z1 in parts:
        if not layout.median:
            solid = dice.chance(0.3)
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
                while z < 80 and dice.chance(0.98):
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
    elif dice.chance(0.35):
        _zebra(ground, -left, right, dice.between(10, 40), 3.2, white)


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


def cast_shadows(scene: Scene, layout: Layout, ground: Ground) -> np.ndarray:
    """Fills the scene's shade and lamp light; returns what things keep from the sky, [h, w]."""
    camera, light = scene.camera, scene.light
    contact = np.full(scene.shade.shape, 255, np.uint8)
    if max(light.direct) > 0:
        sx, sy, sz = light.sun
        for building in layout.buildings:
            shift = min(building.height / sy, 60.0)
            dx, dz = -sx * shift, -sz * shift
            x, z0, z1 = building.x, building.z0, building.z1
            if dx * building.side < 0:
                shape = [(x, z0), (x, z1), (x + dx, z1 + dz), (x + dx, z0 + dz)]
                ground.shadow(np.array(shape), 0)
        scene.shelter[:] = scene.shade
        for thing in layout.things:
            long, wide, high = thing.size
            dx, dz = -sx / sy * high, -sz / sy * high
            x, z = thing.x, thing.z
            if thing.kind == "tree":
                r = high * 0.26
                for t, k in ((0.45, 0.7), (0.65, 1.0), (0.85, 0.75)):
                    disc = [(x + dx * t + r * k * c, z + dz * t + r * k * s) for c, s in _DISC]
                    ground.shadow(np.array(disc), 40)
                long = wide = 0.3
                dx, dz = dx * 0.5, dz * 0.5
            if thing.kind in ("lamp", "light", "sign"):
                long = wide = 0.14
            if abs(thing.turn) == 2:
                long, wide = wide, long
            a, b = wide / 2, long / 2
            base = [(x - a, z - b), (x + a, z - b), (x + a, z + b), (x - a, z + b)]
            ground.shadow(np.array(base), 0)
            for p, q in zip(base, base[1:] + base[:1], strict=True):
                shape = [
                    p,
                    q,
                    (q[0] + dx * 0.9, q[1] + dz * 0.9),
                    (p[0] + dx * 0.9, p[1] + dz * 0.9),
                ]
                ground.shadow(np.array(shape), 0)
        scene.shade[:] = cv2.blur(scene.shade, (3, 3))
    for thing in layout.things:
        long, wide, high = thing.size
        if abs(thing.turn) == 2:
            long, wide = wide, long
        a, b = wide / 2 + 0.12, long / 2 + 0.15
        foot = [(-1, -0.8), (-0.8, -1), (0.8, -1), (1, -0.8), (1, 0.8), (0.8, 1), (-0.8, 1),
                (-1, 0.8)]  # fmt: skip
        shape = np.array([(thing.x + a * px, 0.0, thing.z + b * pz) for px, pz in foot])
        clipped = clip_near(shape, 1.5)
        if len(clipped) >= 3:
            value = 96 if long > 1 else 150
            corners = fixed(camera.project(clipped))
            cv2.fillConvexPoly(contact, corners, (value,), cv2.LINE_8, 4)
    size = max(camera.height // 96, 1) * 2 + 1
    contact = cv2.blur(contact, (size, size // 2 * 2 // 2 | 1))
    if scene.condition.lamps > 0.4:
        _lamp_light(scene, layout)
    return contact


def _lamp_light(scene: Scene, layout: Layout) -> None:
    """Pools of light under street lamps and before headlights."""
    camera, pools = scene.camera, scene.pools
    strength = scene.condition.lamps
    rings = ((1.0, 70), (0.75, 120), (0.5, 175), (0.28, 225))
    layers = np.zeros_like(pools)

    def pool(x, z, rx, rz, k):
        for size, value in rings:
            shape = np.array([(x + rx * size * c, 0.0, z + rz * size * s) for c, s in _DISC])
            clipped = clip_near(shape, 1.5)
            if len(clipped) >= 3:
                corners = fixed(camera.project(clipped))
                cv2.fillPoly(layers, [corners], (int(value * k),), cv2.LINE_8, 4)

    lamps = [t for t in layout.things if t.kind == "lamp"]
    for lamp in sorted(lamps, key=lambda t: -t.z):
        pool(lamp.x - (1.5 if lamp.x > 0 else -1.5), lamp.z, 8.5, 11.0, strength)
    pools[:] = cv2.add(pools, layers)
    layers[:] = 0
    for thing in layout.things:
        moving = thing.kind in ("car", "van", "truck", "bus", "tram", "motorcycle")
        if moving and thing.turn == -1 and abs(thing.x) < scene.lane_end:
            pool(thing.x, thing.z - thing.size[0] / 2 - 5.5, 1.7, 5.5, 0.7 * strength)
    pool(layout.camera_x, 15.0, 4.5, 13.0, 0.8 * strength)
    pools[:] = cv2.add(pools, layers)
    size = max(camera.height // 20, 1) * 2 + 1
    pools[:] = cv2.blur(pools, (size, size // 3 | 1))
