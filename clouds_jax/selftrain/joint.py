"""The joint phase: labelled source images and generated images in one step.

The student sees both. The teacher labels the generated images as they are before the student's
colour jitter, SAM refines its labels, and all of it runs inside the one compiled step.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, UInt8

from clouds_jax.nn.mask2former.head import coarse_class_map
from clouds_jax.ops import masks
from clouds_jax.selftrain import refine_device
from clouds_jax.selftrain.refine_rules import RefineRules
from clouds_jax.selftrain.teacher import Average, follow
from clouds_jax.training.state import TrainState, head_of
from clouds_jax.training.step import Examples, Prepare, Work
from clouds_jax.typing import Batch, Features, Generated, Metrics, Prediction, Targets

_MASK_STRIDE = 4
_LABELS = ("teacher", "online", "stored")
_GENERATED, _POINTS = 1, 2  # folded into a step's key


@dataclasses.dataclass(frozen=True)
class SelfTraining:
    """How the generated images of a step are labelled.

    Attributes:
        labels: "teacher": what the teacher says. "online": that, refined by SAM inside the step.
            "stored": what the records hold, as the offline refinement wrote it.
        average: how the teacher follows the student.
        rules: of the refinement; of stored labels only `unlabelled` counts.
        components: most components of an image that are prompted; None: as many as there can be.
        chunk: prompts decoded at once.
        embed: (SAM, images) -> its embeddings, made inside the step; None: they come with the
            batch.
    """

    labels: str = "online"
    average: Average = Average()
    rules: RefineRules = RefineRules()
    components: int | None = None
    chunk: int = 8
    embed: Callable[[Any, UInt8[Array, "g h w 3"]], Float[Array, "g n n d"]] | None = None

    def __post_init__(self):
        if self.labels not in _LABELS:
            raise ValueError(
                f"SelfTraining.labels is {self.labels!r}; allowed are: {', '.join(_LABELS)}."
            )


def joint(settings: SelfTraining, classes: int) -> Prepare:
    """What `train_step.make_step` needs to know of the joint phase.

    The state's teacher is updated before the forward, as in the original. Where the student sees
    the same pixels as the teacher (`Generated.clean` is None), one pass of the encoder serves both.

    Args:
        settings: see there.
        classes: k; target masks are the labels below it.

    Source: CLOUDS (CVPR 2024), spec 3.7 of its released code: teacher forward, pseudo-labels,
        refinement, losses over the whole batch.
    """

    def prepare(model: Any, state: TrainState, batch: Batch, key: Key[Array, ""]) -> Work:
        generated = batch.generated
        if generated is None or state.teacher is None:
            raise ValueError("the joint phase needs generated images in the batch and a teacher.")
        g = len(generated.image)
        if settings.labels == "online" and settings.embed is not None:
            clean = generated.image if generated.clean is None else generated.clean
            generated = dataclasses.replace(generated, embedding=settings.embed(model.sam, clean))
        keys = jax.random.split(key, len(batch.image))
        new_keys = jax.random.split(jax.random.fold_in(key, _GENERATED), g)
        draw_keys = jax.random.split(jax.random.fold_in(key, _POINTS), g)
        teacher = follow(state.teacher, head_of(state.params), state.step, settings.average)
        asks = settings.labels != "stored"
        head, _, fixed = nnx.split(model.head, nnx.Param, ...)
        sam, sam_state = nnx.split(model.sam) if settings.labels == "online" else (None, None)
        images = [batch.image, generated.image]
        if asks and generated.clean is not None:
            images.append(generated.clean)

        def examples(whole: Any, features: Features, split: Any) -> Examples:
            label, generated, keys, new_keys, draw_keys = split
            teacher, fixed, sam_state = whole
            n = len(label)
            g = len(new_keys)
            student = {name: x[: n + g] for name, x in features.items()}
            # the teacher is not learnt from, also where the encoder is trained
            clean = {name: jax.lax.stop_gradient(x[-g:]) for name, x in features.items()}
            raw = generated.label
            if asks:
                raw = _teach(nnx.merge(head, teacher["head"], fixed), clean, generated)
            model = sam and nnx.merge(sam, sam_state)
            new, seen = _targets(settings, model, generated, raw, draw_keys, classes)
            old = Targets(label, masks.present_classes(label, classes), jnp.zeros(n, bool))
            targets = jax.tree.map(lambda *parts: jnp.concatenate(parts), old, new)

            def observe(output: Prediction) -> Metrics:
                guess = coarse_class_map(output)[-g:]
                middle = raw[
                    :, _MASK_STRIDE // 2 :: _MASK_STRIDE, _MASK_STRIDE // 2 :: _MASK_STRIDE
                ]
                return seen | {"pseudo/agreement": (guess == middle).mean(dtype=jnp.float32)}

            return Examples(student, targets, jnp.concatenate([keys, new_keys]), observe)

        split = (batch.label, generated, keys, new_keys, draw_keys)
        return Work(images, examples, split, (teacher, fixed, sam_state), teacher)

    return prepare


def _teach(head: nnx.Module, features: Features, generated: Generated) -> UInt8[Array, "g h w"]:
    """The teacher's class map; every pixel gets a class, there is no threshold."""
    output = head(features, all_outputs=False)
    scores = head.scores(output, generated.image.shape[1:3])
    return scores.argmax(-1).astype(jnp.uint8)


def _targets(
    settings: SelfTraining,
    sam: Any,
    generated: Generated,
    raw: UInt8[Array, "g h w"],
    keys: Key[Array, " g"],
    classes: int,
) -> tuple[Targets, Metrics]:
    """Targets of the generated images, and means over them of what there is to know."""
    ignore = jnp.full(len(raw), settings.rules.unlabelled == "ignore")
    if settings.labels == "online":
        bits = refine_device.draws(keys, raw.shape[1:], settings.rules, settings.components)
        found = refine_device.refine_labels(
            sam, generated.embedding, raw, bits,
            rules=settings.rules, classes=classes, chunk=settings.chunk,
        )  # fmt: skip
        targets = Targets(found.label, found.present, ignore)
        names = ("components", "confirmed", "changed", "dropped", "overlapped")
        seen = {name: getattr(found, name).mean(dtype=jnp.float32) for name in names}
    else:
        present = generated.present
        if present is None:
            present = masks.present_classes(raw, classes)
        targets, seen = Targets(raw, present, ignore), {}
    seen["classes"] = targets.present.sum(1).mean(dtype=jnp.float32)
    return jax.lax.stop_gradient(targets), {f"pseudo/{k}": v for k, v in seen.items()}
