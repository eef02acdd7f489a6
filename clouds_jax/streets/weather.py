"""From the painted street to the photograph: reflections, rain, snow, glare, lens and sensor."""

import functools

import cv2
import numpy as np

from clouds_jax.streets import classes
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.textures import TILE, cloud_noise


def reflect(scene: Scene) -> None:
    """Mirrors what stands above the horizon in the wet ground."""
    camera, image, wet = scene.camera, scene.canvas.image, scene.condition.wet
    horizon = int(camera.cy)
    if wet <= 0 or not 4 < horizon < camera.height - 4:
        return
    rows = np.arange(horizon, camera.height)
    source = np.clip(2 * horizon - rows, 0, horizon - 1)
    mirrored = image[source]
    tall = max(camera.height // 24, 2) | 1
    mirrored = cv2.blur(mirrored, (3, tall))
    flat = np.array([c in (classes.ROAD, classes.SIDEWALK) for c in range(256)])
    ground = flat[scene.canvas.label[horizon:]]
    t = (rows - horizon) / max(camera.height - horizon, 1)
    strength = wet * (0.62 - 0.42 * t)
    z = camera.row_depths()[horizon:]
    z = np.minimum(z, 300)
    x = camera.column_slopes()[None, :] * z[:, None]
    puddles = cloud_noise("puddles").reshape(-1)
    column = np.floor(x * 18).astype(np.int32) & (TILE - 1)
    row = (np.floor(z * 9).astype(np.int32) & (TILE - 1)) * TILE
    depth = puddles.take(column + row[:, None]).astype(np.float32)
    mix = strength[:, None] * np.clip((depth - 60) / 110, 0.25, 1)
    mix = (np.where(ground, mix, 0) * 128).astype(np.uint16)[..., None]
    part = image[horizon:]
    part[:] = (part.astype(np.uint16) * (128 - mix) + mirrored.astype(np.uint16) * mix) >> 7


def shine(scene: Scene) -> None:
    """Adds the lamps' halos, and their streaks on wet ground."""
    image = scene.canvas.image
    h, w = image.shape[:2]
    if not scene.glows:
        return
    small = np.zeros((-(-h // 4), -(-w // 4), 3), np.uint8)
    for glow in scene.glows:
        u, v = int(glow.x * 4), int(glow.y * 4)  # 1/16 of a quarter-size pixel
        radius = int(max(glow.radius * 4, 9))
        if abs(u) < 1 << 18 and abs(v) < 1 << 18 and radius < 1 << 12:
            cv2.circle(small, (u, v), radius, glow.colour, -1, cv2.LINE_AA, 4)
            if scene.condition.wet > 0.5 and glow.y > scene.camera.cy:
                dim = tuple(c * 0.35 for c in glow.colour)
                size = (max(radius // 32, 1), max(radius // 3, 2))
                cv2.ellipse(small, (u // 16, v // 16 + size[1] + radius // 10), size, 0, 0, 360,
                            dim, -1)  # fmt: skip
    reach = max(w // 128, 2)
    halo = cv2.blur(cv2.blur(small, (2 * reach + 1,) * 2), (2 * reach + 1,) * 2)
    core = cv2.blur(small, (3, 3))
    total = cv2.add(halo, core // 2)
    big = cv2.resize(total, (small.shape[1] * 4, small.shape[0] * 4),
                     interpolation=cv2.INTER_LINEAR_EXACT)[:h, :w]  # fmt: skip
    cv2.add(image, big, image)


def precipitate(scene: Scene, rng: Rng) -> None:
    """Draws rain streaks or snow flakes in the air; labels stay."""
    image, condition = scene.canvas.image, scene.condition
    h, w = image.shape[:2]
    area = h * w / 1e6
    unit = h / 512
    if condition.streaks:
        layer = image.copy()
        count = int(condition.streaks * area * rng.between(0.6, 1.4))
        lean = rng.between(-0.15, 0.15)
        for x, y, k in rng.units(3 * count).reshape(-1, 3).tolist():
            long = (10 + 34 * k) * unit
            a = (int(x * w * 16), int(y * h * 16))
            b = (int((x * w + lean * long) * 16), int((y * h + long) * 16))
            cv2.line(layer, a, b, (206, 212, 218), 1, cv2.LINE_AA, 4)
        mixed = (image.astype(np.uint16) * 11 + layer.astype(np.uint16) * 5) >> 4
        image[:] = mixed.astype(np.uint8)
    if condition.flakes:
        count = int(condition.flakes * area * rng.between(0.5, 1.5))
        for x, y, k in rng.units(3 * count).reshape(-1, 3).tolist():
            radius = (0.5 + 1.5 * k * k * k * k) * unit
            centre = (int(x * w * 16), int(y * h * 16))
            cv2.circle(image, centre, int(radius * 16), (244, 246, 250), -1, cv2.LINE_AA, 4)


@functools.cache
def _lens(height: int, width: int) -> np.ndarray:
    """Returns the vignette [h, w, 1] uint16, 256 in the middle."""
    y = (np.arange(height) + 0.5) / height - 0.5
    x = (np.arange(width) + 0.5) / width - 0.5
    r = (y * y)[:, None] + (x * x)[None, :]
    return (256 * (1 - 0.22 * r - 0.15 * r * r)).astype(np.uint16)[..., None]


@functools.cache
def _grain(height: int, width: int) -> np.ndarray:
    """Returns noise [h + 64, w + 64, 3] int16 of standard deviation 64, partly grey."""
    rng = Rng("sensor")
    shape = (height + 64, width + 64)
    grey = rng.bytes(*shape, 1).astype(np.int16) + rng.bytes(*shape, 1).astype(np.int16)
    colour = rng.bytes(*shape, 3).astype(np.int16)
    return ((grey - 255) + (colour - 128)) // 2


def expose(scene: Scene, rng: Rng) -> np.ndarray:
    """Returns the picture [h, w, 3] as the camera records it: soft, vignetted, noisy, toned."""
    image = scene.canvas.image
    h, w = image.shape[:2]
    soft = cv2.GaussianBlur(image, (3, 3), 0.45)
    wide = (soft.astype(np.uint16) * _lens(h, w)) >> 8
    tone = [rng.between(0.975, 1.025) for _ in range(3)]
    bright = rng.between(0.93, 1.07)
    steps = np.arange(256)
    tables = []
    for c in range(3):
        # A shoulder keeps lights from clipping hard; a little contrast around the middle.
        t = np.minimum(steps * (tone[c] * bright) / 255, 1.0)
        t = t + 0.16 * t * (1 - t) * (2 * t - 1)
        tables.append(np.clip(t * 255, 0, 255).astype(np.uint8))
    toned = cv2.LUT(wide.astype(np.uint8), np.stack(tables, -1)[None])
    grain = _grain(h, w)
    r, c = rng.integer(0, 63), rng.integer(0, 63)
    strength = int(scene.condition.noise * rng.between(0.6, 1.3) * 4)
    noisy = toned.astype(np.int16) + ((grain[r : r + h, c : c + w] * strength) >> 8)
    return np.clip(noisy, 0, 255).astype(np.uint8)
