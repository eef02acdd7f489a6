"""Flat figures of tapered strokes with a lit and a dark side: people, bicycles, motorcycles."""

import dataclasses

import numpy as np

from clouds_jax.streets.scene import Scene
from clouds_jax.streets.types import Flat, Number, Point


@dataclasses.dataclass(frozen=True)
class Pen:
    """Draws strokes in metres around a foot on the ground, all at one depth.

    Attributes:
        scene: picture to draw on.
        x, z: position of the foot, metres.
        gain: light per channel.
        lit: side that the light comes from, -1 left and 1 right.
        scale: pixels per metre.
        foot: position of the foot, pixels.
    """

    scene: Scene
    x: Number
    z: Number
    gain: Point
    lit: float
    scale: Number
    foot: Flat

    def at(self, p: Point) -> Point:
        """Returns the pixel position of `p`, metres right of and above the foot."""
        return self.foot[0] + p[0] * self.scale, self.foot[1] - p[1] * self.scale

    def stroke(self, a, b, ra, rb, colour, label, plain=False, shines=False) -> None:
        """Draws a tapered stroke with round ends; `plain` has no lit side."""
        seen, canvas, k = self.scene.seen, self.scene.canvas, self.scale
        dark = 1.0 if plain else 0.68
        gain = (1.0, 1.0, 1.0) if shines else self.gain
        outer = seen(tuple(c * dark for c in colour), self.z, gain)
        canvas.limb(self.at(a), self.at(b), ra * k, rb * k, outer, label)
        if plain or max(ra, rb) * k < 1.2:
            return
        shift = self.lit * 0.28
        inner = seen(tuple(min(c * 1.08, 255) for c in colour), self.z, self.gain)
        a, b = (a[0] + shift * ra, a[1]), (b[0] + shift * rb, b[1])
        canvas.limb(self.at(a), self.at(b), ra * k * 0.66, rb * k * 0.66, inner, None)


def pen_at(scene: Scene, x: Number, z: Number) -> Pen:
    """Returns a pen whose foot stands at (x, z)."""
    foot = scene.camera.project(np.array([x, 0.0, z]))
    gain = scene.gain_at(x, z)
    lit = 1.0 if scene.light.sun[0] > 0 else -1.0
    return Pen(scene, x, z, gain, lit, scene.camera.scale(z), tuple(foot.tolist()))
