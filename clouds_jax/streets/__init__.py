"""Procedural street scenes with exact labels, in named appearance domains.

`render` and `DOMAINS` are all that other code uses; the renderer is loaded with the first street.
"""

import numpy as np
from jaxtyping import UInt8

from clouds_jax.streets.domains import DOMAINS, City, Condition, Domain, get_domain

__all__ = ["DOMAINS", "City", "Condition", "Domain", "render"]


def render(
    domain: str, seed: int, index: int, size: tuple[int, int] = (512, 1024)
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Draws one street scene; the arguments alone decide every byte of it.

    Args:
        domain: key of `DOMAINS`.
        seed: of the split, 0 or more.
        index: of the scene in the split, 0 or more.
        size: (h, w) in pixels, 16 at least. Another size shows the same street.

    Returns:
        RGB image and train ids of the 19 Cityscapes classes.

    Raises:
        KeyError: there is no such domain.
        ValueError: the size is too small.
    """
    # Here, so that listing the datasets does not load the thirty modules of the renderer.
    from clouds_jax.streets import renderer

    return renderer.render_scene(get_domain(domain), seed, index, size)
