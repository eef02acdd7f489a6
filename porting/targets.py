"""The models that weights are converted for: their trees of shapes, without any array."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

from flax import nnx

from clouds_jax.encoders import get_encoder
from clouds_jax.nn.mask2former import Mask2FormerHead
from clouds_jax.nn.sizes import HeadSize
from porting.rules import ConversionError, Tree, plan, shapes_of
from porting.tables import Table

_PIXEL = "head.pixel_decoder."
_TRANSFORMER = "head.transformer_decoder."
_LEVELS = 3


@dataclasses.dataclass(frozen=True)
class Target:
    """What a checkpoint is converted to.

    Attributes:
        want: nested dict of `jax.ShapeDtypeStruct`, with `encoder`, `head` or both.
        encoder: name in `ENCODERS`, or None.
        head: numbers of the head, or None.
        widths: of the features the head reads.
        classes: of the head, without no-object.
    """

    want: Tree
    encoder: str | None = None
    head: HeadSize | None = None
    widths: tuple[int, int, int, int] | None = None
    classes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, without the shapes."""
        fields = dataclasses.asdict(dataclasses.replace(self, want={}))
        return {key: value for key, value in fields.items() if key != "want" and value is not None}


@functools.cache  # the shapes of a large encoder take seconds
def encoder_want(name: str) -> Tree:
    """Shapes of an encoder's weights."""
    spec = get_encoder(name)
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: spec.build(nnx.Rngs(0)))))


def head_want(widths: tuple[int, int, int, int], size: HeadSize, classes: int) -> Tree:
    """Shapes of a Mask2Former head's weights."""
    make = lambda: Mask2FormerHead(widths, size, classes, rngs=nnx.Rngs(0))  # noqa: E731
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(make)))


def choose(
    source: Mapping[str, Any], table: Table, *, encoder: str | None = None, heads: int = 8
) -> Target:
    """The model that a checkpoint is for, told from its tensors.

    Args:
        source: name -> anything with `shape` and `dtype`.
        table: of the checkpoint's family.
        encoder: name in `ENCODERS`; None takes the one of the table's encoders that fits.
        heads: attention heads of a Mask2Former head, the one number no shape tells.

    Raises:
        ConversionError: the misfits of the encoder that comes nearest.
    """
    shapes = shapes_of(source, table.rules)
    target = Target({})
    if any(path.startswith("head.") for path in shapes):
        widths, size, classes = _head_of(shapes, heads)
        want = {"head": head_want(widths, size, classes)}
        target = Target(want, None, size, widths, classes)
    if any(path.startswith("encoder.") for path in shapes):
        names = (encoder,) if encoder else table.encoders
        wants = {name: {"encoder": encoder_want(name)} for name in names}
        found = {
            name: len(plan(source, table.rules, want | target.want).misfits)
            for name, want in wants.items()
        }
        best = min(found, key=lambda name: found[name])
        target = dataclasses.replace(target, want=wants[best] | target.want, encoder=best)
    if not target.want:
        raise ConversionError([f"no tensor of the file is of family {table.name}"])
    return target


def _head_of(
    shapes: Mapping[str, tuple[int, ...]], heads: int
) -> tuple[tuple[int, int, int, int], HeadSize, int]:
    """Widths, size and classes of the head whose tensors have these shapes.

    A tensor that is missing counts as in CLOUDS, so that it is reported as missing and not as a
    wrong size of everything else.
    """
    usual = HeadSize()

    def axis(path: str, number: int, default: int) -> int:
        shape = shapes.get(path, ())
        return shape[number] if len(shape) > number else default

    def rows(pattern: str, default: int) -> int:
        found = [re.fullmatch(pattern, path) for path in shapes]
        return max((int(match[1]) + 1 for match in found if match), default=default)

    layer = re.escape(_PIXEL + "layers.fc1.kernel")
    pixel_layers = rows(layer + r"\[(\d+)\]", usual.pixel_layers)
    groups = rows(
        re.escape(_TRANSFORMER) + r"layers\.2\.fc1\.kernel\[(\d+)\]",
        usual.decoder_layers // _LEVELS,
    )
    first = _PIXEL + "layers.{}.{}[0]"
    offsets = axis(first.format("sampling_offsets", "bias"), 0, 2 * _LEVELS * 4 * heads)
    size = HeadSize(
        num_queries=axis(_TRANSFORMER + "query_feat", 0, usual.num_queries),
        dim=axis(_TRANSFORMER + "query_feat", 1, usual.dim),
        num_heads=heads,
        pixel_layers=pixel_layers,
        pixel_ffn=axis(first.format("fc1", "bias"), 0, usual.pixel_ffn),
        decoder_layers=_LEVELS * groups,
        decoder_ffn=axis(_TRANSFORMER + "layers.0.fc1.bias[0]", 0, usual.decoder_ffn),
        num_points=max(1, offsets // (2 * _LEVELS * heads)),
    )
    widths = (
        axis(_PIXEL + "lateral.conv.kernel", 0, 1),
        axis(_PIXEL + "input_proj.2.conv.kernel", 0, 1),
        axis(_PIXEL + "input_proj.1.conv.kernel", 0, 1),
        axis(_PIXEL + "input_proj.0.conv.kernel", 0, 1),
    )
    classes = axis(_TRANSFORMER + "class_embed.bias", 0, 2) - 1
    return widths, size, classes
