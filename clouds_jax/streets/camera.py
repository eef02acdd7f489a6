"""The pinhole camera and the shape of the ground.

World: x to the right of the road's middle line, y up from the ground, z forward from the camera,
in metres. The road bends by `curve * z**2` to the right and rises by `slope * z**2`, and
everything that stands on it bends and rises with it, so verticals stay vertical in the image and
one image column meets an upright wall at one depth. Pitch and yaw move the principal point.

Only +, -, *, / and sqrt touch pixel positions: they round alike on every machine.
"""

import dataclasses

import numpy as np

from clouds_jax.streets.types import Number

NEAR = 0.6
FAR = 220.0


@dataclasses.dataclass(frozen=True)
class Camera:
    """A camera over the road.

    Attributes:
        width, height: of the image, pixels.
        focal, cx, cy: pixels; cy is the row of the horizon of a flat road.
        x, y: metres right of the middle line and above the ground.
        curve, slope: 1/m.
    """

    width: int
    height: int
    focal: Number
    cx: Number
    cy: Number
    x: Number
    y: Number
    curve: Number
    slope: Number

    def project(self, points: np.ndarray) -> np.ndarray:
        """Projects `points` [..., 3] (z >= NEAR) to pixel positions [..., 2]."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        bend = z * z
        out = np.empty(points.shape[:-1] + (2,))
        out[..., 0] = self.cx + self.focal * (x - self.x + self.curve * bend) / z
        out[..., 1] = self.cy - self.focal * (y - self.y + self.slope * bend) / z
        return out

    def ground(self, points: np.ndarray) -> np.ndarray:
        """Projects ground points [..., 2] given as (x, z)."""
        lifted = np.zeros(points.shape[:-1] + (3,))
        lifted[..., 0] = points[..., 0]
        lifted[..., 2] = points[..., 1]
        return self.project(lifted)

    def row_depths(self) -> np.ndarray:
        """Returns the depth [h] at which each row's centre meets the ground; inf above it."""
        below = np.arange(self.height) + 0.5 - self.cy
        root = below * below + 4 * self.focal * self.focal * self.slope * self.y
        denominator = below + np.sqrt(np.maximum(root, 0))
        with np.errstate(divide="ignore"):
            depth = 2 * self.focal * self.y / denominator
        return np.where((root >= 0) & (denominator > 0), depth, np.inf)

    def column_slopes(self) -> np.ndarray:
        """Returns (x - camera) / z [w] of the rays through the columns' centres."""
        return (np.arange(self.width) + 0.5 - self.cx) / self.focal

    def wall_depths(self, x: Number) -> np.ndarray:
        """Returns the depth [w] at which each column meets the wall at `x`; inf if never."""
        m, offset = self.column_slopes(), x - self.x
        root = m * m - 4 * self.curve * offset
        side = 1.0 if offset > 0 else -1.0
        denominator = m + side * np.sqrt(np.maximum(root, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = 2 * offset / denominator
        return np.where((root >= 0) & (depth > 0), depth, np.inf)

    def scale(self, z: Number) -> float:
        """Returns pixels per metre at depth `z`."""
        return self.focal / z


def clip_near(polygon: np.ndarray, near: Number = NEAR) -> np.ndarray:
    """Cuts the part of `polygon` [n, 3] before the plane z = near away; may return no points."""
    inside = polygon[:, 2] >= near
    if inside.all():
        return polygon
    out = []
    for i in range(len(polygon)):
        a, b = polygon[i - 1], polygon[i]
        if inside[i] != inside[i - 1]:
            out.append(a + (b - a) * ((near - a[2]) / (b[2] - a[2])))
        if inside[i]:
            out.append(b)
    return np.array(out).reshape(-1, 3)
