"""Pictures of a refinement: image, teacher's label, prompts, SAM's masks, refined label."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from clouds_jax.constants import IGNORE
from clouds_jax.data.classes import LabelSpace
from clouds_jax.selftrain.refine_host import Refinement
from clouds_jax.visual.labels import (
    WRONG_COLOUR,
    Drawing,
    Label,
    Picture,
    boundaries,
    legend,
    overlay,
    panels,
    panels_width,
)

_WIDTH = 440
TITLES = ("image", "teacher", "components and points", "masks of SAM", "refined")


def draw(key: str, image: Picture, teacher: Label, found: Refinement, space: LabelSpace) -> Drawing:
    """The steps of one refinement side by side, with a legend; see `steps`."""
    row, caption = steps(key, image, teacher, found, space)
    seen = {*np.unique(teacher).tolist(), *np.unique(found.label).tolist()}
    return table([row], TITLES, [caption], seen, space)


def table(
    rows: Sequence[Sequence[Picture]],
    titles: Sequence[str],
    captions: Sequence[str],
    seen: set[int],
    space: LabelSpace,
) -> Drawing:
    """Rows of pictures with titles, captions and a legend of the classes `seen`."""
    foot = legend(seen, space, panels_width(len(titles), _WIDTH))
    return panels(rows, titles=titles, captions=captions, foot=foot, width=_WIDTH)


def steps(
    key: str, image: Picture, teacher: Label, found: Refinement, space: LabelSpace
) -> tuple[list[Picture], str]:
    """The pictures of `TITLES` for one image, and what there is to say of it.

    Pixels without a class show the grey image; pixels that several masks claim and the rules drop
    are red among the masks.
    """
    grey = np.repeat(image.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
    components = np.full(teacher.shape, IGNORE, np.uint8)
    claimed = np.full(teacher.shape, IGNORE, np.uint8)
    for i, value in enumerate(found.components.label.tolist()):
        components[found.components.slot == i] = value
        claimed[found.masks[i]] = value
    masks = overlay(grey, claimed, space)
    masks[found.overlapped] = WRONG_COLOUR
    for mask in found.masks:
        masks[boundaries(mask.astype(np.uint8))] = 255
    row = [
        image,
        overlay(image, teacher, space),
        _points(overlay(grey, components, space), found),
        masks,
        overlay(grey, found.label, space),
    ]
    count = len(found.points)
    told = f"{count} components" if count else "no component is large enough: the teacher's label"
    known = teacher != IGNORE
    confirmed = 100 * (found.label == teacher)[known].mean() if known.any() else 0
    caption = f"{key}: {told}, {confirmed:.1f} % of the teacher's pixels kept"
    if found.overlapped.any():
        caption += f", {100 * found.overlapped.mean():.1f} % claimed by several masks (red)"
    return row, caption


def _points(picture: Picture, found: Refinement) -> Picture:
    """Draws the points that prompt, large enough to be seen when the picture is shrunk."""
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    radius = max(2.0, picture.shape[1] / 110)
    for x, y in found.points.reshape(-1, 2).tolist():
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, fill="white", outline="black", width=max(1, round(radius / 3)))
    return np.asarray(canvas)
