"""An encoder of ours against its PyTorch reference: every block, every feature, the embedding."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx

from clouds_jax.nn.convnext import ConvNeXt
from clouds_jax.nn.efficientnet import EfficientNetLite0
from porting.compare import Tap, compare
from porting.reference.encoders import Reference
from porting.tolerances import Tolerance

Array = Any


def to_torch(x: np.ndarray) -> torch.Tensor:
    """NHWC to NCHW."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def to_ours(x: torch.Tensor) -> np.ndarray:
    """NCHW to NHWC."""
    return np.moveaxis(x.detach().numpy(), 1, -1)


def pure(module: nnx.Module, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(module, ...)` compiled, with the weights as an argument and not as constants."""
    graphdef, state = nnx.split(module)
    run = jax.jit(lambda state, *args: function(nnx.merge(graphdef, state), *args))
    return lambda *args: run(state, *args)


def member(stack: nnx.Module, i: Any) -> nnx.Module:
    """Block i of a stack of blocks."""
    graphdef, state = nnx.split(stack)
    return nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[i], state))


def steps(encoder: nnx.Module) -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """The same steps, by the same names, as `Reference.steps`."""
    if isinstance(encoder, EfficientNetLite0):
        yield "stem", pure(encoder.stem, lambda m, x: jax.nn.relu6(m(x)))
        for i, block in enumerate(encoder.blocks):
            yield f"blocks.{i}", pure(block, lambda m, x: m(x))
    elif isinstance(encoder, ConvNeXt):
        yield "stem", pure(encoder.stem, lambda m, x: m(x))
        for s, stage in enumerate(encoder.stages):
            if stage.downsample is not None:
                yield f"stages.{s}.downsample", pure(stage.downsample, lambda m, x: m(x))
            block = pure(stage.blocks, lambda m, i, x: member(m, i)(x))
            depth = jax.tree.leaves(nnx.state(stage.blocks))[0].shape[0]
            for i in range(depth):
                yield f"stages.{s}.blocks.{i}", functools.partial(block, i)
    else:
        raise TypeError(f"no steps are known of a {type(encoder).__name__}")


def compare_encoder(
    reference: Reference, encoder: nnx.Module, images: np.ndarray, tolerance: Tolerance
) -> tuple[list[Tap], dict[str, np.ndarray]]:
    """Runs both on the same images.

    Args:
        reference: in eval mode, with the weights that `encoder` was converted from.
        encoder: ours.
        images: (b, h, w, 3), normalised.
        tolerance: bounds.

    Returns:
        The taps in the model's order, and the reference's features (NHWC) by name.
    """
    taps: list[Tap] = []
    features: dict[str, np.ndarray] = {}
    ours = pure(encoder, lambda m, x: m(x))(images)
    feature_of = {step: name for name, step in reference.taps.items()}
    with torch.no_grad():
        x = to_torch(images)
        for (name, theirs), (our_name, block) in zip(reference.steps, steps(encoder), strict=True):
            if name != our_name:
                raise ValueError(f"step {name} of the reference is {our_name} of ours")
            given = to_ours(x)
            x = theirs(x)
            taps.append(compare(name, "block", block(given), to_ours(x), tolerance))
            if name in feature_of:
                feature = feature_of[name]
                features[feature] = to_ours(x)
                taps.append(compare(feature, "chain", ours[feature], features[feature], tolerance))
        if reference.embed is not None:
            theirs_embedding = reference.embed(to_torch(images)).numpy()
            embedding = pure(encoder, lambda m, f: m.embed(f))(ours)
            taps.append(compare("embedding", "chain", embedding, theirs_embedding, tolerance))
    return taps, features
