"""Rows of whole training steps, and of what the joint phase adds to them."""

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from flax import nnx
from jaxtyping import UInt8

from clouds_jax import sharding
from clouds_jax.losses import segmentation
from clouds_jax.losses.points import Counts
from clouds_jax.nn.clouds import Clouds
from clouds_jax.nn.encoders.convnext import Remat
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.head import Mask2FormerHead
from clouds_jax.nn.sam.decoder import DecoderSize, PromptedMasks
from clouds_jax.ops import components
from clouds_jax.selftrain import refine_device, refine_host
from clouds_jax.selftrain.joint import SelfTraining, joint
from clouds_jax.selftrain.labels import FromRecords, FromSam, FromTeacher
from clouds_jax.selftrain.refine_rules import RefineRules
from clouds_jax.training import optim
from clouds_jax.training.plan import labelled
from clouds_jax.training.state import TrainState, in_head, in_head_or_trunk, make_state
from clouds_jax.training.step import Step, make_step
from clouds_jax.typing import Batch, Generated
from experiments.benchmark.rows import CLASSES, POINTS, Setting, flops_of, labels, models, pixels
from experiments.benchmark.timing import Case, HostProgram

_PROMPTED = 10  # components of an image: trained teachers have 9 on the street photos
_SLOTS = 117  # for components at 768x768


def _step(
    encoder: str, setting: Setting, selftrain: SelfTraining | None, remat: Remat | None = None
) -> tuple[nnx.GraphDef, TrainState, Step]:
    """A model with random weights, its state and its step; with `remat` the encoder is trained."""
    mesh = sharding.make_mesh(jax.devices()[:1])
    numbers = dict(lr=1e-4, steps=1000, schedule="constant")
    tx = optim.make_optimizer(**numbers, weight_decay=0.05, clip_norm=0.01)
    needs_sam = selftrain is not None and selftrain.labels.needs_sam

    def build(rngs: nnx.Rngs) -> Clouds:
        spec = get_encoder(encoder)
        head = Mask2FormerHead(spec.widths, setting.head, CLASSES, rngs=rngs)
        sam = PromptedMasks(rngs=rngs) if needs_sam else None
        return Clouds(spec, head, sam=sam, encoder_dtype=setting.dtype, rngs=rngs)

    graphdef, state, shardings = make_state(
        build, tx, seed=0, mesh=mesh, rules=((".*", "replicate"),),
        teacher=selftrain is not None, trained=in_head if remat is None else in_head_or_trunk,
    )  # fmt: skip
    points = 256 if setting.small else POINTS
    step = make_step(
        graphdef, functools.partial(segmentation.set_loss, num_points=points), tx,
        prepare=joint(selftrain, CLASSES) if selftrain else labelled(CLASSES),
        mesh=mesh, shardings=shardings, schedule=optim.make_schedule(**numbers),
        remat=remat or "none",
    )  # fmt: skip
    return graphdef, state, step


def trained(setting: Setting) -> Iterator[Case]:
    """A step that trains the encoder too, by what its gradient computes again."""
    encoder = setting.choose("convnext_debug", "convnext_large_d_320", "convnext_large_d_320")
    size = setting.choose((64, 64), (768, 768), (768, 768))
    images, label = pixels(1, size), labels(1, size)
    for remat in (None, *typing.get_args(Remat)):
        what = "frozen" if remat is None else f"trained, again: {remat}"
        _, state, step = _step(encoder, setting, None, remat)
        yield Case(
            f"trained: {encoder}, 1 x {size[0]}x{size[1]}, {what}", step,
            (state, Batch(jnp.asarray(images), jnp.asarray(label))),
            carry=lambda found, args: (found[0], args[1]), note="random weights",
        )  # fmt: skip


def warmup(setting: Setting) -> Iterator[Case]:
    """A step of the warm-up."""
    encoder = setting.choose("convnext_tiny", "convnext_tiny", "convnext_large_d_320")
    size = setting.choose((64, 64), (512, 512), (768, 768))
    for batch in setting.choose((1,), (2,), (8, 16)):
        _, state, step = _step(encoder, setting, None)
        images, label = pixels(batch, size), labels(batch, size)
        program = None
        if setting.against == "torch":
            program = models(encoder, setting).step(images, label, _counts(setting))
        yield Case(
            f"warmup: {encoder}, {batch} x {size[0]}x{size[1]}", step,
            (state, Batch(jnp.asarray(images), jnp.asarray(label))), program,
            carry=lambda found, args: (found[0], args[1]), flops=flops_of(program),
            note="random weights and points: losses are not compared here",
        )  # fmt: skip


def joint_step(kind: str, setting: Setting) -> Iterator[Case]:
    """A step of the joint phase with labels of one kind, in the paper's shares of images."""
    encoder = setting.choose("convnext_tiny", "convnext_large_d_320", "convnext_large_d_320")
    size = setting.choose((64, 64), (768, 768), (768, 768))
    batch, generated = setting.choose((1, 1), (3, 1), (6, 2))
    arrays = pixels(batch, size), labels(batch, size), pixels(generated, size)
    images, label, new = map(jnp.asarray, arrays)
    raw = jnp.asarray(labels(generated, size))
    sources = {
        "teacher": FromTeacher(),
        "online": FromSam(components=_SLOTS),
        "stored": FromRecords(),
    }
    selftrain = SelfTraining(sources[kind])
    graphdef, state, step = _step(encoder, setting, selftrain)
    if kind != "stored":
        state, least = _opinionated(graphdef, state, new)
        if isinstance(selftrain.labels, FromSam):
            rules = RefineRules(min_area=max(4, least))
            selftrain = SelfTraining(dataclasses.replace(selftrain.labels, rules=rules))
        _, other, step = _step(encoder, setting, selftrain)
        state = other.replace(params=state.params, teacher=state.teacher)
    embedding = jnp.zeros((generated, 64, 64, 256), jnp.float16) if kind == "online" else None
    more = Generated(
        image=new, clean=None if kind == "stored" else new, embedding=embedding,
        label=raw if kind == "stored" else None,
    )  # fmt: skip
    program = None
    if kind == "stored" and setting.against == "torch":
        from porting.benchmark import joint_step as timed_joint

        program = timed_joint.step(
            models(encoder, setting), *arrays, _counts(setting),
            sam=setting.choose("sam_debug", "sam_vit_h", "sam_vit_h"), prompts=_PROMPTED,
        )  # fmt: skip
    yield Case(
        f"joint, {kind}: {encoder}, {batch} + {generated} x {size[0]}x{size[1]}", step,
        (state, Batch(images, label, more)), program,
        carry=lambda found, args: (found[0], args[1]),
        told=_prompted if kind == "online" else None,
        note="PyTorch goes CLOUDS' way: float32, eager, SAM's ViT-H (its code's default is"
        " MobileSAM) and SciPy in every step" if program else "",
    )  # fmt: skip


def _counts(setting: Setting) -> Counts:
    return Counts.of(256 if setting.small else POINTS, oversample=3.0, importance=0.75)


def _prompted(found: Any) -> str:
    return f"{float(found[1]['pseudo/components']):.1f} prompts per generated image"


def _opinionated(
    graphdef: nnx.GraphDef, state: TrainState, images: jax.Array
) -> tuple[TrainState, int]:  # fmt: skip
    """Weights whose queries say different classes, as trained ones do, and a least area.

    Random queries all say the same class, and its one component would ask SAM once. More than so
    many pixels have `_PROMPTED` components of an image.
    """

    @jax.jit
    def look(state: TrainState) -> Any:
        model = nnx.merge(graphdef, state.params, state.frozen)
        output = model.head(model.encode(images), all_outputs=False)
        return output.class_logits[-1], model.head.scores(output, images.shape[1:3]).argmax(-1)

    logits, _ = look(state)
    classifier = state.params["head"]["transformer_decoder"]["class_embed"]
    spread = 3 / float(logits.std())
    kernel, bias = classifier["kernel"], classifier["bias"]
    kernel[...] = kernel[...] * spread
    bias[...] = bias[...] * 0 - spread * (logits.mean((0, 1)) - bias[...])
    state = state.replace(teacher=jax.tree.map(lambda x: jnp.array(x, copy=True), state.params))
    _, maps = look(state)
    areas = []
    for one in np.asarray(maps).astype(np.uint8):
        found = refine_host.large_components(one, 0)
        areas.append(sorted(found.area.tolist(), reverse=True))
    least = min(area[min(_PROMPTED, len(area) - 1)] for area in areas)
    return state, int(least)


def blobs(batch: int, size: tuple[int, int]) -> UInt8[np.ndarray, "b h w"]:
    """Label maps of 19 classes in round regions, as a teacher's are."""
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(batch, CLASSES, *size)).astype(np.float32)
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 0, min(size) / 20, min(size) / 20))
    return smooth.argmax(1).astype(np.uint8)


def components_row(setting: Setting) -> Iterator[Case]:
    """Large components and points inside them, against scipy on the host."""
    size = setting.choose((96, 64), (768, 768), (768, 768))
    label, rules = blobs(1, size)[0], _rules(size)
    bits = refine_host.draws(0, 0, size, rules)

    def ours(label: jax.Array, bits: jax.Array) -> jax.Array:
        found = components.large_components(label, min_area=rules.min_area, limit=len(bits))
        return jnp.where(found.valid[:, None, None], components.random_points(found, bits), 0)

    def scipy_path() -> np.ndarray:
        found = refine_host.large_components(label, rules.min_area)
        out = np.zeros((*bits.shape, 2), np.int32)
        out[: len(found.area)] = refine_host.random_points(found, bits)
        return out

    large = refine_host.large_components(label, rules.min_area)
    yield Case(
        f"components: and points, {size[0]}x{size[1]}", ours, (jnp.asarray(label), bits),
        HostProgram(scipy_path) if setting.against == "torch" else None,
        outputs=lambda found: [found],
        note=f"against scipy; {len(large.area)} components",
    )  # fmt: skip


def refinement(setting: Setting) -> Iterator[Case]:
    """A label map refined by SAM in the step, against scipy and segment_anything on the host."""
    size = setting.choose((96, 64), (768, 768), (768, 768))
    numbers = setting.choose(DecoderSize(dim=32, heads=2, ffn=32, grid=16, image=256),
                             DecoderSize(), DecoderSize())  # fmt: skip
    label, rules = blobs(1, size)[0], _rules(size)
    bits = refine_host.draws(0, 0, size, rules)
    embedding = np.random.default_rng(3).normal(size=(numbers.grid, numbers.grid, numbers.dim))
    embedding = embedding.astype(np.float32)
    program, sam = None, PromptedMasks(numbers, rngs=nnx.Rngs(0))
    if setting.against == "torch":
        from porting.benchmark import programs

        sam, ask = programs.prompted_masks(numbers, embedding, gpu=setting.gpu)

        def host_path() -> np.ndarray:
            at = functools.partial(ask, image=size)
            return _areas(
                refine_host.refine_label(label, bits, at, rules=rules, classes=CLASSES).label
            )

        program = HostProgram(host_path)
    graphdef, state = nnx.split(sam)

    def ours(state: Any, embedding: jax.Array, label: jax.Array, bits: jax.Array) -> jax.Array:
        found = refine_device.refine_labels(
            nnx.merge(graphdef, state), embedding[None], label[None], bits[None], rules=rules,
            classes=CLASSES,
        )  # fmt: skip
        return found.label[0]

    count = len(refine_host.large_components(label, rules.min_area).area)
    yield Case(
        f"refinement: 1 x {size[0]}x{size[1]}, {count} prompts", ours,
        (state, jnp.asarray(embedding), jnp.asarray(label), bits), program,
        outputs=lambda found: [_areas(np.asarray(found))],
        note="against scipy and segment_anything; pixels per class are compared",
    )  # fmt: skip


def _areas(label: np.ndarray) -> np.ndarray:
    return np.bincount(label.reshape(-1), minlength=256)


def _rules(size: tuple[int, int]) -> RefineRules:
    return RefineRules(min_area=5000 * size[0] * size[1] // 768**2)


ROWS: dict[str, Callable[[Setting], Iterator[Case]]] = {
    "warmup": warmup,
    "trained": trained,
    "components": components_row,
    "refinement": refinement,
    **{
        f"joint_{kind}": functools.partial(joint_step, kind)
        for kind in ("stored", "teacher", "online")
    },
}
