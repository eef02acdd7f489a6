"""People, on foot and on two wheels, and bicycles: tapered strokes with a lit side."""

import dataclasses

import numpy as np

from clouds_jax.data.streets import labels
from clouds_jax.data.streets.dice import Dice
from clouds_jax.data.streets.heavy import motorcycle
from clouds_jax.data.streets.mesh import draw_mesh
from clouds_jax.data.streets.scene import Scene

SKIN = ((236, 196, 164), (214, 166, 130), (172, 120, 86), (118, 80, 58), (84, 58, 44))
HAIR = ((34, 28, 26), (70, 48, 34), (130, 96, 58), (178, 150, 100), (140, 138, 136))
TOPS = (
    (44, 56, 92), (150, 34, 40), (222, 220, 214), (40, 42, 46), (86, 110, 84), (206, 160, 60),
    (96, 140, 180), (130, 90, 120), (186, 110, 70), (70, 120, 120), (120, 124, 130), (224, 120, 140),
)  # fmt: skip
_QUARTER = ((1.0, 0.0), (0.924, 0.383), (0.707, 0.707), (0.383, 0.924))
_WHEEL = (
    _QUARTER
    + tuple((-s, c) for c, s in _QUARTER)
    + tuple((-c, -s) for c, s in _QUARTER)
    + tuple((s, -c) for c, s in _QUARTER)
)
LEGS = ((44, 54, 84), (34, 36, 40), (96, 88, 76), (70, 86, 118), (150, 138, 112), (58, 52, 50))


@dataclasses.dataclass(frozen=True)
class _Pen:
    """Draws strokes in metres around the feet of a figure."""

    scene: Scene
    x: float
    z: float
    gain: tuple[float, float, float]
    lit: float  # side of the light, -1 left and 1 right
    scale: float
    foot: tuple[float, float]

    def at(self, p):
        return self.foot[0] + p[0] * self.scale, self.foot[1] - p[1] * self.scale

    def stroke(self, a, b, ra, rb, colour, label, plain=False) -> None:
        seen, canvas, k = self.scene.seen, self.scene.canvas, self.scale
        dark = 1.0 if plain else 0.68
        outer = seen(tuple(c * dark for c in colour), self.z, self.gain)
        canvas.limb(self.at(a), self.at(b), ra * k, rb * k, outer, label)
        if plain or max(ra, rb) * k < 1.2:
            return
        shift = self.lit * 0.28
        inner = seen(tuple(min(c * 1.08, 255) for c in colour), self.z, self.gain)
        a, b = (a[0] + shift * ra, a[1]), (b[0] + shift * rb, b[1])
        canvas.limb(self.at(a), self.at(b), ra * k * 0.66, rb * k * 0.66, inner, None)


def _pen(scene: Scene, x: float, z: float) -> _Pen:
    foot = scene.camera.project(np.array([x, 0.0, z]))
    gain = scene.gain_at(x, z)
    lit = 1.0 if scene.light.sun[0] > 0 else -1.0
    return _Pen(scene, x, z, gain, lit, scene.camera.scale(z), tuple(foot.tolist()))


def draw_person(scene: Scene, x: float, z: float, walk: float, seed: int) -> None:
    """Draws somebody on foot; `walk` is -1 or 1 for walking left or right, 0 along the street."""
    dice = Dice(seed, "person")
    pen = _pen(scene, x, z)
    tall = dice.between(1.55, 1.88) if dice.chance(0.9) else dice.between(1.05, 1.35)
    pen = dataclasses.replace(pen, scale=pen.scale * tall / 1.75)
    skin, hair, top, legs = (dice.pick(c) for c in (SKIN, HAIR, TOPS, LEGS))
    shoe = dice.pick(((30, 28, 28), (90, 60, 40), (214, 212, 208)))
    label = labels.PERSON
    phase = dice.between(-1.0, 1.0)
    coat = dice.chance(0.3)
    skirt = not coat and dice.chance(0.2)
    wide = dice.between(0.9, 1.15)
    facing = dice.chance(0.5)
    if walk:
        swing = 0.30 * phase
        hips = [(0.0, 0.9), (0.0, 0.9)]
        feet = [(swing, 0.06 + 0.05 * abs(phase)), (-swing, 0.06)]
        knees = [(swing * 0.55 + walk * 0.05, 0.5), (-swing * 0.4 + walk * 0.05, 0.5)]
        half, depth = 0.0, 0.135 * wide
    else:
        lift = 0.05 * abs(phase)
        hips = [(-0.09, 0.9), (0.09, 0.9)]
        feet = [(-0.11, 0.05 + lift), (0.11, 0.05)]
        knees = [(-0.1, 0.5 + lift * 0.6), (0.1, 0.5)]
        half, depth = 0.07, 0.125 * wide
    back_arm = (-swing * 0.9, 0.86) if walk else (0.27 * wide, 0.84)
    front_arm = (swing * 0.9, 0.86) if walk else (-0.27 * wide, 0.84)
    shoulder = 0.02 if walk else 0.19 * wide

    def arm(hand, sx):
        elbow = ((sx + hand[0]) / 2 - walk * 0.04 + (0.04 if sx > 0 else -0.04) * (not walk), 1.13)
        pen.stroke((sx, 1.40), elbow, 0.062, 0.052, top, label)
        pen.stroke(elbow, hand, 0.05, 0.04, top if coat or dice.chance(0.6) else skin, label)
        pen.stroke(hand, (hand[0], hand[1] - 0.05), 0.042, 0.036, skin, label)

    arm(back_arm, shoulder)
    for hip, knee, foot in zip(hips, knees, feet, strict=True):
        below = skin if skirt else legs
        toe = (foot[0] + (walk * 0.13 if walk else 0.0), foot[1] - 0.01)
        pen.stroke(foot, toe, 0.055, 0.045, shoe, label)
        pen.stroke(hip, knee, 0.095, 0.07, legs, label)
        pen.stroke(knee, (foot[0], foot[1] + 0.05), 0.068, 0.05, below, label)
    low = 0.55 if coat else 0.92
    if skirt:
        pen.stroke((0, 0.98), (0, 0.58), 0.12, 0.19, legs, label)
    for sx in (-half, half) if half else (0.0,):
        pen.stroke((sx * 1.2, 1.36), (sx, low), depth, depth * (1.1 if coat else 0.9), top, label)
    if half:
        pen.stroke((0, 1.36), (0, low), 0.13, 0.13, top, label, plain=True)
        if facing and dice.chance(0.5):
            pen.stroke((0, 1.38), (0, 1.0), 0.03, 0.03, tuple(c * 0.6 for c in top), None, True)
    arm(front_arm, -shoulder)
    pen.stroke((0, 1.45), (0, 1.52), 0.055, 0.05, skin, label)
    head = (walk * 0.03, 1.635)
    pen.stroke((head[0], head[1] - 0.035), (head[0], head[1] + 0.03), 0.088, 0.098, skin, label)
    if walk:
        pen.stroke(
            (head[0] - walk * 0.05, 1.64), (head[0] + walk * 0.02, 1.70), 0.07, 0.07, hair, label
        )
    elif facing:
        pen.stroke((-0.04, 1.705), (0.04, 1.705), 0.058, 0.058, hair, label)
    else:
        pen.stroke((0, 1.61), (0, 1.67), 0.092, 0.1, hair, label)
    if dice.chance(0.35):  # a bag or a rucksack
        bag = dice.pick(((60, 40, 30), (30, 34, 60), (150, 40, 40), (40, 70, 50)))
        if walk or not facing:
            place = -walk * 0.17
            pen.stroke((place, 1.33), (place, 1.08), 0.10, 0.12, bag, label)
        else:
            pen.stroke((0.3, 0.82), (0.3, 0.62), 0.1, 0.13, bag, label)


def _ring(pen: _Pen, centre, radius: float, colour) -> None:
    """Draws a wheel seen from its side: tyre and a few spokes."""
    canvas, k = pen.scene.canvas, pen.scale
    tyre = pen.scene.seen(colour, pen.z, pen.gain)
    spoke = pen.scene.seen((150, 150, 152), pen.z, pen.gain)
    points = [pen.at((centre[0] + c * radius, centre[1] + s * radius)) for c, s in _WHEEL]
    if k * radius > 9:
        middle = pen.at(centre)
        for p in points[::2]:
            canvas.line(middle, p, max(0.012 * k, 0.7), spoke, labels.BICYCLE)
    for p, q in zip(points, points[1:] + points[:1], strict=True):
        canvas.line(p, q, max(0.05 * k, 1.0), tyre, labels.BICYCLE)


def draw_bicycle(scene: Scene, x: float, z: float, turn: float, seed: int) -> None:
    """Draws a bicycle; `turn` is -1 or 1 for its side towards the camera, 0 for its end."""
    dice = Dice(seed, "bicycle")
    _bicycle(_pen(scene, x, z), turn, dice)


def _bicycle(pen: _Pen, turn: float, dice: Dice) -> None:
    paint = dice.pick(((30, 30, 34), (170, 40, 40), (40, 90, 150), (220, 220, 216), (60, 120, 80)))
    label, tyre = labels.BICYCLE, (28, 28, 30)
    if turn:
        rear, front, r = (-0.52 * turn, 0.34), (0.54 * turn, 0.34), 0.33
        _ring(pen, rear, r, tyre)
        _ring(pen, front, r, tyre)
        crank, seat, head = (-0.08 * turn, 0.3), (-0.22 * turn, 0.86), (0.38 * turn, 0.84)
        for a, b in ((rear, crank), (crank, seat), (crank, head), (seat, head), (rear, seat),
                     (front, head)):  # fmt: skip
            pen.stroke(a, b, 0.026, 0.026, paint, label, True)
        pen.stroke(head, (0.36 * turn, 1.0), 0.02, 0.02, (60, 60, 62), label, True)
        pen.stroke((0.26 * turn, 1.02), (0.46 * turn, 1.0), 0.022, 0.022, (30, 30, 32), label, True)
        pen.stroke((-0.34 * turn, 0.92), (-0.12 * turn, 0.92), 0.045, 0.03, (34, 28, 26), label)
        pen.stroke((-0.16 * turn, 0.2), (0.0, 0.4), 0.02, 0.02, (90, 90, 92), label, True)
        if dice.chance(0.4):
            pen.stroke(
                (-0.7 * turn, 0.74), (-0.3 * turn, 0.74), 0.02, 0.02, (70, 70, 72), label, True
            )
    else:
        pen.stroke((0, 0.03), (0, 0.66), 0.032, 0.032, tyre, label, True)
        pen.stroke((0, 0.6), (0, 0.9), 0.035, 0.03, paint, label, True)
        pen.stroke((-0.29, 1.02), (0.29, 1.02), 0.024, 0.024, (50, 50, 52), label, True)
        pen.stroke((-0.08, 0.9), (0.08, 0.9), 0.04, 0.04, (34, 28, 26), label, True)
        pen.stroke((-0.12, 0.3), (0.12, 0.3), 0.022, 0.022, (80, 80, 82), label, True)
        pen.stroke((0, 0.68), (0, 0.72), 0.04, 0.04, (200, 30, 26), label, True)


def draw_cyclist(scene: Scene, x: float, z: float, turn: float, seed: int) -> None:
    """Draws somebody riding a bicycle; `turn` as for `draw_bicycle`."""
    dice = Dice(seed, "cyclist")
    pen = _pen(scene, x, z)
    _bicycle(pen, turn, dice)
    _rider(pen, turn, dice, 0.92, 1.02, dice.chance(0.6))


def draw_motorcyclist(scene: Scene, x: float, z: float, comes: bool, seed: int) -> None:
    """Draws somebody riding a motorcycle along the street."""
    dice = Dice(seed, "motorcyclist")
    draw_motorcycle(scene, x, z, (-1.0, 0.0) if comes else (1.0, 0.0), seed)
    _rider(_pen(scene, x, z - 0.1), 0.0, dice, 0.84, 1.02, True)


def draw_motorcycle(scene: Scene, x: float, z: float, heading, seed: int) -> None:
    """Draws a motorcycle."""
    dice = Dice(seed, "motorcycle")
    paint = dice.pick(((170, 30, 32), (30, 60, 120), (30, 32, 36), (216, 214, 208), (60, 110, 90)))
    night = scene.condition.lamps > 0.4
    colours = {
        "paint": paint, "tyre": (26, 26, 28), "arch": (18, 18, 20), "rim": (150, 150, 154),
        "spoke": (60, 60, 64), "trim": (58, 58, 62), "seat": (34, 30, 30), "engine": (88, 88, 92),
        "head": (250, 246, 226) if night else (206, 214, 220), "gap": (20, 20, 22),
        "tail": (236, 40, 36) if night else (168, 26, 28), "plate": (222, 222, 210),
    }  # fmt: skip
    mesh = motorcycle(dice.pick(("scooter", "roadster")))
    shining = frozenset(("head", "tail")) if night else frozenset()
    draw_mesh(scene, mesh, (x, 0.0, z), heading, colours, labels.MOTORCYCLE, shining)


def _rider(pen: _Pen, turn: float, dice: Dice, seat: float, bar: float, helmet: bool) -> None:
    """Draws the rider: hips at height `seat`, hands at height `bar`."""
    skin, hair, top, legs = (dice.pick(c) for c in (SKIN, HAIR, TOPS, LEGS))
    cap = dice.pick(((222, 222, 220), (30, 30, 34), (190, 40, 40), (40, 80, 150)))
    label = labels.RIDER
    if turn:
        hip, neck, hand = (-0.2 * turn, seat + 0.03), (0.12 * turn, 1.46), (0.36 * turn, bar)
        for knee, foot in (((0.16 * turn, 0.72), (0.02 * turn, 0.22)),
                           ((0.2 * turn, 0.84), (-0.06 * turn, 0.42))):  # fmt: skip
            pen.stroke(hip, knee, 0.1, 0.072, legs, label)
            pen.stroke(knee, foot, 0.066, 0.05, legs, label)
            pen.stroke(
                foot, (foot[0] + 0.13 * turn, foot[1] - 0.02), 0.05, 0.04, (34, 32, 32), label
            )
        pen.stroke(hip, neck, 0.14, 0.14, top, label)
        elbow = (0.2 * turn, 1.12)
        pen.stroke(neck, elbow, 0.062, 0.05, top, label)
        pen.stroke(elbow, hand, 0.048, 0.04, skin, label)
        head = (0.2 * turn, 1.66)
    else:
        for side, lift in ((-1, 0.0), (1, 0.16)):
            knee, foot = (side * 0.15, 0.62 + lift), (side * 0.12, 0.24 + lift)
            pen.stroke((side * 0.1, seat), knee, 0.095, 0.075, legs, label)
            pen.stroke(knee, foot, 0.07, 0.05, legs, label)
            pen.stroke(foot, (foot[0], foot[1] - 0.06), 0.052, 0.045, (34, 32, 32), label)
        for side in (-1, 1):
            elbow = (side * 0.33, 1.16)
            pen.stroke((side * 0.19, 1.4), elbow, 0.065, 0.052, top, label)
            pen.stroke(elbow, (side * 0.29, bar + 0.02), 0.05, 0.04, skin, label)
        pen.stroke((-0.08, 1.38), (-0.06, seat + 0.04), 0.13, 0.12, top, label)
        pen.stroke((0.08, 1.38), (0.06, seat + 0.04), 0.13, 0.12, top, label)
        pen.stroke((0, 1.36), (0, seat + 0.1), 0.13, 0.12, top, label, True)
        head = (0.0, 1.66)
    pen.stroke((head[0] * 0.8, 1.5), (head[0], 1.58), 0.055, 0.055, skin, label)
    pen.stroke((head[0], head[1] - 0.04), (head[0], head[1] + 0.02), 0.09, 0.095, skin, label)
    cover = cap if helmet else hair
    pen.stroke((head[0] - 0.05, head[1] + 0.06), (head[0] + 0.05, head[1] + 0.06), 0.075, 0.075,
               cover, label)  # fmt: skip
