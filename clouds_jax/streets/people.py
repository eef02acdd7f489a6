"""People on foot."""

import dataclasses

from clouds_jax.streets import classes
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.stroke_figures import pen_at
from clouds_jax.streets.types import Number

SKIN = ((236, 196, 164), (214, 166, 130), (172, 120, 86), (118, 80, 58), (84, 58, 44))
HAIR = ((34, 28, 26), (70, 48, 34), (130, 96, 58), (178, 150, 100), (140, 138, 136))
TOPS = (
    (44, 56, 92), (150, 34, 40), (222, 220, 214), (40, 42, 46), (86, 110, 84), (206, 160, 60),
    (96, 140, 180), (130, 90, 120), (186, 110, 70), (70, 120, 120), (120, 124, 130),
    (224, 120, 140),
)  # fmt: skip
LEGS = ((44, 54, 84), (34, 36, 40), (96, 88, 76), (70, 86, 118), (150, 138, 112), (58, 52, 50))


def draw_person(scene: Scene, x: Number, z: Number, walk: Number, seed: int) -> None:
    """Draws somebody on foot; `walk` is -1 or 1 for walking left or right, 0 along the street."""
    rng = Rng(seed, "person")
    pen = pen_at(scene, x, z)
    tall = rng.between(1.55, 1.88) if rng.chance(0.9) else rng.between(1.05, 1.35)
    pen = dataclasses.replace(pen, scale=pen.scale * tall / 1.75)
    skin, hair, top, legs = (rng.pick(c) for c in (SKIN, HAIR, TOPS, LEGS))
    shoe = rng.pick(((30, 28, 28), (90, 60, 40), (214, 212, 208)))
    label = classes.PERSON
    phase = rng.between(-1.0, 1.0)
    coat = rng.chance(0.3)
    skirt = not coat and rng.chance(0.2)
    wide = rng.between(0.9, 1.15)
    facing = rng.chance(0.5)
    swing = 0.30 * phase
    if walk:
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
        pen.stroke(elbow, hand, 0.05, 0.04, top if coat or rng.chance(0.6) else skin, label)
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
        if facing and rng.chance(0.5):
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
    if rng.chance(0.35):  # a bag or a rucksack
        bag = rng.pick(((60, 40, 30), (30, 34, 60), (150, 40, 40), (40, 70, 50)))
        if walk or not facing:
            place = -walk * 0.17
            pen.stroke((place, 1.33), (place, 1.08), 0.10, 0.12, bag, label)
        else:
            pen.stroke((0.3, 0.82), (0.3, 0.62), 0.1, 0.13, bag, label)
