"""Small checkpoints for the tests of porting, made without torch."""

import numpy as np

from porting.files.write import write_safetensors

DEPTHS, WIDTHS, HIDDEN, EMBEDDING = (1, 1, 2, 1), (8, 16, 24, 32), 24, 12  # convnext_debug
FAMILY = "open_clip_convnext"


def trunk_shapes():
    """Shapes of timm's ConvNeXt with the numbers of `convnext_debug` and `convnext_in22k_debug`."""
    shapes = {"stem.0.weight": (WIDTHS[0], 3, 4, 4), "stem.0.bias": (WIDTHS[0],)}
    shapes |= {f"stem.1.{end}": (WIDTHS[0],) for end in ("weight", "bias")}
    for s, (depth, c) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        stage = f"stages.{s}."
        if s:
            before = WIDTHS[s - 1]
            shapes |= {f"{stage}downsample.0.{end}": (before,) for end in ("weight", "bias")}
            shapes[f"{stage}downsample.1.weight"] = (c, before, 2, 2)
            shapes[f"{stage}downsample.1.bias"] = (c,)
        for b in range(depth):
            block = f"{stage}blocks.{b}."
            shapes |= {
                block + "gamma": (c,),
                block + "conv_dw.weight": (c, 1, 7, 7),
                block + "conv_dw.bias": (c,),
                block + "norm.weight": (c,),
                block + "norm.bias": (c,),
                block + "mlp.fc1.weight": (4 * c, c),
                block + "mlp.fc1.bias": (4 * c,),
                block + "mlp.fc2.weight": (c, 4 * c),
                block + "mlp.fc2.bias": (c,),
            }
    return shapes


def timm_state(dtype=np.float32, seed=0):
    """timm's ConvNeXt with the numbers of `convnext_in22k_debug`, with its classifier's norm."""
    shapes = trunk_shapes() | {f"head.norm.{end}": (WIDTHS[-1],) for end in ("weight", "bias")}
    return _random(shapes, dtype, seed)


def clip_state(dtype=np.float32, seed=0):
    """The visual tower of an open_clip model with the numbers of `convnext_debug`."""
    shapes = trunk_shapes() | {f"head.norm.{end}": (WIDTHS[-1],) for end in ("weight", "bias")}
    shapes = {f"visual.trunk.{name}": shape for name, shape in shapes.items()} | {
        "visual.head.mlp.fc1.weight": (HIDDEN, WIDTHS[-1]),
        "visual.head.mlp.fc1.bias": (HIDDEN,),
        "visual.head.mlp.fc2.weight": (EMBEDDING, HIDDEN),
    }
    return _random(shapes, dtype, seed)


def _random(shapes, dtype, seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def save(path, state):
    """Writes a safetensors file; returns its path as text."""
    write_safetensors(path, state, {"format": "pt"})
    return str(path)
