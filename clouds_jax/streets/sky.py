"""The sky and what ends the street: clouds, the sun's glow, far houses and trees."""

import functools

import cv2
import numpy as np

from clouds_jax.streets import classes
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.textures import TILE, Texture, cloud_noise, pack
from clouds_jax.streets.walls import across


def draw_sky(scene: Scene, rng: Rng) -> None:
    """Fills the picture with sky; the ground is painted over it."""
    camera, condition, image = scene.camera, scene.condition, scene.canvas.image
    rows = min(max(int(camera.cy) + 2, 2), camera.height)
    # Clouds are soft: they are drawn at half size.
    v = 2.0 * np.arange(-(-rows // 2)) + 1
    u = 2.0 * np.arange(-(-camera.width // 2)) + 1
    height = np.clip((camera.cy - v) / (0.33 * camera.focal), 0, 1)
    rise = (height * (2 - height))[:, None]
    gradient = np.array(condition.horizon) * (1 - rise) + np.array(condition.zenith) * rise
    elevation = np.maximum(camera.cy - v, 0.5) / camera.focal
    depth = 1.0 / (elevation + 0.10)
    cover = rng.between(*condition.cover)
    off_x, off_y = rng.integer(0, TILE - 1), rng.integer(0, TILE - 1)
    x = ((u - camera.cx) / camera.focal)[None, :] * (depth * 52)[:, None] + off_x
    y = np.floor(depth * 78 + off_y).astype(np.int32) % TILE * TILE
    index = y[:, None] + (np.floor(x).astype(np.int32) & (TILE - 1))
    value = cloud_noise("clouds").reshape(-1).take(index).astype(np.float32)
    threshold = np.float32(215 - 190 * cover)
    alpha = np.clip((value - threshold) / 70, 0, 1)
    alpha *= (np.clip(height * 6, 0.25, 1) * 0.92)[:, None].astype(np.float32)
    tone = 1 - 0.2 * np.clip((value - threshold) / 150, 0, 1)
    sky = np.empty((len(v), len(u), 3), np.float32)
    for c in range(3):
        back = gradient[:, c, None].astype(np.float32)
        sky[..., c] = back + (tone * np.float32(condition.clouds[c]) - back) * alpha
    sun = scene.light.sun
    if max(scene.light.direct) > 0 and sun[2] > 0.2:
        dx = (u - camera.cx) / camera.focal - sun[0] / sun[2]
        dy = (v - camera.cy) / camera.focal + sun[1] / sun[2]
        near = 1 / (1 + 40 * (dx[None, :] * dx[None, :] + dy[:, None] * dy[:, None]))
        sky += (near[..., None] * (np.array([255, 236, 190]) * 0.75)).astype(np.float32)
    small = np.minimum(sky, 255).astype(np.uint8)
    big = cv2.resize(small, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR_EXACT)
    image[:rows] = big[:rows, : camera.width]
    image[rows:] = np.array(condition.haze, np.uint8)
    scene.canvas.label[:] = classes.SKY


def draw_backdrop(scene: Scene, rng: Rng, urban: bool) -> None:
    """Draws the far skyline: houses, then trees, pale with distance."""
    camera = scene.camera
    z = 210.0
    gain = scene.light.on((0.0, 0.0, -1.0))
    x = -190.0
    while x < 190.0:
        width = rng.between(10, 26)
        height = rng.between(7, 44 if urban else 15)
        texture = _far_facade(rng.integer(0, 5), scene.condition.lamps > 0.5)
        across(scene, texture, z, x, x + width, 0.0, height, gain)
        x += width * rng.between(0.75, 1.25)
    x = -190.0
    while x < 190.0:
        radius = rng.between(4, 10)
        if rng.chance(0.75):
            leaf = rng.pick(scene.city.leaves)
            if scene.condition.snow:
                leaf = (150, 152, 156)
            u, v = camera.project(np.array([x, radius * 0.6, z - 12]))
            size = radius * camera.scale(z - 12)
            colour = scene.seen(leaf, z * 0.8, tuple(g * 0.8 for g in gain))
            scene.canvas.disc((float(u), float(v)), size, size * 0.8, colour, classes.VEGETATION)
            scene.canvas.polygon(
                np.array([(u - size, v), (u + size, v), (u + size, v + 30), (u - size, v + 30)]),
                colour,
                classes.VEGETATION,
            )
        x += radius * 1.3


@functools.cache
def _far_facade(variant: int, lit: bool) -> Texture:
    """Returns a small picture of windows in rows."""
    rng = Rng("far", variant)
    wall = rng.pick(((176, 170, 164), (150, 156, 166), (190, 176, 156), (160, 128, 112)))
    colour = np.empty((56, 32, 3), np.uint8)
    colour[:] = wall
    for row in range(3, 54, 5):
        for column in range(2, 30, 4):
            glow = lit and rng.chance(0.3)
            colour[row : row + 3, column : column + 2] = (250, 214, 140) if glow else (84, 92, 104)
    return pack(colour, np.full((56, 32), classes.BUILDING, np.uint8), 3)
