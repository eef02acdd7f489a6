"""Bicycles and motorcycles, parked or ridden."""

from clouds_jax.streets import classes
from clouds_jax.streets.people import HAIR, LEGS, SKIN, TOPS
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.stroke_figures import Pen, pen_at
from clouds_jax.streets.types import Number

_QUARTER = ((1.0, 0.0), (0.924, 0.383), (0.707, 0.707), (0.383, 0.924))
_WHEEL = (
    _QUARTER
    + tuple((-s, c) for c, s in _QUARTER)
    + tuple((-c, -s) for c, s in _QUARTER)
    + tuple((s, -c) for c, s in _QUARTER)
)


def _ring(pen: Pen, centre, radius: Number, colour) -> None:
    """Draws a wheel seen from its side: tyre and a few spokes."""
    canvas, k = pen.scene.canvas, pen.scale
    tyre = pen.scene.seen(colour, pen.z, pen.gain)
    spoke = pen.scene.seen((150, 150, 152), pen.z, pen.gain)
    points = [pen.at((centre[0] + c * radius, centre[1] + s * radius)) for c, s in _WHEEL]
    if k * radius > 9:
        middle = pen.at(centre)
        for p in points[::2]:
            canvas.line(middle, p, max(0.012 * k, 0.7), spoke, classes.BICYCLE)
    for p, q in zip(points, points[1:] + points[:1], strict=True):
        canvas.line(p, q, max(0.05 * k, 1.0), tyre, classes.BICYCLE)


def draw_bicycle(scene: Scene, x: Number, z: Number, turn: Number, seed: int) -> None:
    """Draws a bicycle; `turn` is -1 or 1 for its side towards the camera, 0 for its end."""
    rng = Rng(seed, "bicycle")
    _bicycle(pen_at(scene, x, z), turn, rng)


def _bicycle(pen: Pen, turn: Number, rng: Rng) -> None:
    paint = rng.pick(((30, 30, 34), (170, 40, 40), (40, 90, 150), (220, 220, 216), (60, 120, 80)))
    label, tyre = classes.BICYCLE, (28, 28, 30)
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
        if rng.chance(0.4):
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


def draw_cyclist(scene: Scene, x: Number, z: Number, turn: Number, seed: int) -> None:
    """Draws somebody riding a bicycle; `turn` as for `draw_bicycle`."""
    rng = Rng(seed, "cyclist")
    pen = pen_at(scene, x, z)
    _bicycle(pen, turn, rng)
    _rider(pen, turn, rng, 0.92, 1.02, rng.chance(0.6))


def draw_motorcyclist(scene: Scene, x: Number, z: Number, comes: bool, seed: int) -> None:
    """Draws somebody riding a motorcycle along the street."""
    rng = Rng(seed, "motorcyclist")
    pen = pen_at(scene, x, z)
    _motorcycle(pen, 0.0, comes, rng)
    _rider(pen, 0.0, rng, 0.84, 1.02, True)


def draw_motorcycle(scene: Scene, x: Number, z: Number, turn: Number, seed: int) -> None:
    """Draws a motorcycle; `turn` as for `draw_bicycle`."""
    rng = Rng(seed, "motorcycle")
    _motorcycle(pen_at(scene, x, z), turn, False, rng)


def _motorcycle(pen: Pen, turn: Number, comes: bool, rng: Rng) -> None:
    paint = rng.pick(((170, 30, 32), (30, 60, 120), (44, 46, 50), (216, 214, 208), (60, 110, 90)))
    label, black, steel = classes.MOTORCYCLE, (30, 30, 32), (150, 150, 154)
    scooter = rng.chance(0.4)
    night = pen.scene.condition.lamps > 0.4
    head = (250, 246, 226) if night else (214, 220, 224)
    tail = (236, 40, 36) if night else (170, 26, 28)
    if not turn:
        pen.stroke((0, 0.07), (0, 0.62), 0.075, 0.07, black, label)
        pen.stroke((0.17, 0.34), (0.17, 0.42), 0.055, 0.055, steel, label)
        pen.stroke((0, 0.5), (0, 0.82), 0.17 if scooter else 0.14, 0.14, paint, label)
        pen.stroke((-0.36, 1.03), (0.36, 1.03), 0.026, 0.026, black, label, True)
        for side in (-1, 1):
            pen.stroke((side * 0.3, 1.03), (side * 0.4, 1.2), 0.012, 0.012, black, label, True)
            pen.stroke((side * 0.38, 1.21), (side * 0.46, 1.21), 0.045, 0.045, black, label, True)
        if comes:
            pen.stroke((0, 0.86), (0, 1.0), 0.13, 0.12, paint, label)
            pen.stroke((-0.02, 0.92), (0.02, 0.92), 0.095, 0.095, head, label, True, night)
        else:
            pen.stroke((0, 0.84), (0, 0.9), 0.13, 0.12, (40, 36, 36), label)
            pen.stroke((-0.08, 0.72), (0.08, 0.72), 0.045, 0.045, tail, label, True, night)
            pen.stroke((-0.05, 0.56), (0.05, 0.56), 0.07, 0.07, (222, 222, 212), label, True)
        return
    t, base, r = turn, 0.62 if scooter else 0.72, 0.25 if scooter else 0.32
    for x in (-base * t, base * t):
        pen.stroke((x, r), (x, r), r, r, black, label)
        pen.stroke((x, r), (x, r), r * 0.62, r * 0.62, steel, label, True)
        pen.stroke((x, r), (x, r), r * 0.5, r * 0.5, (70, 70, 74), label, True)
        pen.stroke((x, r), (x, r), r * 0.18, r * 0.18, steel, label, True)
    pen.stroke((base * t, r), (0.42 * t, 0.98), 0.045, 0.045, steel, label)
    if scooter:
        pen.stroke((0.44 * t, 0.34), (0.36 * t, 0.98), 0.08, 0.07, paint, label)
        pen.stroke((0.42 * t, 0.27), (-0.15 * t, 0.27), 0.06, 0.06, paint, label)
        pen.stroke((-0.2 * t, 0.42), (-0.62 * t, 0.52), 0.18, 0.2, paint, label)
        pen.stroke((-0.12 * t, 0.76), (-0.7 * t, 0.78), 0.065, 0.065, (40, 36, 36), label)
    else:
        pen.stroke((0.5 * t, 0.42), (-0.5 * t, 0.5), 0.045, 0.045, (60, 60, 64), label)
        pen.stroke((0.14 * t, 0.44), (-0.12 * t, 0.46), 0.19, 0.19, (104, 106, 110), label)
        pen.stroke((-0.1 * t, 0.27), (-0.86 * t, 0.36), 0.045, 0.06, (196, 196, 200), label)
        pen.stroke((0.32 * t, 0.82), (0.02 * t, 0.8), 0.13, 0.14, paint, label)
        pen.stroke((-0.08 * t, 0.8), (-0.66 * t, 0.86), 0.07, 0.06, (40, 36, 36), label)
        pen.stroke((-0.5 * t, 0.74), (-0.88 * t, 0.72), 0.06, 0.04, paint, label)
    pen.stroke((0.42 * t, 0.98), (0.24 * t, 1.08), 0.03, 0.025, black, label, True)
    pen.stroke((0.3 * t, 1.06), (0.3 * t, 1.22), 0.012, 0.012, black, label, True)
    pen.stroke((0.3 * t, 1.22), (0.3 * t, 1.25), 0.05, 0.05, black, label, True)
    pen.stroke((0.52 * t, 0.9), (0.54 * t, 0.9), 0.095, 0.095, head, label, True, night)
    pen.stroke((-0.84 * t, 0.76), (-0.84 * t, 0.78), 0.04, 0.04, tail, label, True, night)


def _rider(pen: Pen, turn: Number, rng: Rng, seat: Number, bar: Number, helmet: bool) -> None:
    """Draws the rider: hips at height `seat`, hands at height `bar`."""
    skin, hair, top, legs = (rng.pick(c) for c in (SKIN, HAIR, TOPS, LEGS))
    cap = rng.pick(((222, 222, 220), (30, 30, 34), (190, 40, 40), (40, 80, 150)))
    label = classes.RIDER
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
