"""Fences, walls, railings and concrete barriers along a street."""

import functools

import numpy as np

from clouds_jax.streets import classes
from clouds_jax.streets.camera import clip_near
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.textures import TILE, Texture, bricks, cloud_noise, pack
from clouds_jax.streets.types import Number
from clouds_jax.streets.walls import along


@functools.cache
def fence(kind: str) -> Texture:
    """Returns 2 m of a fence: "bars", "planks", "mesh" or "rail"."""
    rows, columns = 96, 160
    colour = np.zeros((rows, columns, 3), np.uint8)
    label = np.full((rows, columns), classes.NOTHING, np.uint8)

    def fill(r0, r1, c0, c1, tone):
        colour[r0:r1, c0:c1] = tone
        label[r0:r1, c0:c1] = classes.FENCE

    if kind == "bars":
        for c in range(0, columns, 10):
            fill(6, rows, c, c + 4, (44, 50, 50))
        fill(12, 18, 0, columns, (50, 56, 56))
        fill(80, 86, 0, columns, (50, 56, 56))
        fill(0, rows, 0, 8, (40, 44, 44))
    elif kind == "planks":
        tones = Rng("planks").bytes(10)
        for i, c in enumerate(range(0, columns, 16)):
            k = 0.75 + int(tones[i]) / 512
            fill(4 + int(tones[i]) % 3, rows, c, c + 14, (142 * k, 108 * k, 76 * k))
        fill(24, 30, 0, columns, (104, 80, 58))
        fill(74, 80, 0, columns, (104, 80, 58))
    elif kind == "mesh":
        r, c = np.mgrid[0:rows, 0:columns]
        wire = ((r + c) % 12 < 3) | ((r - c) % 12 < 3)
        colour[wire], label[wire] = (128, 136, 132), classes.FENCE
        fill(0, 5, 0, columns, (120, 128, 124))
        fill(0, rows, 0, 7, (104, 112, 108))
    else:
        fill(10, 22, 0, columns, (210, 206, 200))
        fill(46, 58, 0, columns, (210, 206, 200))
        for c in range(0, columns, 40):
            fill(10, 22, c, c + 20, (190, 40, 38))
            fill(46, 58, c + 20, c + 40, (190, 40, 38))
        fill(4, rows, 0, 10, (150, 150, 150))
    solid = colour[label == classes.FENCE][0]
    colour[label == classes.NOTHING] = solid
    return pack(colour, label, 2)


@functools.cache
def wall(kind: str) -> Texture:
    """Returns 2.4 m of a wall, "brick", "stone" or "concrete", with a cap."""
    tile = bricks().astype(np.int32)
    base = {"brick": (158, 88, 68), "stone": (150, 142, 128), "concrete": (164, 164, 160)}[kind]
    if kind == "concrete":
        tile = np.full((TILE, TILE), 128)
        tile[:, ::128] = 88
        tile[:, 1::128] = 100
    elif kind == "stone":
        tile = tile[:128, :128].repeat(2, 0).repeat(2, 1)
    stain = cloud_noise("stains").astype(np.int32)
    value = tile * (176 + stain // 3) // 224
    colour = np.clip(np.array(base) * value[..., None] // 128, 0, 255).astype(np.uint8)
    cap = colour[:16].astype(np.int32)
    colour[:16] = np.minimum(cap * 5 // 4 + 16, 255)
    colour[16:22] = colour[16:22] // 2
    label = np.full((TILE, TILE), classes.WALL, np.uint8)
    return pack(colour, label, 5)


def draw_barrier(scene: Scene, kind: str, x, z0, z1, height) -> None:
    """Draws a fence or wall along the street; `kind` is one of `fence` and `wall`."""
    side = -1.0 if x > 0 else 1.0
    gain = scene.light.on((side * 0.95, 0.3, 0.0), 0.8)
    if kind in ("brick", "stone", "concrete"):
        texture, period = wall(kind), 2.4
        if scene.condition.snow:
            along(scene, _cap(), x, z0, z1, height, height + 0.12, scene.light.on((0, 1, 0)))
    else:
        texture, period = fence(kind), 2.0
    along(scene, texture, x, z0, z1, 0.0, height, gain, period)


def draw_railing(scene: Scene, x: Number, z: Number, long: Number, seed: int) -> None:
    """Draws a piece of railing at the kerb; neighbours are alike."""
    kind = "rail" if round(x * 10) % 3 == 0 else "bars"
    along(scene, fence(kind), x, z - long / 2, z + long / 2, 0.0, 1.0, scene.gain_at(x, z), 2.0)


def draw_median(scene: Scene, x: Number, z: Number, long: Number) -> None:
    """Draws a piece of the concrete barrier between the directions."""
    high, z0, z1 = 0.85, z - long / 2, z + long / 2
    top = np.array([(x, high, z0), (x, high, z1), (x - 0.3, high, z1), (x - 0.3, high, z0)])
    top = clip_near(top)
    if len(top):
        snow = scene.condition.snow
        colour = scene.seen((236, 238, 242) if snow else (178, 178, 172), z,
                            scene.gain_at(x, z, (0.0, 1.0, 0.0)))  # fmt: skip
        scene.canvas.polygon(scene.camera.project(top), colour, classes.WALL)
    gain = scene.gain_at(x, z, (0.95, 0.3, 0.0))
    along(scene, wall("concrete"), x, z0, z1, 0.0, high, gain, long)


@functools.cache
def _cap() -> Texture:
    colour = np.full((8, 8, 3), 236, np.uint8)
    return pack(colour, np.full((8, 8), classes.WALL, np.uint8), 1)
