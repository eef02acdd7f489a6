"""Buildings along the street: a front to the road, and a side wall where a gap shows it."""

import dataclasses
import math

import numpy as np

from clouds_jax.streets import classes
from clouds_jax.streets.domains import City
from clouds_jax.streets.facade_canvas import Look
from clouds_jax.streets.facades import draw_facade
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.types import Number
from clouds_jax.streets.walls import across, along

# Depths in metres from which fronts (seen at a slant) and end walls are drawn without detail.
_PLAIN_FRONT = 55.0
_PLAIN_END = 90.0
_TEXELS = 500_000  # at most, of one facade


@dataclasses.dataclass(frozen=True)
class Building:
    """A building: its front at `x`, from depth `z0` to `z1`; `side` is -1 left and 1 right."""

    look: Look
    x: Number
    side: int
    z0: Number
    z1: Number
    deep: Number
    open_end: bool
    seed: int

    @property
    def height(self) -> float:
        """Height of the ridge, metres."""
        return self.look.height + self.look.roof_height


def sample_look(city: City, rng: Rng) -> Look:
    """Samples the look of one building of the city."""
    style = rng.weighted(city.styles)
    wall = rng.pick(city.walls)
    if style == "timber":
        wall = (226, 214, 190)
    elif style == "brick":
        wall = rng.pick(((164, 82, 62), (148, 74, 58), (176, 106, 74), (136, 92, 78)))
    tone = rng.between(0.88, 1.08)
    pitched = style in ("plaster", "brick", "timber", "house")
    return Look(
        style=style,
        wall=tuple(min(c * tone, 250) for c in wall),
        trim=rng.pick(((232, 228, 218), (214, 206, 190), (196, 196, 194), (238, 236, 232))),
        roof=rng.pick(city.roofs),
        floors=rng.integer(*city.floors),
        floor=rng.between(2.9, 3.5),
        shop=rng.chance(0.55) and style != "house",
        roof_height=rng.between(1.6, 3.2) if pitched else rng.between(0.3, 0.6),
    )


def draw_building(scene: Scene, building: Building) -> None:
    """Draws the side wall towards the camera, then the front."""
    camera = scene.camera
    seen = camera.y + (camera.cy + 2) / camera.focal * building.z1
    seen += abs(camera.slope) * building.z1 * building.z1 + 1
    look, lamps, snow = building.look, scene.condition.lamps, scene.condition.snow
    z_near = max(building.z0, 6.0)
    if building.z0 > 2 and not building.open_end:
        _party_wall(scene, building)
    elif building.z0 > 2:
        gain = scene.light.on((0.0, 0.0, -1.0))
        rng = Rng(building.seed, "end")
        scale = _scale(camera.scale(z_near), building.deep, seen)
        end_look = dataclasses.replace(look, shop=False)
        texture, height = draw_facade(
            end_look, building.deep, seen, scale, gain, lamps, snow, building.z0 > _PLAIN_END, rng
        )
        x0, x1 = sorted((building.x, building.x + building.side * building.deep))
        if look.style == "house" and look.roof_height > 1:
            _gable(scene, building, x0, x1, gain)
        across(scene, texture, building.z0, x0, x1, 0.0, height)
    depth = camera.wall_depths(building.x)
    if not ((depth > building.z0) & (depth < building.z1)).any():
        return
    gain = scene.light.on((-float(building.side), 0.0, 0.0))
    width = building.z1 - building.z0
    # The front is seen at a slant, so its columns need less than its rows.
    scale = _scale(camera.scale(z_near) * 0.8, width, seen)
    far = building.z0 > _PLAIN_FRONT
    texture, height = draw_facade(
        look, width, seen, scale, gain, lamps, snow, far, Rng(building.seed, "front")
    )
    along(scene, texture, building.x, building.z0, building.z1, 0.0, height)


def _scale(wanted: Number, width: Number, height: Number) -> Number:
    """Returns texels per metre: as the camera sees, within bounds of size."""
    return min(max(wanted, 5.0), 36.0, math.sqrt(_TEXELS / (width * height)))


def _party_wall(scene: Scene, building: Building) -> None:
    """Draws the bare wall that shows above a lower neighbour."""
    x0, x1 = building.x, building.x + building.side * building.deep
    top, z = building.look.height, building.z0
    points = np.array([(x0, 0.0, z), (x1, 0.0, z), (x1, top, z), (x0, top, z)])
    wall = tuple(c * 0.86 for c in building.look.wall)
    colour = scene.seen(wall, z, scene.light.on((0.0, 0.0, -1.0)))
    scene.canvas.polygon(scene.camera.project(points), colour, classes.BUILDING)


def _gable(scene: Scene, building: Building, x0: Number, x1: Number, gain) -> None:
    """Draws the triangle of wall under a pitched roof."""
    top = building.look.height
    points = np.array(
        [
            (x0 - 0.3, top - 0.1, building.z0),
            ((x0 + x1) / 2, top + building.look.roof_height + 0.6, building.z0),
            (x1 + 0.3, top - 0.1, building.z0),
        ]
    )
    roof = (228, 232, 238) if scene.condition.snow else building.look.roof
    colour = scene.seen(roof, building.z0, gain)
    scene.canvas.polygon(scene.camera.project(points), colour, classes.BUILDING)
    points[:, 1] -= 0.35
    colour = scene.seen(building.look.wall, building.z0, gain)
    scene.canvas.polygon(scene.camera.project(points), colour, classes.BUILDING)
