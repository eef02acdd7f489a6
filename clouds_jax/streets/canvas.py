"""The image and its labels, painted together: whatever is drawn last is seen.

Colours have antialiased edges, labels have none; both are filled from the same outline.
"""

import math

import cv2
import numpy as np

from clouds_jax.streets.classes import NOTHING
from clouds_jax.streets.types import Colour, Flat, Number

_SHIFT = 4
_LIMIT = 1 << 14  # pixels; cv2 counts in 1/16 pixel with 32 bits
_ARC = [(1.0, 0.0), (0.809, 0.588), (0.309, 0.951), (-0.309, 0.951), (-0.809, 0.588), (-1.0, 0.0)]
# Rounded, as the last bits of a cosine differ between machines.
CIRCLE = np.array(
    [(round(math.cos(a), 6), round(math.sin(a), 6)) for a in (math.pi * k / 10 for k in range(20))]
)


def fixed(points: np.ndarray) -> np.ndarray:
    """Returns pixel positions [n, 2] in cv2's fixed point, whose origin is a pixel's centre."""
    scaled = np.floor(np.clip(points, -_LIMIT, _LIMIT) * (1 << _SHIFT) - 7.5)
    return scaled.astype(np.int32)


class Canvas:
    """A colour image [h, w, 3] and a label map [h, w], both uint8."""

    def __init__(self, height: int, width: int):
        """Starts with a black image in which nothing is labelled."""
        self.image = np.zeros((height, width, 3), np.uint8)
        self.label = np.full((height, width), NOTHING, np.uint8)

    def polygon(
        self, points: np.ndarray, colour: Colour, label: int | None, convex: bool = True
    ) -> None:
        """Fills the outline `points` [n, 2] in pixels; `label` None leaves the labels."""
        if len(points) < 3:
            return
        corners = fixed(points)
        if convex:
            cv2.fillConvexPoly(self.image, corners, colour, cv2.LINE_AA, _SHIFT)
            if label is not None:
                cv2.fillConvexPoly(self.label, corners, (label,), cv2.LINE_8, _SHIFT)
        else:
            cv2.fillPoly(self.image, [corners], colour, cv2.LINE_AA, _SHIFT)
            if label is not None:
                cv2.fillPoly(self.label, [corners], (label,), cv2.LINE_8, _SHIFT)

    def disc(self, centre: Flat, rx: Number, ry: Number, colour: Colour, label) -> None:
        """Fills an upright ellipse; positions and radii in pixels."""
        self.polygon(CIRCLE * (rx, ry) + centre, colour, label)

    def limb(
        self,
        a: Flat,
        b: Flat,
        ra: Number,
        rb: Number,
        colour: Colour,
        label: int | None,
    ) -> None:
        """Fills a tapered stroke with round ends from `a` (radius `ra`) to `b` (radius `rb`)."""
        dx, dy = b[0] - a[0], b[1] - a[1]
        length = math.sqrt(dx * dx + dy * dy)
        dx, dy = (dx / length, dy / length) if length > 1e-6 else (1.0, 0.0)
        points = [(a[0] + ra * (c * dy - s * dx), a[1] + ra * (-c * dx - s * dy)) for c, s in _ARC]
        points += [(b[0] + rb * (-c * dy + s * dx), b[1] + rb * (c * dx + s * dy)) for c, s in _ARC]
        self.polygon(np.array(points), colour, label)

    def line(self, a, b, width: Number, colour: Colour, label: int | None) -> None:
        """Draws a straight bar of `width` pixels with square ends."""
        dx, dy = b[0] - a[0], b[1] - a[1]
        length = max(math.sqrt(dx * dx + dy * dy), 1e-6)
        nx, ny = -dy / length * width / 2, dx / length * width / 2
        points = [(a[0] + nx, a[1] + ny), (b[0] + nx, b[1] + ny)]
        points += [(b[0] - nx, b[1] - ny), (a[0] - nx, a[1] - ny)]
        self.polygon(np.array(points), colour, label)
