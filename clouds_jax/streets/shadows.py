"""Light on the ground: shadows of the sun, contact shadows, and pools of lamp light."""

import cv2
import numpy as np

from clouds_jax.streets.camera import clip_near
from clouds_jax.streets.canvas import fixed
from clouds_jax.streets.ground import DISC, Ground
from clouds_jax.streets.layout import Layout
from clouds_jax.streets.scene import Scene


def cast_shadows(scene: Scene, layout: Layout, ground: Ground) -> np.ndarray:
    """Fills the scene's shade and lamp light, and draws contact shadows.

    Returns:
        Contact shadows [h, w] uint8: 255 where nothing keeps the sky's light away.
    """
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
                    disc = [(x + dx * t + r * k * c, z + dz * t + r * k * s) for c, s in DISC]
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
            shape = np.array([(x + rx * size * c, 0.0, z + rz * size * s) for c, s in DISC])
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
