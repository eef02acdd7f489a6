"""The joint phase: labelled source images and generated images in one step.

The student sees both. The teacher labels the generated images as they are before the student's
colour jitter, SAM refines its labels, and all of it runs inside the one compiled step.
"""

import dataclasses
import typing
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Key, UInt8

from clouds_jax.nn.clouds import Head
from clouds_jax.nn.mask2former.head import coarse_class_map
from clouds_jax.ops import masks
from clouds_jax.selftrain.labels import FromSam, LabelSource
from clouds_jax.selftrain.teacher import Average, follow
from clouds_jax.training.plan import DeviceExamples, Prepare, Rows, StepPlan, unlabelled
from clouds_jax.training.state import TrainState, head_of
from clouds_jax.typing import Batch, Features, Generated, Metrics, Prediction, Targets

_MASK_STRIDE = 4
_GENERATED, _POINTS = 1, 2  # folded into a step's key


@dataclasses.dataclass(frozen=True)
class SelfTraining:
    """Settings of the joint phase.

    Attributes:
        labels: source of the pseudo-labels.
        average: EMA by which the teacher follows the student.
    """

    labels: LabelSource = FromSam()
    average: Average = Average()


@typing.no_type_check  # JAX also fills a pytree with shardings
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JointShared:
    """Arrays that every device gets whole.

    Attributes:
        teacher: weights of the teacher's head.
        fixed: variables of the head that are not trained.
        sam: variables of SAM; None without it.
    """

    teacher: Any
    fixed: Any
    sam: Any


@typing.no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JointSplit:
    """Arrays that are split over the devices.

    Attributes:
        label: labels of the labelled images.
        generated: generated images.
        keys: random keys of the losses, one per labelled image.
        generated_keys: random keys of the losses, one per generated image.
        prompt_keys: random keys of the points that prompt SAM, one per generated image.
        counted: which labelled rows are images; None: all, and all generated ones.
        generated_counted: which generated rows are images; None: all, and all labelled ones.
    """

    label: UInt8[Array, "b h w"]
    generated: Generated
    keys: Key[Array, " b"]
    generated_keys: Key[Array, " g"]
    prompt_keys: Key[Array, " g"]
    counted: Bool[Array, " b"] | None
    generated_counted: Bool[Array, " g"] | None


def joint(settings: SelfTraining, classes: int, *, images: int = 0, generated: int = 0) -> Prepare:
    """The `prepare` of `training.step.make_step` for the joint phase.

    The state's teacher is updated before the forward, as in the original. Where the student sees
    the same pixels as the teacher (`Generated.clean` is None), one pass of the encoder serves both.

    Args:
        settings: label source, refinement rules and EMA of the joint phase.
        classes: number of classes, k; other ids in a label belong to no mask.
        images: labelled images of a batch; the rows behind them are padding. 0: all rows.
        generated: the same of the generated images.

    Source: CLOUDS (CVPR 2024), spec 3.7 of its released code: teacher forward, pseudo-labels,
        refinement, losses over the whole batch.
    """
    source, new_images = settings.labels, generated

    def prepare(model: Any, state: TrainState, batch: Batch, key: Key[Array, ""]) -> StepPlan:
        if batch.generated is None or state.teacher is None:
            raise ValueError("the joint phase needs generated images in the batch and a teacher.")
        generated = source.prepare(model.sam, batch.generated)
        old = Rows(len(batch.image), images or len(batch.image))
        new = Rows(len(generated.image), new_images or len(generated.image))
        padded = old.padded or new.padded
        split = JointSplit(
            label=batch.label,
            generated=generated,
            keys=old.keys(key),
            generated_keys=new.keys(jax.random.fold_in(key, _GENERATED)),
            prompt_keys=new.keys(jax.random.fold_in(key, _POINTS)),
            counted=old.counted() if padded else None,
            generated_counted=new.counted() if padded else None,
        )
        teacher = follow(state.teacher, head_of(state.params), state.step, settings.average)
        head, _, fixed = nnx.split(model.head, nnx.Param, ...)
        sam, sam_state = nnx.split(model.sam) if source.needs_sam else (None, None)
        encoded = [batch.image, generated.image]
        if source.needs_clean and generated.clean is not None:
            encoded.append(generated.clean)

        def examples(shared: JointShared, features: Features, split: JointSplit) -> DeviceExamples:
            generated = split.generated
            b, g = len(split.label), len(split.generated_keys)
            # the teacher is not learned from, also where the encoder is trained
            clean = {name: jax.lax.stop_gradient(x[-g:]) for name, x in features.items()}
            if source.needs_clean:
                own_head = nnx.merge(head, shared.teacher["head"], shared.fixed)
                raw = _predict(own_head, clean, generated)
            else:
                assert generated.label is not None, "such sources read the label of the records"
                raw = generated.label
            own_sam = sam and nnx.merge(sam, shared.sam)
            targets, metrics = source.targets(own_sam, generated, raw, split.prompt_keys, classes)
            metrics["classes"] = targets.present.sum(1).astype(jnp.float32)
            label = unlabelled(split.label, split.counted)
            present = masks.present_classes(label, classes)
            of_labelled = _counted(Targets(label, present, jnp.zeros(b, bool)), split.counted)
            of_generated = _counted(targets, split.generated_counted)
            both = jax.tree.map(
                lambda *parts: jnp.concatenate(parts), of_labelled,
                jax.lax.stop_gradient(of_generated),
            )  # fmt: skip

            keys = jnp.concatenate([split.keys, split.generated_keys])
            return DeviceExamples(both, keys, (raw, metrics, split.generated_counted))

        def observe(output: Prediction, observed: tuple) -> Metrics:
            raw, metrics, counted = observed
            student_map = coarse_class_map(output)[-len(raw) :]
            middle = slice(_MASK_STRIDE // 2, None, _MASK_STRIDE)
            same = (student_map == raw[:, middle, middle]).mean((1, 2), dtype=jnp.float32)
            counts = 1.0 if counted is None else counted
            return {
                f"pseudo/{k}": (x * counts).sum() / new.images
                for k, x in (metrics | {"agreement": same}).items()
            }

        shared = JointShared(teacher, fixed, sam_state)
        return StepPlan(encoded, examples, split, shared, observe, teacher)

    return prepare


def _predict(head: Head, features: Features, generated: Generated) -> UInt8[Array, "g h w"]:
    """The teacher's class map; every pixel gets a class, there is no threshold."""
    output = head(features, all_outputs=False)
    _, h, w, _ = generated.image.shape
    scores = head.scores(output, (h, w))
    return scores.argmax(-1).astype(jnp.uint8)


def _counted(targets: Targets, counted: Bool[Array, " b"] | None) -> Targets:
    """The targets, of padding none."""
    if counted is None:
        return targets
    return dataclasses.replace(
        targets, label=unlabelled(targets.label, counted),
        present=targets.present & counted[:, None], counted=counted,
    )  # fmt: skip
