"""The renderer: from (domain, seed, index) to an image and its label map."""

import math

import cv2
import numpy as np
from jaxtyping import UInt8

from clouds_jax.streets import barriers, cycles, people, plants, poles, signs, traffic, weather
from clouds_jax.streets.arrange import sample_layout
from clouds_jax.streets.buildings import Building, draw_building
from clouds_jax.streets.camera import Camera
from clouds_jax.streets.canvas import Canvas
from clouds_jax.streets.domains import Domain
from clouds_jax.streets.layout import Layout, Thing
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.scene import Light, Scene
from clouds_jax.streets.shadows import cast_shadows
from clouds_jax.streets.sky import draw_backdrop, draw_sky
from clouds_jax.streets.street import draw_street
from clouds_jax.streets.types import Number

# Half the length, in metres, from which ordering things by depth alone goes wrong.
_LONG = 2.2


def render_scene(
    domain: Domain, seed: int, index: int, size: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Draws one scene of a domain; see `clouds_jax.streets.render`."""
    if min(size) < 16:
        raise ValueError(f"size is {size}; both sides need at least 16 pixels.")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the worker processes of a build are the parallelism
    try:
        return _render(domain, seed, index, size)
    finally:
        cv2.setNumThreads(threads)


def _render(
    domain: Domain, seed: int, index: int, size: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    layout = sample_layout(domain, Rng(domain.name, seed, index, "layout"))
    rng = Rng(domain.name, seed, index, "drawing")
    scene = _sample_scene(domain, layout, rng, size)
    draw_sky(scene, Rng(rng.seed(), "sky"))
    draw_backdrop(scene, Rng(rng.seed(), "backdrop"), domain.city.floors[1] > 8)
    ground = draw_street(scene, layout, Rng(rng.seed(), "street"))
    ground.finish(cast_shadows(scene, layout, ground))
    _draw_upright(scene, layout)
    weather.reflect(scene)
    weather.shine(scene)
    weather.precipitate(scene, Rng(rng.seed(), "weather"))
    image = weather.expose(scene, Rng(rng.seed(), "sensor"))
    return image, scene.canvas.label


def _sample_scene(domain: Domain, layout: Layout, rng: Rng, size: tuple[int, int]) -> Scene:
    height, width = size
    focal = rng.between(0.72, 1.0) * max(width, height)
    camera = Camera(
        width=width,
        height=height,
        focal=focal,
        cx=width * rng.between(0.45, 0.55),
        cy=height * rng.between(0.40, 0.50),
        x=layout.camera_x,
        y=rng.between(1.25, 1.9),
        curve=rng.between(-4e-4, 4e-4) if rng.chance(0.6) else 0.0,
        slope=rng.between(0.0, 2.5e-4) if rng.chance(0.4) else 0.0,
    )
    condition = domain.condition
    up = rng.between(*condition.elevation)
    # The sun stands anywhere around, more often behind the camera or at its side.
    x, z = rng.between(-1, 1), rng.between(-1, 0.55)
    flat = math.sqrt((1 - up * up) / max(x * x + z * z, 1e-3))
    light = Light((x * flat, up, z * flat), condition.sun, condition.ambient)
    return Scene(
        canvas=Canvas(height, width),
        camera=camera,
        light=light,
        city=domain.city,
        condition=condition,
        shade=np.full(size, 255, np.uint8),
        shelter=np.full(size, 255, np.uint8),
        pools=np.zeros(size, np.uint8),
        lane_end=layout.median / 2 + layout.lanes * layout.lane,
    )


def _draw_upright(scene: Scene, layout: Layout) -> None:
    """Draws buildings and what is behind fences, then fences, then what is in the street."""
    behind: list[tuple[float, Building | Thing]] = [(b.z1, b) for b in layout.buildings]
    behind += [(t.z, t) for t in layout.things if t.tier == 0]
    for _, item in sorted(behind, key=lambda entry: -entry[0]):
        if isinstance(item, Building):
            draw_building(scene, item)
        else:
            _draw_thing(scene, item)
    for barrier in sorted(layout.barriers, key=lambda b: -b.z1):
        if barrier.kind == "hedge":
            plants.draw_hedge(
                scene, barrier.x, barrier.z0, barrier.z1, barrier.height, barrier.seed
            )
        else:
            barriers.draw_barrier(
                scene, barrier.kind, barrier.x, barrier.z0, barrier.z1, barrier.height
            )
    for thing in far_to_near([t for t in layout.things if t.tier > 0], scene.camera.x):
        _draw_thing(scene, thing)


def far_to_near(things: list[Thing], eye: Number) -> list[Thing]:
    """Orders things for painting: by depth, and beside a long vehicle by distance from `eye`.

    Args:
        things: in any order.
        eye: x of the camera.
    """
    order = sorted(things, key=lambda t: -t.z)
    for long in sorted(things, key=lambda t: t.size[0]):
        reach = long.size[0] / 2
        if reach < _LONG or abs(long.turn) == 2:
            continue
        away = long.x - eye
        behind, before = [], []
        for thing in order:
            side = thing.x - eye
            if thing is long or abs(thing.z - long.z) > reach or side * away <= 0:
                continue
            if abs(side) > abs(away) and thing.z <= long.z:
                behind.append(thing)
            elif abs(side) < abs(away) and thing.z >= long.z:
                before.append(thing)
        if behind or before:
            moved = {id(t) for t in behind + before}
            order = [t for t in order if id(t) not in moved]
            place = next(i for i, t in enumerate(order) if t is long)
            order[place : place + 1] = [*behind, long, *before]
    return order


def _draw_thing(scene: Scene, thing: Thing) -> None:
    kind, x, z, seed = thing.kind, thing.x, thing.z, thing.seed
    if z - thing.size[0] / 2 < 2.2 and kind not in ("car", "van", "truck", "bus", "tram"):
        return
    if kind in ("car", "van", "truck", "bus", "tram"):
        traffic.draw_vehicle(scene, thing)
    elif kind in ("bicycle", "motorcycle"):
        traffic.draw_two_wheeler(scene, thing)
    elif kind == "person":
        people.draw_person(scene, x, z, thing.turn, seed)
    elif kind == "tree":
        plants.draw_tree(scene, x, z, thing.size[2], seed)
    elif kind == "bush":
        plants.draw_bush(scene, x, z, thing.size[2], seed)
    elif kind == "parked_bicycle":
        cycles.draw_bicycle(scene, x, z, thing.turn, seed)
    elif kind == "parked_motorcycle":
        cycles.draw_motorcycle(scene, x, z, thing.turn, seed)
    elif kind == "lamp":
        poles.draw_lamp(scene, x, z, seed)
    elif kind == "sign":
        signs.draw_sign(scene, x, z, seed)
    elif kind == "railing":
        barriers.draw_railing(scene, x, z, thing.size[0], seed)
    elif kind == "barrier":
        barriers.draw_median(scene, x, z, thing.size[0])
    elif kind == "light":
        poles.draw_traffic_light(scene, x, z, seed)
    else:
        poles.draw_bollard(scene, x, z, seed)
