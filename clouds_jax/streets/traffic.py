"""Vehicles in a scene: their meshes, colours and lamps."""

from clouds_jax.streets import classes, cycles
from clouds_jax.streets.layout import Thing
from clouds_jax.streets.mesh import Mesh, draw_mesh
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.trucks_and_buses import bus, tram, truck
from clouds_jax.streets.types import Colour
from clouds_jax.streets.vehicles import PAINTS, car

_BASE = {
    "glass": (26, 32, 38), "sheen": (70, 86, 100), "tyre": (28, 28, 30), "arch": (16, 16, 18),
    "rim": (168, 170, 174), "spoke": (92, 94, 98), "trim": (44, 46, 50), "gap": (24, 26, 28),
    "plate": (230, 230, 218), "reverse": (226, 226, 226), "amber": (214, 120, 30),
    "roof": (206, 208, 210), "white": (228, 228, 226), "cargo": (140, 104, 66),
    "crate": (96, 112, 92),
    "display": (66, 56, 20),
}  # fmt: skip
_LIVERIES = (
    ((196, 36, 40), (228, 224, 214)),
    ((232, 184, 36), (60, 60, 66)),
    ((34, 92, 160), (230, 230, 230)),
    ((44, 130, 84), (236, 232, 220)),
    ((226, 226, 222), (196, 40, 44)),
    ((228, 120, 36), (70, 70, 74)),
)
_LOADS = (
    (226, 226, 222), (206, 196, 176), (176, 184, 192), (48, 92, 148), (196, 66, 50), (70, 120, 88),
)  # fmt: skip
_HEADINGS = {1: (1.0, 0.0), -1: (-1.0, 0.0), 2: (0.0, 1.0), -2: (0.0, -1.0)}


def draw_vehicle(scene: Scene, thing: Thing) -> None:
    """Draws a car, van, truck, bus or tram."""
    rng = Rng(thing.seed, thing.kind)
    night = scene.condition.lamps > 0.25
    colours: dict[str, Colour] = dict(_BASE)
    colours["paint"] = rng.pick(PAINTS)
    mesh, label = _model(thing.kind, rng, colours)
    colours["seam"] = tuple(c * 0.55 for c in colours["paint"])
    # Parked vehicles stand at the kerb without light.
    lit = night and (thing.kind in ("bus", "tram") or abs(thing.x) < scene.lane_end)
    colours["head"] = (255, 250, 232) if lit else (196, 206, 212)
    colours["tail"] = (255, 52, 44) if lit else (150, 22, 26)
    shining = {"head", "tail", "display"} if lit else set()
    if lit:
        colours["display"] = (255, 176, 40)
        if scene.condition.lamps > 0.8 and thing.kind in ("bus", "tram"):
            colours["sheen"], colours["glass"] = (248, 226, 176), (196, 172, 128)
            shining |= {"sheen", "glass"}
    heading = _HEADINGS[int(thing.turn)]
    draw_mesh(scene, mesh, (thing.x, 0.0, thing.z), heading, colours, label, frozenset(shining))
    if lit and thing.turn in (1, -1):
        _lamps(scene, thing)


def _model(kind: str, rng: Rng, colours) -> tuple[Mesh, int]:
    if kind == "car":
        return car(rng.weighted({"sedan": 3, "hatch": 3, "estate": 2, "suv": 2.5})), classes.CAR
    if kind == "van":
        return car("van"), classes.CAR
    colours["stripe"], colours["white"] = rng.pick(_LIVERIES)
    if kind == "truck":
        colours["load"] = rng.pick(_LOADS)
        colours["sign"] = rng.pick(_LIVERIES)[0]
        return truck(rng.weighted({"box": 3, "flat": 1, "tipper": 1.5})), classes.TRUCK
    colours["paint"] = rng.pick(_LIVERIES)[0]
    if kind == "bus":
        if rng.chance(0.4):
            colours["paint"] = (230, 228, 222)
        return bus(rng.weighted({"city": 3, "coach": 1})), classes.BUS
    colours["paint"] = colours["stripe"] if rng.chance(0.5) else colours["paint"]
    return tram(2), classes.TRAIN


def _lamps(scene: Scene, thing: Thing) -> None:
    """Lets head or tail lamps shine, and headlights fall on the road."""
    long, wide, high = thing.size
    strength = scene.condition.lamps**2
    single = thing.kind == "motorcycle"  # drawn flat, at its middle
    z = thing.z if single else thing.z - long / 2 - 0.05
    if z < 1.5:
        return
    height = 0.92 if single and thing.turn < 0 else 0.72 if high < 2.5 else 0.8
    for x in (0.0,) if single else (-wide * 0.36, wide * 0.36):
        if thing.turn < 0:
            k = strength
            scene.glow((thing.x + x, height, z), 0.15 + 0.15 * k, (255 * k, 240 * k, 204 * k))
        else:
            k = strength * 0.6
            scene.glow((thing.x + x, height, z), 0.16, (255 * k, 36 * k, 24 * k))


def draw_two_wheeler(scene: Scene, thing: Thing) -> None:
    """Draws a bicycle or motorcycle that is ridden."""
    if thing.kind == "bicycle":
        turn = {2: 1.0, -2: -1.0}.get(int(thing.turn), 0.0)
        cycles.draw_cyclist(scene, thing.x, thing.z, turn, thing.seed)
    else:
        cycles.draw_motorcyclist(scene, thing.x, thing.z, thing.turn < 0, thing.seed)
        if scene.condition.lamps > 0.25:
            _lamps(scene, thing)
