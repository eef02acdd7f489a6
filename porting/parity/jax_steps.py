"""The JAX encoders step by step, with the same step names as their PyTorch references."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import nnx

from clouds_jax.nn.encoders.clip_resnet import CLIPResNet
from clouds_jax.nn.encoders.convnext import ConvNeXt
from clouds_jax.nn.encoders.efficientnet import EfficientNetLite0
from clouds_jax.nn.encoders.mix_transformer import MixTransformer
from clouds_jax.nn.encoders.resnet import ResNet
from clouds_jax.nn.sam.tiny_vit import TinyViT
from clouds_jax.nn.sam.vit import SamViT

Step = tuple[str, Callable[[Any], Any]]


def jitted(module: nnx.Module, function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles `function(module, ...)` with the weights as an argument, not as constants."""
    graphdef, state = nnx.split(module)
    run = jax.jit(lambda state, *args: function(nnx.merge(graphdef, state), *args))
    return lambda *args: run(state, *args)


def unstack(stack: nnx.Module, i: Any) -> nnx.Module:
    """Block i of a stack of blocks; i may be traced."""
    graphdef, state = nnx.split(stack)
    return nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[i], state))


def stack_steps(name: str, stack: nnx.Module, start: int = 0) -> Iterator[Step]:
    """Yields the blocks of a stack, compiled once: `name.start`, `name.(start + 1)`, ..."""
    block = jitted(stack, lambda m, i, x: unstack(m, i)(x))
    depth = jax.tree.leaves(nnx.state(stack))[0].shape[0]
    for i in range(depth):
        yield f"{name}.{start + i}", functools.partial(block, i)


def _efficientnet(encoder: EfficientNetLite0) -> Iterator[Step]:
    yield "stem", jitted(encoder.stem, lambda m, x: jax.nn.relu6(m(x)))
    for i, block in enumerate(encoder.blocks):
        yield f"blocks.{i}", jitted(block, lambda m, x: m(x))


def _convnext(encoder: ConvNeXt) -> Iterator[Step]:
    yield "stem", jitted(encoder.stem, lambda m, x: m(x))
    for s, stage in enumerate(encoder.stages):
        if stage.downsample is not None:
            yield f"stages.{s}.downsample", jitted(stage.downsample, lambda m, x: m(x))
        yield from stack_steps(f"stages.{s}.blocks", stage.blocks)


def _resnet(encoder: CLIPResNet | ResNet) -> Iterator[Step]:
    yield "stem", jitted(encoder.stem, lambda m, x: m(x))
    for s, stage in enumerate(encoder.stages):
        name = f"stages.{s}.blocks"
        yield f"{name}.0", jitted(stage.first, lambda m, x: m(x))
        if stage.rest is not None:
            yield from stack_steps(name, stage.rest, start=1)


def _mix_transformer(encoder: MixTransformer) -> Iterator[Step]:
    for s, stage in enumerate(encoder.stages):
        yield f"stages.{s}.embed", jitted(stage.embed, lambda m, x: m(x))
        yield from stack_steps(f"stages.{s}.blocks", stage.blocks)
        yield f"stages.{s}.norm", jitted(stage.norm, lambda m, x: m(x))


def _sam_vit(encoder: SamViT) -> Iterator[Step]:
    """Blocks in the order of segment_anything: windowed blocks of a group, then its global one."""
    yield "patch", jitted(encoder, lambda m, x: m.embed(x))
    windowed = stack_steps("", encoder.windows)
    global_blocks = list(stack_steps("", encoder.globals))
    depth = jax.tree.leaves(nnx.state(encoder.windows))[0].shape[0] + len(global_blocks)
    group = depth // len(global_blocks)
    for i in range(depth):
        last = i % group == group - 1
        yield f"blocks.{i}", global_blocks[i // group][1] if last else next(windowed)[1]
    yield "neck", jitted(encoder.neck, lambda m, x: m(x))


def _tiny_vit(encoder: TinyViT) -> Iterator[Step]:
    yield "patch", jitted(encoder, lambda m, x: m.embed(x))
    for s, stage in enumerate(encoder.stages):
        yield from stack_steps(f"stages.{s}.blocks", stage.blocks)
        if stage.merging is not None:
            yield f"stages.{s}.merging", jitted(stage.merging, lambda m, x: m(x))
    yield "neck", jitted(encoder.neck, lambda m, x: m(x))


_STEPS: dict[type, Callable[[Any], Iterator[Step]]] = {
    ConvNeXt: _convnext,
    EfficientNetLite0: _efficientnet,
    MixTransformer: _mix_transformer,
    CLIPResNet: _resnet,
    ResNet: _resnet,
    SamViT: _sam_vit,
    TinyViT: _tiny_vit,
}


def encoder_steps(encoder: nnx.Module) -> Iterator[Step]:
    """Yields (name, function from one NHWC feature map to the next), as in `Reference.steps`."""
    if type(encoder) not in _STEPS:
        raise TypeError(f"no steps are known of a {type(encoder).__name__}")
    return _STEPS[type(encoder)](encoder)
