"""The numeric core: pure functions of arrays, each usable alone.

Loaded when first used; importing this package imports no library and touches no device.
"""

import importlib
import typing
from typing import Any

if typing.TYPE_CHECKING:
    from clouds_jax.ops.assignment import assign
    from clouds_jax.ops.attention import attend
    from clouds_jax.ops.components import connected_components, large_components
    from clouds_jax.ops.convolution import conv2d
    from clouds_jax.ops.deformable_attention import deform_attn
    from clouds_jax.ops.depthwise import depthwise_conv
    from clouds_jax.ops.layer_norm import standardise
    from clouds_jax.ops.lowest_k import lowest_k_mask
    from clouds_jax.ops.masks import label_of_masks, masks_of_label, pool_masks
    from clouds_jax.ops.position import sine_position
    from clouds_jax.ops.resize import resize_bilinear
    from clouds_jax.ops.sampling import grid_sample
    from clouds_jax.ops.text_logits import cosine_logits, geometric_ensemble

__all__ = [
    "assign",
    "attend",
    "connected_components",
    "conv2d",
    "cosine_logits",
    "deform_attn",
    "depthwise_conv",
    "geometric_ensemble",
    "grid_sample",
    "label_of_masks",
    "large_components",
    "lowest_k_mask",
    "masks_of_label",
    "pool_masks",
    "resize_bilinear",
    "sine_position",
    "standardise",
]

# function -> its module. None has the name of a module, which would replace it once imported.
_HOMES = {
    "assign": "assignment",
    "attend": "attention",
    "connected_components": "components",
    "conv2d": "convolution",
    "cosine_logits": "text_logits",
    "deform_attn": "deformable_attention",
    "depthwise_conv": "depthwise",
    "geometric_ensemble": "text_logits",
    "grid_sample": "sampling",
    "label_of_masks": "masks",
    "large_components": "components",
    "lowest_k_mask": "lowest_k",
    "masks_of_label": "masks",
    "pool_masks": "masks",
    "resize_bilinear": "resize",
    "sine_position": "position",
    "standardise": "layer_norm",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"{__name__} has no {name!r}; it has: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
