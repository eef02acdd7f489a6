"""Rows of the head and its losses: pixel decoder, transformer decoder, matching, criterion."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clouds_jax.losses import matching, segmentation
from clouds_jax.losses.points import Counts
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.head import Mask2FormerHead
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.ops import masks
from clouds_jax.typing import Prediction, Targets
from experiments.benchmark.rows import CLASSES, POINTS, Setting, flops_of, labels, models, nchw
from experiments.benchmark.timing import Case

_STRIDES = (4, 8, 16, 32)


def _size(setting: Setting) -> tuple[int, tuple[int, int]]:
    return setting.choose(1, 1, 8), setting.choose((64, 96), (768, 768), (768, 768))


def _encoder(setting: Setting) -> str:
    return setting.choose("convnext_tiny", "convnext_large_d_320", "convnext_large_d_320")


def _head(setting: Setting) -> Any:
    if setting.against == "torch":
        return models(_encoder(setting), setting).head
    widths = get_encoder(_encoder(setting)).widths
    return Mask2FormerHead(widths, setting.head, CLASSES, rngs=nnx.Rngs(0))


def _maps(batch: int, size: tuple[int, int], widths: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [
        rng.normal(size=(batch, size[0] // s, size[1] // s, c)).astype(np.float32)
        for s, c in zip(_STRIDES, widths, strict=True)
    ]


def pixel_decoder(setting: Setting) -> Iterator[Case]:
    """The pixel decoder on features of the encoder; gradients of its weights."""
    (batch, size), encoder = _size(setting), _encoder(setting)
    maps = _maps(batch, size, get_encoder(encoder).widths)
    features = {f"res{i + 2}": jnp.asarray(x) for i, x in enumerate(maps)}
    graphdef, state = nnx.split(_head(setting).pixel_decoder)

    def forward(state: Any, features: Any) -> Any:
        mask_features, levels = nnx.merge(graphdef, state)(features)
        return (mask_features, *levels)

    def backward(state: Any, features: Any) -> Any:
        return jax.grad(lambda state: _energy(forward(state, features)))(state)

    for name, function, gradient in (
        ("forward", forward, False),
        ("with gradient", backward, True),
    ):
        program = None
        if setting.against == "torch":
            program = models(encoder, setting).pixel_decoder(maps, gradient=gradient)
        yield Case(
            f"pixel decoder: {batch} x {size[0]}x{size[1]}, {name}", function, (state, features),
            program, flops=flops_of(program),
            outputs=(lambda g: [g["level_embed"][...], g["mask_features"]["bias"][...]])
            if gradient else lambda found: [nchw(x) for x in found],
        )  # fmt: skip


def _energy(outputs: Any) -> jax.Array:
    return sum((jnp.square(x).mean() for x in outputs), start=jnp.zeros(()))


def transformer_decoder(setting: Setting) -> Iterator[Case]:
    """The transformer decoder with all outputs; gradients of its weights and of what it reads."""
    (batch, size), encoder = _size(setting), _encoder(setting)
    mask_features, *levels = _maps(batch, size, (HeadSize().dim,) * 4)
    levels = levels[::-1]
    graphdef, state = nnx.split(_head(setting).transformer_decoder)
    args = (tuple(map(jnp.asarray, levels)), jnp.asarray(mask_features))

    def forward(state: Any, levels: Any, mask_features: Any) -> Any:
        found = nnx.merge(graphdef, state)(levels, mask_features, all_outputs=True)
        return found.class_logits, found.mask_logits

    def backward(*args: Any) -> Any:
        return jax.grad(lambda *xs: _energy(forward(*xs)), (0, 1, 2))(*args)

    for name, function, gradient in (
        ("forward", forward, False),
        ("with gradient", backward, True),
    ):
        program = None
        if setting.against == "torch":
            program = models(encoder, setting).transformer_decoder(
                levels, mask_features, gradient=gradient
            )
        yield Case(
            f"transformer decoder: {batch} x {size[0]}x{size[1]}, {name}", function, (state, *args),
            program, flops=flops_of(program),
            outputs=None if gradient else lambda found: [
                found[0][0], np.moveaxis(np.asarray(found[1][0]), -1, 1)
            ],
            note="" if gradient else "the first output is compared: behind it, masks that differ"
            " by rounding steer attention",
        )  # fmt: skip


def _prediction(
    batch: int, size: tuple[int, int], setting: Setting
) -> tuple[Prediction, Targets, np.ndarray]:
    """Ten outputs with smooth mask logits of both signs, and the targets."""
    queries, outputs = HeadSize().num_queries, 10
    h, w = size[0] // 4, size[1] // 4
    rng = np.random.default_rng(4)
    coarse = rng.normal(size=(outputs, batch, -(-h // 8), -(-w // 8), queries)).astype(np.float32)
    logits = 4 * coarse.repeat(8, 2).repeat(8, 3)[:, :, :h, :w]
    classes = rng.normal(size=(outputs, batch, queries, CLASSES + 1)).astype(np.float32)
    label = labels(batch, size)
    targets = Targets(jnp.asarray(label), masks.present_classes(jnp.asarray(label), CLASSES))
    return Prediction(jnp.asarray(classes), jnp.asarray(logits)), targets, label


def matching_row(setting: Setting) -> Iterator[Case]:
    """Which query answers for which mask, in all ten outputs."""
    batch, size = _size(setting)
    prediction, targets, label = _prediction(batch, size, setting)
    points = setting.choose(256, POINTS, POINTS)
    keys = jax.random.split(jax.random.key(0), batch)

    def ours(prediction: Any, targets: Any, keys: Any) -> Any:
        return matching.match(
            prediction, targets, keys, weights=matching.LossWeights(), num_points=points
        )

    yield Case(
        f"matching: 10 x {batch} x {size[0]}x{size[1]}", ours, (prediction, targets, keys),
        _theirs("match", prediction, label, points, setting),
        note="each side draws its own points: tests/parity compares the pairs",
    )  # fmt: skip


def criterion(setting: Setting) -> Iterator[Case]:
    """Matching, 30 losses, and their gradients by the logits."""
    batch, size = _size(setting)
    prediction, targets, label = _prediction(batch, size, setting)
    points = setting.choose(256, POINTS, POINTS)
    keys = jax.random.split(jax.random.key(0), batch)

    def ours(prediction: Any, targets: Any, keys: Any) -> Any:
        def loss(prediction: Any) -> Any:
            return segmentation.set_loss(prediction, targets, keys, num_points=points)[0]

        return jax.value_and_grad(loss)(prediction)

    yield Case(
        f"criterion: 10 x {batch} x {size[0]}x{size[1]}, with gradient", ours,
        (prediction, targets, keys), _theirs("criterion", prediction, label, points, setting),
        note="each side draws its own points: tests/parity compares the losses",
    )  # fmt: skip


def _theirs(
    part: str, prediction: Prediction, label: np.ndarray, points: int, setting: Setting
) -> Any:
    if setting.against != "torch":
        return None
    from porting.benchmark import programs

    counts = Counts.of(points, oversample=3.0, importance=0.75)
    return programs.losses(
        part, np.asarray(prediction.class_logits), np.asarray(prediction.mask_logits), label,
        CLASSES, counts, gpu=setting.gpu,
    )  # fmt: skip


ROWS: dict[str, Callable[[Setting], Iterator[Case]]] = {
    "pixel_decoder": pixel_decoder,
    "transformer_decoder": transformer_decoder,
    "matching": matching_row,
    "criterion": criterion,
}
