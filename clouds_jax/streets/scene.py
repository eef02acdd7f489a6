"""State that all drawing functions share: the picture, the camera and the light."""

import dataclasses

import numpy as np

from clouds_jax.streets.camera import Camera
from clouds_jax.streets.canvas import Canvas
from clouds_jax.streets.domains import City, Condition
from clouds_jax.streets.types import Colour, Number, Point


@dataclasses.dataclass(frozen=True)
class Light:
    """The light of one picture.

    Attributes:
        sun: unit vector (x, y, z) towards the sun.
        direct, ambient: strength per channel.
    """

    sun: Point
    direct: Colour
    ambient: Colour

    def on(self, normal: Point, shade: Number = 1.0) -> Colour:
        """Returns the gain per channel of a surface; `shade` 0 keeps the direct light away."""
        facing = max(sum(n * s for n, s in zip(normal, self.sun, strict=True)), 0.0) * shade
        sky = 0.82 + 0.18 * normal[1]
        return tuple(a * sky + d * facing for a, d in zip(self.ambient, self.direct, strict=True))


@dataclasses.dataclass
class Glow:
    """A light that shines into the lens: position and radius in pixels."""

    x: Number
    y: Number
    radius: Number
    colour: Colour


@dataclasses.dataclass
class Scene:
    """A picture while it is drawn.

    Attributes:
        canvas: image and label.
        camera: view of the street.
        light: sun and sky.
        city, condition: of the domain.
        shade: [h, w] uint8, 255 where the sun reaches the ground.
        shelter: the same for the shadows of buildings alone.
        pools: [h, w] uint8, lamp light on the ground.
        lane_end: distance from the middle line beyond which vehicles are parked, metres.
        glows: lights that are added over the finished picture.
    """

    canvas: Canvas
    camera: Camera
    light: Light
    city: City
    condition: Condition
    shade: np.ndarray
    shelter: np.ndarray
    pools: np.ndarray
    lane_end: Number
    glows: list[Glow] = dataclasses.field(default_factory=list)

    def clear(self, z):
        """Returns the share of light that comes through the haze from depth `z`."""
        q = z / self.condition.visibility
        return 1.0 / (1.0 + q + 0.5 * q * q)

    def seen(self, colour: Colour, z: Number, gain: Colour = (1.0, 1.0, 1.0)) -> Colour:
        """Returns how `colour` under `gain` looks from the camera."""
        t = self.clear(z)
        return tuple(
            min(c * g, 255.0) * t + h * (1 - t)
            for c, g, h in zip(colour, gain, self.condition.haze, strict=True)
        )

    def gain_at(self, x: Number, z: Number, normal: Point = (0, 0.3, -0.95)):
        """Returns the gain of an upright thing that stands at (x, z): sun or shade, and lamps."""
        camera = self.camera
        u, v = camera.ground(np.array([x, max(z, 1.0)]))
        column = min(max(int(u), 0), camera.width - 1)
        row = min(max(int(v), 0), camera.height - 1)
        gain = self.light.on(normal, 0.25 + 0.75 * float(self.shelter[row, column]) / 255)
        lamp = float(self.pools[row, column]) / 255
        return (gain[0] + 0.8 * lamp, gain[1] + 0.69 * lamp, gain[2] + 0.5 * lamp)

    def glow(self, point: Point, size: Number, colour: Colour) -> None:
        """Lets a lamp at `point` shine; `size` in metres."""
        if point[2] < 1.0:
            return
        u, v = self.camera.project(np.array(point))
        radius = size * self.camera.scale(point[2])
        t = self.clear(point[2] * 0.5)  # a lamp shows further than what it lights
        self.glows.append(Glow(float(u), float(v), radius, tuple(c * t for c in colour)))
