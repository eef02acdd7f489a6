"""Traffic signs: faces of the common shapes on a post."""

from clouds_jax.streets import classes
from clouds_jax.streets.canvas import CIRCLE
from clouds_jax.streets.poles import Post, plate
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.types import Colour, Flat, Number

_RED, _WHITE, _BLUE, _BLACK = (196, 26, 34), (240, 240, 236), (24, 78, 168), (28, 28, 30)
_YELLOW, _GREEN = (240, 196, 40), (20, 110, 60)
_KINDS = {
    "warning": 2, "limit": 2, "stop": 1, "ahead": 2, "board": 1, "parking": 2, "yield": 1,
    "priority": 1, "no entry": 1,
}  # fmt: skip


def _arrow(x: Number, y: Number, k: Number) -> list[Flat]:
    shape = [(-0.3, -0.1), (0.02, -0.1), (0.02, -0.28), (0.34, 0.0), (0.02, 0.28), (0.02, 0.1),
             (-0.3, 0.1)]  # fmt: skip
    return [(x + k * px, y + k * py) for px, py in shape]


class _Face:
    """Fills shapes around the middle of a sign."""

    def __init__(self, post: Post, height: Number):
        self._post, self._height = post, height

    def fill(self, shape, colour: Colour, convex: bool = True) -> None:
        raised = [(x, y + self._height) for x, y in shape]
        self._post.shape(raised, colour, classes.TRAFFIC_SIGN, convex=convex)

    def disc(self, radius: Number, colour: Colour, x: Number = 0.0, y: Number = 0.0) -> None:
        self.fill(CIRCLE * (radius, radius) + (x, y), colour)


def _triangle(face: _Face, up: int) -> None:
    face.fill([(-0.5, -0.4 * up), (0.5, -0.4 * up), (0, 0.46 * up)], _RED)
    face.fill([(-0.32, -0.29 * up), (0.32, -0.29 * up), (0, 0.25 * up)], _WHITE)


def _draw_face(face: _Face, kind: str, rng: Rng) -> None:
    if kind == "warning":
        _triangle(face, 1)
        face.fill([(-0.05, 0.1), (0.05, 0.1), (0.03, -0.12), (-0.03, -0.12)], _BLACK)
        face.disc(0.04, _BLACK, y=-0.2)
    elif kind == "yield":
        _triangle(face, -1)
    elif kind == "limit":
        face.disc(0.42, _RED)
        face.disc(0.31, _WHITE)
        for x in (-0.1, 0.1):
            face.fill(plate(x, 0, 0.07, 0.14), _BLACK)
            face.fill(plate(x, 0, 0.025, 0.08), _WHITE)
    elif kind == "stop":
        for r, colour in ((0.46, _WHITE), (0.42, _RED)):
            a = r * 0.414
            face.fill(
                [(r, a), (a, r), (-a, r), (-r, a), (-r, -a), (-a, -r), (a, -r), (r, -a)], colour
            )
        for x in (-0.26, -0.09, 0.08, 0.25):
            face.fill(plate(x, 0, 0.05, 0.12), _WHITE)
    elif kind == "no entry":
        face.disc(0.42, _RED)
        face.fill(plate(0, 0, 0.3, 0.07), _WHITE)
    elif kind == "ahead":
        face.disc(0.42, _WHITE)
        face.disc(0.39, _BLUE)
        face.fill(_arrow(0, 0, 0.85), _WHITE, convex=False)
    elif kind == "priority":
        for r, colour in ((0.46, _WHITE), (0.33, _YELLOW)):
            face.fill([(r, 0), (0, r), (-r, 0), (0, -r)], colour)
    elif kind == "parking":
        face.fill(plate(0, 0, 0.36, 0.36), _BLUE)
        face.fill(plate(-0.09, 0.01, 0.05, 0.27), _WHITE)
        face.disc(0.16, _WHITE, 0.02, 0.13)
        face.disc(0.07, _BLUE, 0.02, 0.13)
    else:
        _board(face, rng)


def _board(face: _Face, rng: Rng) -> None:
    """Two lines of a place name and an arrow."""
    colour = rng.pick((_BLUE, _YELLOW, _GREEN, _WHITE))
    ink = _WHITE if sum(colour) < 400 else _BLACK
    w, h = rng.between(0.8, 1.5), rng.between(0.4, 0.9)
    face.fill(plate(0, 0, w, h), ink)
    w, h = w - 0.05, h - 0.05
    face.fill(plate(0, 0, w, h), colour)
    for row in range(2):
        end = rng.between(0.2, 0.6) * w
        face.fill(
            plate((end - 0.8 * w) / 2, h * (0.4 - 0.85 * row), (end + 0.8 * w) / 2, 0.07), ink
        )
    face.fill(_arrow(w * 0.76, 0, 0.6), ink, convex=False)


def draw_sign(scene: Scene, x: Number, z: Number, seed: int) -> None:
    """Draws one or two traffic signs on a post."""
    rng = Rng(seed, "sign")
    post = Post(scene, x, z)
    kind = rng.weighted(_KINDS)
    top = rng.between(2.5, 3.0)
    post.bar((0, 0), (0, top + 0.3), 0.04, 0.04, (140, 142, 144), classes.POLE)
    _draw_face(_Face(post, top), kind, rng)
    if kind != "board" and rng.chance(0.35):
        face = _Face(post, top - 0.75)
        face.fill(plate(0, 0, 0.36, 0.17), _WHITE)
        face.fill(plate(0, 0, 0.26, 0.05), _BLACK)
