"""Our encoders step by step, by the same names as the steps of their PyTorch references."""

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


def pure(module: nnx.Module, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(module, ...)` compiled, with the weights as an argument and not as constants."""
    graphdef, state = nnx.split(module)
    run = jax.jit(lambda state, *args: function(nnx.merge(graphdef, state), *args))
    return lambda *args: run(state, *args)


def member(stack: nnx.Module, i: Any) -> nnx.Module:
    """Block i of a stack of blocks."""
    graphdef, state = nnx.split(stack)
    return nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[i], state))


def stack_steps(name: str, stack: nnx.Module, start: int = 0) -> Iterator[Step]:
    """The blocks of a stack, compiled once: `name.start`, `name.(start + 1)`, ..."""
    block = pure(stack, lambda m, i, x: member(m, i)(x))
    depth = jax.tree.leaves(nnx.state(stack))[0].shape[0]
    for i in range(depth):
        yield f"{name}.{start + i}", functools.partial(block, i)


def _efficientnet(encoder: EfficientNetLite0) -> Iterator[Step]:
    yield "stem", pure(encoder.stem, lambda m, x: jax.nn.relu6(m(x)))
    for i, block in enumerate(encoder.blocks):
        yield f"blocks.{i}", pure(block, lambda m, x: m(x))


def _convnext(encoder: ConvNeXt) -> Iterator[Step]:
    yield "stem", pure(encoder.stem, lambda m, x: m(x))
    for s, stage in enumerate(encoder.stages):
        if stage.downsample is not None:
            yield f"stages.{s}.downsample", pure(stage.downsample, lambda m, x: m(x))
        yield from stack_steps(f"stages.{s}.blocks", stage.blocks)


def _resnet(encoder: CLIPResNet | ResNet) -> Iterator[Step]:
    yield "stem", pure(encoder.stem, lambda m, x: m(x))
    for s, stage in enumerate(encoder.stages):
        name = f"stages.{s}.blocks"
        yield f"{name}.0", pure(stage.first, lambda m, x: m(x))
        if stage.rest is not None:
            yield from stack_steps(name, stage.rest, start=1)


def _mix_transformer(encoder: MixTransformer) -> Iterator[Step]:
    for s, stage in enumerate(encoder.stages):
        yield f"stages.{s}.embed", pure(stage.embed, lambda m, x: m(x))
        yield from stack_steps(f"stages.{s}.blocks", stage.blocks)
        yield f"stages.{s}.norm", pure(stage.norm, lambda m, x: m(x))


def _sam_vit(encoder: SamViT) -> Iterator[Step]:
    """Blocks in segment_anything's order: those with windows of a group, then its global one."""
    yield "patch", pure(encoder, lambda m, x: m.embed(x))
    inside = stack_steps("", encoder.windows)
    everywhere = list(stack_steps("", encoder.globals))
    depth = jax.tree.leaves(nnx.state(encoder.windows))[0].shape[0] + len(everywhere)
    group = depth // len(everywhere)
    for i in range(depth):
        last = i % group == group - 1
        yield f"blocks.{i}", everywhere[i // group][1] if last else next(inside)[1]
    yield "neck", pure(encoder.neck, lambda m, x: m(x))


def _tiny_vit(encoder: TinyViT) -> Iterator[Step]:
    yield "patch", pure(encoder, lambda m, x: m.embed(x))
    for s, stage in enumerate(encoder.stages):
        yield from stack_steps(f"stages.{s}.blocks", stage.blocks)
        if stage.merging is not None:
            yield f"stages.{s}.merging", pure(stage.merging, lambda m, x: m(x))
    yield "neck", pure(encoder.neck, lambda m, x: m(x))


_STEPS: dict[type, Callable[[Any], Iterator[Step]]] = {
    ConvNeXt: _convnext,
    EfficientNetLite0: _efficientnet,
    MixTransformer: _mix_transformer,
    CLIPResNet: _resnet,
    ResNet: _resnet,
    SamViT: _sam_vit,
    TinyViT: _tiny_vit,
}


def steps(encoder: nnx.Module) -> Iterator[Step]:
    """(name, function) from one feature map (NHWC) to the next, as in `Reference.steps`."""
    if type(encoder) not in _STEPS:
        raise TypeError(f"no steps are known of a {type(encoder).__name__}")
    return _STEPS[type(encoder)](encoder)
