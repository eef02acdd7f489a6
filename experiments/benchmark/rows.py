"""What is timed of the parts: each row builds its inputs and both programs when asked for."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clouds_jax.nn.clouds import Clouds
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.head import Mask2FormerHead
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.ops.deformable_attention import deform_attn
from clouds_jax.ops.depthwise import IMPLEMENTATIONS, depthwise_conv
from experiments.benchmark.timing import Case

CLASSES = 19
POINTS = 12_544


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a run of the benchmark is told.

    Attributes:
        gpu: where.
        dtype: of the encoder; with bfloat16 PyTorch runs under autocast, its head too.
        head_dtype: of the activations of our head.
        small: inputs that take milliseconds, to see that all works.
        against: "torch" or "none".
        compiled: PyTorch's through torch.compile.
    """

    gpu: bool
    dtype: str
    head_dtype: str
    small: bool
    against: str
    compiled: bool

    @property
    def head(self) -> HeadSize:
        """Hyperparameters of the head, CLOUDS' own."""
        return HeadSize(dtype=self.head_dtype)

    def choose(self, small: Any, cpu: Any, gpu: Any) -> Any:
        """The value for this setting."""
        return small if self.small else gpu if self.gpu else cpu


@functools.cache
def models(encoder: str, setting: Setting) -> Any:
    """Both sides with the same random weights."""
    from porting.benchmark.models import Models

    return Models(
        encoder, CLASSES, gpu=setting.gpu, dtype=setting.dtype, head=setting.head,
        compiled=setting.compiled,
    )  # fmt: skip


def pixels(batch: int, size: tuple[int, int]) -> np.ndarray:
    """Random images with large and small structures."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (batch, size[0] // 32, size[1] // 32, 3))
    return (coarse.repeat(32, 1).repeat(32, 2) * rng.uniform(0.7, 1, (batch, *size, 1))).astype(
        np.uint8
    )


def labels(batch: int, size: tuple[int, int]) -> np.ndarray:
    """Label maps of some twelve classes in regions of 64 pixels."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 12, (batch, -(-size[0] // 64), -(-size[1] // 64)))
    return coarse.repeat(64, 1).repeat(64, 2)[:, : size[0], : size[1]].astype(np.uint8)


def ours(encoder: str, setting: Setting) -> Clouds:
    """Our model, with the weights of PyTorch's where that is timed too."""
    if setting.against == "none":

        def build(rngs: nnx.Rngs) -> Clouds:
            spec = get_encoder(encoder)
            head = Mask2FormerHead(spec.widths, setting.head, CLASSES, rngs=rngs)
            return Clouds(spec, head, encoder_dtype=setting.dtype, rngs=rngs)

        return build(nnx.Rngs(0))
    both = models(encoder, setting)
    spec = dataclasses.replace(get_encoder(encoder), build=lambda rngs: both.encoder)
    return Clouds(spec, both.head, encoder_dtype=setting.dtype, rngs=nnx.Rngs(0))


def theirs(encoder: str, setting: Setting, make: Callable[[Any], Any]) -> Any:
    """PyTorch's program, or None."""
    return make(models(encoder, setting)) if setting.against == "torch" else None


def nchw(x: Any) -> np.ndarray:
    return np.asarray(jnp.asarray(x, jnp.float32)).transpose(0, 3, 1, 2)


def _encoder(name: str, encoder: str, batch: int, size: tuple[int, int], setting: Setting) -> Case:
    images = pixels(batch, size)
    graphdef, state = nnx.split(ours(encoder, setting))

    def run(state, images):
        return nnx.merge(graphdef, state).encode(images)

    program = theirs(encoder, setting, lambda both: both.encode(images))
    return Case(
        f"{name}: {encoder}, {batch} x {size[0]}x{size[1]}, forward", run,
        (state, jnp.asarray(images)), program,
        outputs=lambda found: [nchw(found[f"res{level}"]) for level in range(2, 6)],
        flops=flops_of(program),
    )  # fmt: skip


def flops_of(program: Any) -> Callable[[], int] | None:
    """Counts the operations of PyTorch's program, if there is one."""
    if program is None:
        return None
    from porting.benchmark import programs

    return lambda: programs.flops(program)


def encoder_t(setting: Setting) -> Iterator[Case]:
    """ConvNeXt-T."""
    size = setting.choose((64, 96), (512, 512), (768, 768))
    yield _encoder("encoder_t", "convnext_tiny", setting.choose(1, 2, 8), size, setting)


def encoder_l(setting: Setting) -> Iterator[Case]:
    """ConvNeXt-L of CLIP."""
    size = setting.choose((64, 64), (768, 768), (768, 768))
    yield _encoder("encoder_l", "convnext_large_d_320", setting.choose(1, 1, 8), size, setting)


def deform(setting: Setting) -> Iterator[Case]:
    """Deformable attention of the pixel decoder, its implementations."""
    side, batch = setting.choose(96, 768, 768), setting.choose(1, 1, 8)
    sizes = tuple((side // s, side // s) for s in (32, 16, 8))
    count = sum(h * w for h, w in sizes)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(batch, count, 8, 32)).astype(np.float32)
    points = rng.uniform(-0.02, 1.02, (batch, count, 8, 3, 4, 2)).astype(np.float32)
    weights = rng.dirichlet(np.ones(12), (batch, count, 8)).reshape(batch, count, 8, 3, 4)
    weights = weights.astype(np.float32)
    arrays = (values, *(np.moveaxis(x, (0, 1, 2), (-3, -2, -1)) for x in (points, weights)))

    def forward(form, values, points, weights):
        return deform_attn(values, sizes, points, weights, implementation=form)

    def backward(form, *args):
        return jax.grad(lambda *xs: jnp.square(forward(form, *xs)).sum(), (0, 1, 2))(*args)

    def joined(found):
        return [np.asarray(found).reshape(batch, count, -1)]

    def queries_first(found):
        return [found[0], *(np.moveaxis(np.asarray(x), (-3, -2, -1), (0, 1, 2)) for x in found[1:])]

    for form in ("rows", "packed") if setting.gpu else (None,):
        for name, function, gradient in (("forward", forward, False),
                                         ("forward + backward", backward, True)):  # fmt: skip
            program = None
            if setting.against == "torch":
                from porting.benchmark import programs

                program = programs.deform(
                    values, sizes, points, weights, gradient=gradient, gpu=setting.gpu
                )
            yield Case(
                f"deform: {form or 'default'} form, {batch} x {side}x{side}, {name}",
                functools.partial(function, form), tuple(map(jnp.asarray, arrays)), program,
                outputs=queries_first if gradient else joined,
            )  # fmt: skip


def depthwise(setting: Setting) -> Iterator[Case]:
    """The 7x7 depthwise convolution at the four stages of ConvNeXt-L, in both implementations."""
    side, batch = setting.choose(64, 768, 768), setting.choose(1, 1, 8)
    rng = np.random.default_rng(0)
    for stride, width in ((4, 192), (8, 384), (16, 768), (32, 1536)):
        shape = (batch, side // stride, side // stride, width)
        x = rng.normal(size=shape).astype(np.float32)
        kernel = (rng.normal(size=(7, 7, width)) / 7).astype(np.float32)
        program = None
        if setting.against == "torch":
            from porting.benchmark import programs

            program = programs.depthwise(x, kernel, gpu=setting.gpu, dtype=setting.dtype)
        for implementation in IMPLEMENTATIONS:
            function = functools.partial(
                depthwise_conv, padding=((3, 3), (3, 3)), implementation=implementation
            )
            args = (jnp.asarray(x, setting.dtype), jnp.asarray(kernel, setting.dtype))
            yield Case(
                f"depthwise: form {implementation}, {'x'.join(map(str, shape))}",
                function,
                args,
                program,
                outputs=lambda found: [nchw(found)],
            )


def inference(setting: Setting) -> Iterator[Case]:
    """From RGB images to the class map."""
    encoder = setting.choose("convnext_tiny", "convnext_large_d_320", "convnext_large_d_320")
    size = setting.choose((64, 128), (1024, 2048), (1024, 2048))
    images = pixels(1, size)
    graphdef, state = nnx.split(ours(encoder, setting))

    def run(state, images):
        return nnx.merge(graphdef, state).scores(images).argmax(-1)

    program = theirs(encoder, setting, lambda both: both.infer(images))
    yield Case(
        f"inference: {encoder}, 1 x {size[0]}x{size[1]}", run, (state, jnp.asarray(images)),
        program, flops=flops_of(program),
        note="random weights: class maps are not compared, features and heads are elsewhere",
    )  # fmt: skip


ROWS: dict[str, Callable[[Setting], Iterator[Case]]] = {
    "depthwise": depthwise,
    "deform": deform,
    "encoder_t": encoder_t,
    "encoder_l": encoder_l,
    "inference": inference,
}
