"""Multi-scale deformable attention: a weighted sum of values sampled at given points.

The gradient is written out: the residuals are the inputs alone, and pixel indices and bilinear
weights are computed again in the backward pass. How to gather and scatter depends on the platform;
`deform_forms` holds the two ways.

Source: MSDeformAttn (Deformable DETR), as used by Mask2Former's pixel decoder.
"""

import functools
from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from clouds_jax.ops import deform_forms, platforms
from clouds_jax.ops.deform_forms import Sizes


def deform_attn(
    values: Float[Array, "b s n e"],
    sizes: Sizes,
    points: Float[Array, "l p 2 b q n"],
    weights: Float[Array, "l p b q n"],
    *,
    form: str | None = None,
) -> Float[Array, "b q n e"]:
    """Sums values sampled bilinearly at `points` over levels and points, with `weights`.

    Unlike in the original, the axes of levels and points come first: of each one, the pixels and
    coefficients of all queries are then contiguous, which a CPU computes with vector instructions.

    Args:
        values: maps of all levels, flattened row by row and joined; may be bfloat16.
        sizes: (h, w) of each level; their areas sum to s.
        points: (x, y) in [0, 1] of the level's map, zero outside (as `sampling.grid_sample`).
            Best kept in float32: bfloat16 cannot tell neighbouring pixels of a large map apart.
        weights: attention weights, as a rule a softmax over (level, point).
        form: "rows" or "packed" (see `deform_forms`), or None for the one that suits the platform.

    Returns:
        One vector per query and head in the dtype of `values`; sums are float32.
    """
    area = sum(h * w for h, w in sizes)
    if area != values.shape[1] or len(sizes) != points.shape[0]:
        raise ValueError(
            f"deform_attn: sizes {sizes} are {len(sizes)} levels of {area} positions in all; "
            f"points have {points.shape[0]} levels and values {values.shape[1]} positions."
        )
    if form is not None and form not in deform_forms.FORMS:
        raise ValueError(
            f"deform_attn has no form '{form}'; it has: {', '.join(deform_forms.FORMS)}."
        )
    return _attend(tuple(sizes), form, values, points, weights)


# On an H100, at 768x768, both take as long forward, and "packed" takes 0.75 of the time of "rows"
# forward and backward (experiments/results/benchmark).
_GPU = {deform_forms.forward: "rows", deform_forms.backward: "packed"}


def _dispatch(form: str | None, part: Callable, sizes: Sizes, *args):
    def of(name):
        return functools.partial(part, deform_forms.FORMS[name], sizes)

    if form is not None:
        return of(form)(*args)
    forms = {"tpu": of("packed"), "gpu": of(_GPU[part])}
    return platforms.suited(default=of("rows"), **forms)(*args)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(sizes, form, values, points, weights):
    return _dispatch(form, deform_forms.forward, sizes, values, points, weights).astype(
        values.dtype
    )


def _attend_forward(sizes, form, values, points, weights):
    return _attend(sizes, form, values, points, weights), (values, points, weights)


def _attend_backward(sizes, form, residuals, cotangent):
    grads = _dispatch(form, deform_forms.backward, sizes, *residuals, cotangent)
    return tuple(g.astype(x.dtype) for g, x in zip(grads, residuals, strict=True))


_attend.defvjp(_attend_forward, _attend_backward)
