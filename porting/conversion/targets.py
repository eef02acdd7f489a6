"""The models that weights are converted for: their trees of shapes, without any array."""

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
from porting.tables.rules import ConversionError, plan, shapes_of

_PIXEL = "head.pixel_decoder."
_TRANSFORMER = "head.transformer_decoder."
_SAM = "sam."
_SAM_ENCODER = _SAM + "image_encoder."
_LEVELS = 3


@dataclasses.dataclass(frozen=True)
class Target:
    """What a checkpoint is converted to.

    Attributes:
        want: nested dict of `jax.ShapeDtypeStruct`, with `encoder`, `text` and `head` or some,
            or with `sam`.
        encoder: name in `ENCODERS`, or None.
        text: numbers of the text tower, or None.
        head: numbers of the head, or None.
        widths: of the features the head reads.
        classes: of the head, without no-object; None for the text classifier, which has as many
            as its class matrix.
        embedding: width of the class matrix that the text classifier reads.
        sam: name in `SAMS`; None also for SAM's decoder alone.
    """

    want: Tree
    encoder: str | None = None
    text: TextSize | None = None
    head: HeadSize | None = None
    widths: tuple[int, int, int, int] | None = None
    classes: int | None = None
    embedding: int | None = None
    sam: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, without the shapes."""
        fields = dataclasses.asdict(dataclasses.replace(self, want={}))
        return {key: value for key, value in fields.items() if key != "want" and value is not None}


@functools.cache  # the shapes of a large encoder take seconds
def encoder_want(name: str) -> Tree:
    """Shapes of an encoder's weights."""
    spec = get_encoder(name)
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: spec.build(nnx.Rngs(0)))))


def text_want(size: TextSize) -> Tree:
    """Shapes of a text tower's weights."""
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: TextTower(size, rngs=nnx.Rngs(0)))))


@functools.cache
def sam_want(name: str | None) -> Tree:
    """Shapes of a SAM's weights; None: of what all share, prompt encoder and mask decoder."""

    def make() -> nnx.Module:
        rngs = nnx.Rngs(0)
        return PromptedMasks(rngs=rngs) if name is None else get_sam(name).build(rngs)

    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(make)))


def head_want(
    widths: tuple[int, int, int, int],
    size: HeadSize,
    classes: int | None,
    embedding: int | None = None,
) -> Tree:
    """Shapes of a Mask2Former head's weights; a class matrix, which no file holds, is left out."""
    rows = None if embedding is None else TextRows((0,), embedding)
    make = lambda: Mask2FormerHead(widths, size, classes or 1, rows=rows, rngs=nnx.Rngs(0))  # noqa: E731
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(make), nnx.Param))


def choose(
    source: Mapping[str, Any], table: Table, *, encoder: str | None = None, heads: int = 8
) -> Target:
    """The model that a checkpoint is for, told from its tensors.

    Args:
        source: name -> anything with `shape` and `dtype`.
        table: of the checkpoint's family.
        encoder: name in `ENCODERS`, or in `SAMS` for files of SAM; None takes the one of the
            table's encoders that fits.
        heads: attention heads of a Mask2Former head, the one number no shape tells.

    Raises:
        ConversionError: the misfits of the encoder that comes nearest.
    """
    shapes = shapes_of(source, table.rules)
    target = Target({})
    if any(path.startswith("head.") for path in shapes):
        widths, size, classes, embedding = _head_of(shapes, heads)
        want = {"head": head_want(widths, size, classes, embedding)}
        target = Target(want, head=size, widths=widths, classes=classes, embedding=embedding)
    if any(path.startswith("text.") for path in shapes):
        tower = _text_of(shapes, quick_gelu=any(".attnpool." in name for name in source))
        want = target.want | {"text": text_want(tower)}
        target = dataclasses.replace(target, want=want, text=tower)
    if any(path.startswith("encoder.") for path in shapes):
        names = (encoder,) if encoder else table.encoders
        best, want = _nearest(
            source, table, names, lambda name: target.want | {"encoder": encoder_want(name)}
        )
        target = dataclasses.replace(target, want=want, encoder=best)
    if any(path.startswith(_SAM_ENCODER) for path in shapes):
        names = (encoder,) if encoder else table.encoders
        best, want = _nearest(source, table, names, lambda name: {"sam": sam_want(name)})
        target = dataclasses.replace(target, want=want, sam=best)
    elif any(path.startswith(_SAM) for path in shapes):
        target = dataclasses.replace(target, want={"sam": sam_want(None)})
    if not target.want:
        raise ConversionError([f"no tensor of the file is of family {table.name}"])
    return target


def _nearest(
    source: Mapping[str, Any],
    table: Table,
    names: Sequence[str],
    want_of: Callable[[str], Tree],
) -> tuple[str, Tree]:
    """The first model without a misfit, or the one with the fewest, and its shapes."""
    found: dict[int, tuple[str, Tree]] = {}
    for name in names:
        want = want_of(name)
        misfits = len(plan(source, table.rules, want).misfits)
        if not misfits:
            return name, want
        found.setdefault(misfits, (name, want))
    return found[min(found)]


def _axis(shapes: Mapping[str, tuple[int, ...]], path: str, number: int, default: int) -> int:
    """One axis of a target, or what stands for a tensor that is missing."""
    shape = shapes.get(path, ())
    return shape[number] if len(shape) > number else default


def _rows(shapes: Mapping[str, tuple[int, ...]], pattern: str, default: int) -> int:
    """How many rows a stacked target has."""
    found = [re.fullmatch(pattern + r"\[(\d+)\]", path) for path in shapes]
    return max((int(match[1]) + 1 for match in found if match), default=default)


def _text_of(shapes: Mapping[str, tuple[int, ...]], *, quick_gelu: bool) -> TextSize:
    """The text tower whose tensors have these shapes; what is missing counts as in CLOUDS.

    Args:
        shapes: by path of the target.
        quick_gelu: whether it is OpenAI's, which no shape tells: that of a CLIP ResNet is.
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


def _head_of(
    shapes: Mapping[str, tuple[int, ...]], heads: int
) -> tuple[tuple[int, int, int, int], HeadSize, int | None, int | None]:
    """Widths, size, classes and width of the class matrix of the head with these shapes.

    A tensor that is missing counts as in CLOUDS, so that it is reported as missing and not as a
    wrong size of everything else.
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
    return widths, size, classes, embedding
