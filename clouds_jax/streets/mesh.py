"""Small solids: faces in object coordinates, and their drawing from far to near.

Object coordinates: x to the object's right, y up from the ground, z towards its front; the origin
lies on the ground under its middle.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from clouds_jax.streets.camera import NEAR, clip_near
from clouds_jax.streets.canvas import fixed
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.types import Colour, Flat, Number, Point


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Faces of one kind of object.

    Attributes:
        corners: [f, k, 3]; faces of fewer corners repeat the last.
        normals, centres: [f, 3].
        slots: name of each face's material.
        part, layer: [f]; parts are drawn from far to near, a part's layers in order.
        origins: [p, 3] middle of each part.
    """

    corners: np.ndarray
    normals: np.ndarray
    centres: np.ndarray
    slots: tuple[str, ...]
    part: np.ndarray
    layer: np.ndarray
    origins: np.ndarray


class Builder:
    """Collects faces. Each part is nearly convex, so that back faces need not be drawn."""

    def __init__(self):
        """Starts without any face."""
        self._faces: list[tuple[Sequence[Point], str, int, int]] = []
        self._origins: list[Point] = []

    def part(self, origin: Point) -> None:
        """Starts a part around `origin`, which its faces turn away from."""
        self._origins.append(origin)

    def face(self, points: Sequence[Point], slot: str, layer: int = 0) -> None:
        """Adds a face to the latest part."""
        self._faces.append((points, slot, len(self._origins) - 1, layer))

    def pair(self, points: Sequence[Point], slot: str, layer: int = 0) -> None:
        """Adds a face and its mirror image at -x."""
        self.face(points, slot, layer)
        self.face([(-x, y, z) for x, y, z in points], slot, layer)

    def box(self, x0, x1, y0, y1, z0, z1, slot: str, layer: int = 0) -> None:
        """Adds the faces of a box that can be seen from above the ground."""
        a, b, c, d = (x0, z0), (x1, z0), (x1, z1), (x0, z1)
        for (px, pz), (qx, qz) in ((a, b), (b, c), (c, d), (d, a)):
            self.face([(px, y0, pz), (qx, y0, qz), (qx, y1, qz), (px, y1, pz)], slot, layer)
        self.face([(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)], slot, layer)

    def end(self, x0, x1, y0, y1, z: Number, slot: str, layer: int = 1) -> None:
        """Adds an upright rectangle across the object."""
        self.face([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], slot, layer)

    def sides(self, x: Number, y0, y1, z0, z1, slot: str, layer: int = 1) -> None:
        """Adds upright rectangles along the object at x and -x."""
        self.pair([(x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)], slot, layer)

    def build(self) -> Mesh:
        """Returns the mesh."""
        most = max(len(points) for points, *_ in self._faces)
        corners = np.array([[*p, *[p[-1]] * (most - len(p))] for p, *_ in self._faces])
        # Newell's sum: the first corners may lie on one line.
        normals = np.zeros((len(corners), 3))
        for k in range(most):
            normals += np.cross(corners[:, k], corners[:, (k + 1) % most])
        length = np.sqrt(
            normals[:, 0] * normals[:, 0]
            + normals[:, 1] * normals[:, 1]
            + normals[:, 2] * normals[:, 2]
        )
        normals = normals / np.maximum(length, 1e-9)[:, None]
        centres = np.array(
            [[sum(v) / len(p) for v in zip(*p, strict=True)] for p, *_ in self._faces]
        )
        part = np.array([p for _, _, p, _ in self._faces])
        origins = np.array(self._origins)
        out = centres - origins[part]
        facing = normals[:, 0] * out[:, 0] + normals[:, 1] * out[:, 1] + normals[:, 2] * out[:, 2]
        normals = np.where((facing < 0)[:, None], -normals, normals)
        layer = np.array([layer for *_, layer in self._faces])
        slots = tuple(slot for _, slot, _, _ in self._faces)
        return Mesh(corners, normals, centres, slots, part, layer, origins)


def _turn(points: np.ndarray, cos: Number, sin: Number) -> np.ndarray:
    out = points.copy()
    out[..., 0] = points[..., 0] * cos + points[..., 2] * sin
    out[..., 2] = points[..., 2] * cos - points[..., 0] * sin
    return out


def draw_mesh(
    scene: Scene,
    mesh: Mesh,
    place: Point,
    heading: Flat,
    colours: Mapping[str, Colour],
    label: int,
    shining: frozenset[str] = frozenset(),
) -> None:
    """Draws a mesh.

    Args:
        scene: picture to draw on.
        mesh: faces of the object.
        place: position of the object's origin in the world.
        heading: (cos, sin) of its turn; (1, 0) goes as the camera does, (-1, 0) comes.
        colours: colours of the materials, by slot.
        label: train id of the object.
        shining: slots that need no light.
    """
    camera, light = scene.camera, scene.light
    cos, sin = heading
    offset = np.array(place)
    centres = _turn(mesh.centres, cos, sin) + offset
    normals = _turn(mesh.normals, cos, sin)
    x = centres[:, 0] - camera.x
    y = centres[:, 1] - camera.y
    z = centres[:, 2]
    # The bend turns the view: what counts is the ray at the object's own place.
    bend = camera.curve * offset[2] * offset[2]
    away = normals[:, 0] * (x + bend) + normals[:, 1] * y + normals[:, 2] * z
    seen = np.flatnonzero(away < 0)
    origins = _turn(mesh.origins, cos, sin) + offset
    ox, oz = origins[:, 0] - camera.x, origins[:, 2]
    far = ox * ox + oz * oz
    distance = x * x + y * y + z * z
    order = np.lexsort((-distance[seen], mesh.layer[seen], -far[mesh.part[seen]]))
    seen = seen[order]
    corners = _turn(mesh.corners[seen], cos, sin) + offset
    pixels = fixed_all(scene, corners)
    gains = scene.gain_at(place[0], place[2], (0.0, 1.0, 0.0))
    flat = light.on((0.0, 1.0, 0.0), 1.0)
    depth = max(place[2], 1.0)
    clear = scene.clear(depth)
    haze = [h * (1 - clear) for h in scene.condition.haze]
    sun = light.sun
    snow = scene.condition.snow
    lit = min(gains[1] / max(flat[1], 1e-3), 1.0)
    shade = max((lit - 0.45) / 0.55, 0.0)
    pool = [max(g - f, 0.0) for g, f in zip(gains, flat, strict=True)]
    sky = scene.condition.horizon
    image, labels = scene.canvas.image, scene.canvas.label
    near = corners[..., 2].min(axis=1) if len(seen) else []
    for i, face in enumerate(seen):
        slot = mesh.slots[face]
        nx, ny, nz = normals[face].tolist()
        base = colours[slot]
        if slot in shining:
            colour = [c * clear + h for c, h in zip(base, haze, strict=True)]
        else:
            if snow and ny > 0.75 and slot not in ("glass", "sheen"):
                base = (232, 236, 242)
            facing = max(nx * sun[0] + ny * sun[1] + nz * sun[2], 0.0) * shade
            up = 0.74 + 0.26 * ny
            gloss = (0.10 + 0.16 * max(ny, 0.0)) if slot in ("paint", "glass", "roof") else 0.03
            colour = []
            for c in range(3):
                gain = light.ambient[c] * up + light.direct[c] * facing + pool[c] * (0.5 + 0.4 * ny)
                value = base[c] * gain + sky[c] * gloss * (0.25 + 0.75 * min(gain, 1.0))
                colour.append(float(min(value, 255.0) * clear + haze[c]))
        if near[i] < NEAR:
            clipped = clip_near(corners[i])
            if len(clipped) < 3:
                continue
            points = fixed(camera.project(clipped))
            cv2.fillPoly(image, [points], colour, cv2.LINE_AA, 4)
            cv2.fillPoly(labels, [points], (label,), cv2.LINE_8, 4)
        else:
            cv2.fillConvexPoly(image, pixels[i], colour, cv2.LINE_AA, 4)
            cv2.fillConvexPoly(labels, pixels[i], (label,), cv2.LINE_8, 4)


def fixed_all(scene: Scene, corners: np.ndarray) -> np.ndarray:
    """Projects faces [f, k, 3] to cv2's fixed point [f, k, 2]."""
    safe = corners.copy()
    safe[..., 2] = np.maximum(safe[..., 2], NEAR)
    return fixed(scene.camera.project(safe))
