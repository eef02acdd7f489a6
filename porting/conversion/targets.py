"""The model that a checkpoint is converted to, inferred from its tensors, as a tree of shapes."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx

from clouds_jax.nn import clip_text
from clouds_jax.nn.clip_text import TextSize, TextTower
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.class_heads import TextRows
from clouds_jax.nn.mask2former.head import Mask2FormerHead
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.nn.sam.decoder import PromptedMasks
from clouds_jax.nn.sam.registry import get_sam
from porting.files.trees import Tree
from porting.tables import Table
from porting.tables.apply import ConversionError, plan
from porting.tables.rules import shapes_by_target

_PIXEL = "head.pixel_decoder."
_TRANSFORMER = "head.transformer_decoder."
_SAM = "sam."
_SAM_ENCODER = _SAM + "image_encoder."
_LEVELS = 3


@dataclasses.dataclass(frozen=True)
class Target:
    """The model that a checkpoint is converted to.

    Attributes:
        shapes: nested dict of `jax.ShapeDtypeStruct` with some of `encoder`, `text` and `head`, or
            with `sam`.
        encoder: name in `ENCODERS`, or None.
        text: size of CLIP's text tower, or None.
        head: size of the Mask2Former head, or None.
        widths: channels of res2 to res5 as the head reads them.
        classes: number of classes of the head, without no-object; None for the text classifier,
            which has as many as its class matrix.
        embedding: width of the class matrix that the text classifier reads.
        sam: name in `SAMS`; None also for SAM's decoder alone.
    """

    shapes: Tree
    encoder: str | None = None
    text: TextSize | None = None
    head: HeadSize | None = None
    widths: tuple[int, int, int, int] | None = None
    classes: int | None = None
    embedding: int | None = None
    sam: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, without the shapes."""
        fields = dataclasses.asdict(dataclasses.replace(self, shapes={}))
        del fields["shapes"]
        return {key: value for key, value in fields.items() if value is not None}


@functools.cache  # tracing a large encoder takes seconds
def encoder_shapes(name: str) -> Tree:
    """Shapes of an encoder's weights."""
    spec = get_encoder(name)
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: spec.build(nnx.Rngs(0)))))


def text_tower_shapes(size: TextSize) -> Tree:
    """Shapes of a text tower's weights."""
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: TextTower(size, rngs=nnx.Rngs(0)))))


@functools.cache
def sam_shapes(name: str | None) -> Tree:
    """Shapes of a SAM's weights; None: of the prompt encoder and mask decoder that all share."""

    def make() -> nnx.Module:
        rngs = nnx.Rngs(0)
        return PromptedMasks(rngs=rngs) if name is None else get_sam(name).build(rngs)

    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(make)))


def head_shapes(
    widths: tuple[int, int, int, int],
    size: HeadSize,
    classes: int | None,
    embedding: int | None = None,
) -> Tree:
    """Shapes of a Mask2Former head's weights, without the class matrix, which no file holds."""
    rows = None if embedding is None else TextRows((0,), embedding)
    make = lambda: Mask2FormerHead(widths, size, classes or 1, rows=rows, rngs=nnx.Rngs(0))  # noqa: E731
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(make), nnx.Param))


def infer_target(
    source: Mapping[str, Any], table: Table, *, encoder: str | None = None, heads: int = 8
) -> Target:
    """Infers the model of a checkpoint from the shapes of its tensors.

    Args:
        source: name -> anything with `shape` and `dtype`.
        table: rules of the checkpoint's family.
        encoder: name in `ENCODERS`, or in `SAMS` for files of SAM; None takes the one of the
            table's encoders that fits best.
        heads: attention heads of a Mask2Former head, the one number that no shape shows.

    Raises:
        ConversionError: no tensor is of the family.
    """
    shapes = shapes_by_target(source, table.rules)
    target = Target({})
    if any(path.startswith("head.") for path in shapes):
        target = _head_target(shapes, heads)
    if any(path.startswith("text.") for path in shapes):
        tower = _text_size(shapes, quick_gelu=any(".attnpool." in name for name in source))
        merged = target.shapes | {"text": text_tower_shapes(tower)}
        target = dataclasses.replace(target, shapes=merged, text=tower)
    names = (encoder,) if encoder else table.encoders
    if any(path.startswith("encoder.") for path in shapes):
        name, merged = _best_model(
            source, table, names, lambda name: target.shapes | {"encoder": encoder_shapes(name)}
        )
        target = dataclasses.replace(target, shapes=merged, encoder=name)
    if any(path.startswith(_SAM_ENCODER) for path in shapes):
        name, merged = _best_model(source, table, names, lambda name: {"sam": sam_shapes(name)})
        target = dataclasses.replace(target, shapes=merged, sam=name)
    elif any(path.startswith(_SAM) for path in shapes):
        target = dataclasses.replace(target, shapes={"sam": sam_shapes(None)})
    if not target.shapes:
        raise ConversionError([f"no tensor of the file is of family {table.name}"])
    return target


def _best_model(
    source: Mapping[str, Any],
    table: Table,
    names: Sequence[str],
    shapes_of: Callable[[str], Tree],
) -> tuple[str, Tree]:
    """Name and shapes of the first model without a misfit, or of the one with the fewest."""
    by_misfits: dict[int, tuple[str, Tree]] = {}
    for name in names:
        shapes = shapes_of(name)
        misfits = len(plan(source, table.rules, shapes).misfits)
        if not misfits:
            return name, shapes
        by_misfits.setdefault(misfits, (name, shapes))
    return by_misfits[min(by_misfits)]


def _axis(shapes: Mapping[str, tuple[int, ...]], path: str, number: int, default: int) -> int:
    """Length of one axis of a target; `default` where the tensor is missing."""
    shape = shapes.get(path, ())
    return shape[number] if len(shape) > number else default


def _rows(shapes: Mapping[str, tuple[int, ...]], pattern: str, default: int) -> int:
    """Number of rows of a stacked target; `default` where all its tensors are missing."""
    matches = [re.fullmatch(pattern + r"\[(\d+)\]", path) for path in shapes]
    return max((int(match[1]) + 1 for match in matches if match), default=default)


def _text_size(shapes: Mapping[str, tuple[int, ...]], *, quick_gelu: bool) -> TextSize:
    """Size of the text tower with these shapes; missing tensors count as in CLOUDS.

    Args:
        shapes: by path of the target.
        quick_gelu: OpenAI's activation, which no shape shows; CLIP's ResNets have it.
    """
    usual = clip_text.SIZES["convnext_large_d_320"]
    return TextSize(
        width=_axis(shapes, "text.token_embedding", 1, usual.width),
        layers=_rows(shapes, r"text\.blocks\.fc1\.bias", usual.layers),
        embedding=_axis(shapes, "text.projection", 1, usual.embedding),
        quick_gelu=quick_gelu,
        vocabulary=_axis(shapes, "text.token_embedding", 0, usual.vocabulary),
        context=_axis(shapes, "text.position", 0, usual.context),
    )


def _head_target(shapes: Mapping[str, tuple[int, ...]], heads: int) -> Target:
    """The Mask2Former head with these shapes.

    A missing tensor counts as in CLOUDS, so that it is reported as missing and not as a wrong size
    of everything else.
    """
    usual = HeadSize()
    axis = functools.partial(_axis, shapes)
    rows = functools.partial(_rows, shapes)
    layer = re.escape(_PIXEL + "layers.fc1.kernel")
    pixel_layers = rows(layer, usual.pixel_layers)
    groups = rows(
        re.escape(_TRANSFORMER + "layers.2.fc1.kernel"),
        usual.decoder_layers // _LEVELS,
    )
    first = _PIXEL + "layers.{}.{}[0]"
    offsets = axis(first.format("sampling_offsets", "bias"), 0, 2 * _LEVELS * 4 * heads)
    classes_at = _TRANSFORMER + "class_embed."
    embedding = None
    if any(path.startswith(classes_at + "mlp.") for path in shapes):
        classifier, classes = "text", None
        embedding = axis(
            classes_at + "mlp.2.bias", 0, clip_text.SIZES["convnext_large_d_320"].embedding
        )
    elif any(path.startswith(classes_at + "pooling.") for path in shapes):
        classifier, classes = "pooled", axis(classes_at + "linear.bias", 0, 2) - 1
    else:
        classifier, classes = "linear", axis(classes_at + "bias", 0, 2) - 1
    size = HeadSize(
        num_queries=axis(_TRANSFORMER + "query_feat", 0, usual.num_queries),
        dim=axis(_TRANSFORMER + "query_feat", 1, usual.dim),
        num_heads=heads,
        pixel_layers=pixel_layers,
        pixel_ffn=axis(first.format("fc1", "bias"), 0, usual.pixel_ffn),
        decoder_layers=_LEVELS * groups,
        decoder_ffn=axis(_TRANSFORMER + "layers.0.fc1.bias[0]", 0, usual.decoder_ffn),
        num_points=max(1, offsets // (2 * _LEVELS * heads)),
        classifier=classifier,
    )
    widths = (
        axis(_PIXEL + "lateral.conv.kernel", 0, 1),
        axis(_PIXEL + "input_proj.2.conv.kernel", 0, 1),
        axis(_PIXEL + "input_proj.1.conv.kernel", 0, 1),
        axis(_PIXEL + "input_proj.0.conv.kernel", 0, 1),
    )
    return Target(
        {"head": head_shapes(widths, size, classes, embedding)},
        head=size,
        widths=widths,
        classes=classes,
        embedding=embedding,
    )
