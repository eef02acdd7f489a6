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


def draw(
    key: str, image: Picture, teacher: Label, refinement: Refinement, space: LabelSpace
) -> Drawing:
    """The steps of one refinement side by side, with a legend; see `steps`."""
    row, caption = steps(key, image, teacher, refinement, space)
    seen = {*np.unique(teacher).tolist(), *np.unique(refinement.label).tolist()}
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
    key: str, image: Picture, teacher: Label, refinement: Refinement, space: LabelSpace
) -> tuple[list[Picture], str]:
    """The pictures of `TITLES` for one image, and a caption.

    Pixels without a class show the grey image; pixels that several masks claim and the rules drop
    are red among the masks.
    """
    grey = np.repeat(image.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
    components = np.full(teacher.shape, IGNORE, np.uint8)
    claimed = np.full(teacher.shape, IGNORE, np.uint8)
    for i, value in enumerate(refinement.components.label.tolist()):
        components[refinement.components.slot == i] = value
        claimed[refinement.masks[i]] = value
    masks = overlay(grey, claimed, space)
    masks[refinement.overlapped] = WRONG_COLOUR
    for mask in refinement.masks:
        masks[boundaries(mask.astype(np.uint8))] = 255
    row = [
        image,
        overlay(image, teacher, space),
        _points(overlay(grey, components, space), refinement),
        masks,
        overlay(grey, refinement.label, space),
    ]
    count = len(refinement.points)
    summary = (
        f"{count} components" if count else "no component is large enough: the teacher's label"
    )
    known = teacher != IGNORE
    confirmed = 100 * (refinement.label == teacher)[known].mean() if known.any() else 0
    caption = f"{key}: {summary}, {confirmed:.1f} % of the teacher's pixels kept"
    if refinement.overlapped.any():
        caption += f", {100 * refinement.overlapped.mean():.1f} % claimed by several masks (red)"
    return row, caption


def _points(picture: Picture, refinement: Refinement) -> Picture:
    """Draws the points that prompt SAM, large enough to be seen when the picture is shrunk."""
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    radius = max(2.0, picture.shape[1] / 110)
    for x, y in refinement.points.reshape(-1, 2).tolist():
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, fill="white", outline="black", width=max(1, round(radius / 3)))
    return np.asarray(canvas)
