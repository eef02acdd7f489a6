"""Where the labels of generated images come from: the teacher, the teacher and SAM, or records.

All three sources have the same members:

needs_clean   the teacher labels the images, before the student's colour jitter
needs_sam     the model carries SAM, which refines the teacher's class maps
unlabelled    pixels labelled 255 are negatives of every mask ("negative") or take no part in the
              mask losses ("ignore")
prepare       computes what needs the whole batch, before it is split over the devices
targets       (SAM or None, generated images of one device, class maps [g, h, w] of the teacher or
              of the records, a key per image, k) -> targets, and refinement metrics of each image
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from clouds_jax.nn.sam import registry
from clouds_jax.nn.sam.decoder import DecoderSize, PromptedMasks
from clouds_jax.ops import masks
from clouds_jax.selftrain import refine_device
from clouds_jax.selftrain.refine_rules import RefineRules
from clouds_jax.typing import Generated, Targets

PerImage = dict[str, Float[Array, " g"]]


@dataclasses.dataclass(frozen=True)
class FromTeacher:
    """The teacher's class maps as they are; every pixel has a class.

    Attributes:
        unlabelled: role of pixels labelled 255, see the module.
    """

    unlabelled: str = "negative"
    needs_clean: ClassVar[bool] = True
    needs_sam: ClassVar[bool] = False

    def prepare(self, sam: Any, generated: Generated) -> Generated:
        return generated

    def targets(self, sam, generated, label, keys, classes) -> tuple[Targets, PerImage]:
        return _plain_targets(label, masks.present_classes(label, classes), self.unlabelled), {}


@dataclasses.dataclass(frozen=True)
class FromRecords:
    """The labels that an offline stage stored.

    Attributes:
        map: name of the label map: "pseudo" or "refined", or such a name with a hyphen and a
            suffix.
        unlabelled: role of pixels labelled 255, see the module.
    """

    map: str = "refined"
    unlabelled: str = "negative"
    needs_clean: ClassVar[bool] = False
    needs_sam: ClassVar[bool] = False

    def prepare(self, sam: Any, generated: Generated) -> Generated:
        return generated

    def targets(self, sam, generated, label, keys, classes) -> tuple[Targets, PerImage]:
        present = generated.present
        if present is None:
            present = masks.present_classes(label, classes)
        return _plain_targets(label, present, self.unlabelled), {}


@dataclasses.dataclass(frozen=True)
class FromSam:
    """The teacher's class maps, refined by SAM inside the step.

    Attributes:
        rules: rules of the refinement.
        components: most components of an image that prompt SAM; None: as many as there can be.
        chunk: prompts decoded at once.
        sam: name in `nn.sam.registry.SAMS`.
        stored: embeddings come with the batch, as `clouds_jax.embed` wrote them; False: the step
            computes them.
        weights: folder with the converted weights; "": random ones.
    """

    rules: RefineRules = RefineRules()
    components: int | None = None
    chunk: int = 8
    sam: str = "mobile_sam"
    stored: bool = True
    weights: str = ""
    needs_clean: ClassVar[bool] = True
    needs_sam: ClassVar[bool] = True

    @property
    def unlabelled(self) -> str:
        """Role of pixels labelled 255, see the module."""
        return self.rules.unlabelled

    @property
    def module(self) -> DecoderSize | Callable[[nnx.Rngs], PromptedMasks]:
        """SAM for `nn.clouds.build_model`: a decoder alone where embeddings are stored."""
        spec = registry.get_sam(self.sam)
        return spec.decoder if self.stored else spec.build

    def embed(self, sam: Any, images: UInt8[Array, "g h w 3"]) -> Float[Array, "g n n d"]:
        """SAM's embeddings of images, inside a compiled program."""
        return registry.embed_on_device(registry.get_sam(self.sam), sam, images)

    def prepare(self, sam: Any, generated: Generated) -> Generated:
        if self.stored:
            return generated
        clean = generated.image if generated.clean is None else generated.clean
        return dataclasses.replace(generated, embedding=self.embed(sam, clean))

    def targets(self, sam, generated, label, keys, classes) -> tuple[Targets, PerImage]:
        bits = refine_device.draws(keys, label.shape[1:], self.rules, self.components)
        refined = refine_device.refine_labels(
            sam, generated.embedding, label, bits,
            rules=self.rules, classes=classes, chunk=self.chunk,
        )  # fmt: skip
        names = ("components", "confirmed", "changed", "dropped", "overlapped")
        metrics = {name: getattr(refined, name).astype(jnp.float32) for name in names}
        return _plain_targets(refined.label, refined.present, self.unlabelled), metrics


def _plain_targets(label: Array, present: Array, unlabelled: str) -> Targets:
    return Targets(label, present, jnp.full(len(label), unlabelled == "ignore"))


LabelSource = FromTeacher | FromRecords | FromSam
