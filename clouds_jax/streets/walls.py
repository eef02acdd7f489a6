"""Textures pasted on upright surfaces, one depth per image column."""

import numpy as np

from clouds_jax.streets.camera import FAR, NEAR
from clouds_jax.streets.classes import NOTHING
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.textures import Texture
from clouds_jax.streets.types import Colour, Number

_ONE = 128  # fixed point of gains: 7 bits, so that 255 * 2.0 fits 16 bits


def _haze(scene: Scene, z: np.ndarray, gain: Colour) -> tuple[np.ndarray, np.ndarray]:
    """Returns factor and summand [n, 3] uint16 of what stands at depths `z` [n]."""
    clear = scene.clear(z)[:, None]
    factor = np.minimum(clear * np.array(gain), 2.0) * _ONE
    summand = (1 - clear) * np.array(scene.condition.haze)
    return factor.astype(np.uint16), summand.astype(np.uint16)


def _paste_run(scene, texels, first, z, s, low, high, gain) -> None:
    """Pastes texels [h, w] on the columns from `first` on, all of one level."""
    camera, canvas = scene.camera, scene.canvas
    lift = camera.slope * z * z - camera.y
    top = camera.cy - camera.focal * (high + lift) / z
    bottom = camera.cy - camera.focal * (low + lift) / z
    r0 = max(int(np.floor(top.min())), 0)
    r1 = min(int(np.ceil(bottom.max())), camera.height)
    if r1 <= r0:
        return
    th, tw = texels.shape
    rows = (np.arange(r0, r1) + 0.5)[:, None]
    step = th / np.maximum(bottom - top, 1e-6)
    y = np.floor((rows - top) * step).astype(np.int32)
    hit = (y >= 0) & (y < th)
    x = np.floor(s * tw).astype(np.int32) % tw
    index = np.clip(y, 0, th - 1) * np.int32(tw) + x
    taken = texels.reshape(-1).take(index).view(np.uint8).reshape(*index.shape, 4)
    label = taken[..., 3]
    hit &= label != NOTHING
    factor, summand = _haze(scene, z, gain)
    colour = ((taken[..., :3] * factor) >> 7) + summand
    np.minimum(colour, 255, out=colour)
    u1 = first + len(z)
    np.copyto(canvas.image[r0:r1, first:u1], colour.astype(np.uint8), where=hit[..., None])
    np.copyto(canvas.label[r0:r1, first:u1], label, where=hit)


def paste(
    scene: Scene,
    texture: Texture,
    first: int,
    z: np.ndarray,
    s: np.ndarray,
    low: Number,
    high: Number,
    gain: Colour = (1.0, 1.0, 1.0),
) -> None:
    """Pastes `texture` on the columns from `first` on.

    Args:
        scene: picture to paste on.
        texture: picture with labels; its bottom row lies at height `low`, its top row at `high`.
        first: leftmost column.
        z: depth of the surface [n].
        s: where the columns meet the texture [n], 0 its left and 1 its right edge; it repeats.
        low, high: metres above the ground.
        gain: light per channel.
    """
    if len(z) == 0:
        return
    th, tw = texture.shape
    across = np.abs(np.diff(s, append=s[-1:])) * tw
    if len(s) > 1:
        across[-1] = across[-2]
    down = th * z / (scene.camera.focal * (high - low))
    _, exponent = np.frexp(np.maximum(across * down, 1e-9))
    level = np.clip(exponent // 2, 0, len(texture.levels) - 1)
    edges = [0, *(np.flatnonzero(np.diff(level)) + 1), len(z)]
    for a, b in zip(edges, edges[1:], strict=False):
        texels = texture.levels[int(level[a])]
        _paste_run(scene, texels, first + a, z[a:b], s[a:b], low, high, gain)


def along(scene, texture, x, z0, z1, low, high, gain=(1.0, 1.0, 1.0), period=None) -> None:
    """Pastes `texture` on the wall at `x` from depth `z0` (left edge) to `z1`."""
    depth = scene.camera.wall_depths(x)
    inside = np.flatnonzero((depth >= max(z0, NEAR)) & (depth < min(z1, FAR)))
    if len(inside):
        first, z = int(inside[0]), depth[inside]
        paste(scene, texture, first, z, (z - z0) / (period or z1 - z0), low, high, gain)


def across(scene, texture, z, x0, x1, low, high, gain=(1.0, 1.0, 1.0), period=None) -> None:
    """Pastes `texture` on the wall that faces the camera at depth `z` from `x0` to `x1`."""
    if not NEAR < z < FAR:
        return
    camera = scene.camera
    shift = camera.curve * z * z - camera.x
    left = camera.cx + camera.focal * (x0 + shift) / z
    right = camera.cx + camera.focal * (x1 + shift) / z
    u0, u1 = max(int(np.ceil(left - 0.5)), 0), min(int(np.ceil(right - 0.5)), camera.width)
    if u1 > u0:
        s = (
            (np.arange(u0, u1) + 0.5 - left)
            / (right - left)
            * ((x1 - x0) / period if period else 1)
        )
        paste(scene, texture, u0, np.full(u1 - u0, float(z)), s, low, high, gain)
