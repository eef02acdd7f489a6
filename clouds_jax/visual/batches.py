"""What a loader yields, human-readable: a table of its arrays and classes, and a panel."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from clouds_jax import images as image_files
from clouds_jax.constants import IGNORE
from clouds_jax.data.classes import LabelSpace
from clouds_jax.visual.labels import label_panels

_MOST_EXAMPLES = 8  # rows of a panel
_MOST_CLASSES = 4  # named in the caption of a row
_WIDTH = 360  # pixels of one column


def describe(batches: Sequence[Mapping[str, np.ndarray]], space: LabelSpace) -> str:
    """Keys, shapes and ranges of the first batch; class shares over all batches, as text.

    Args:
        batches: at least one; `label` holds train ids of `space`.
        space: names of the classes.
    """
    lines = [f"{'key':<8}{'shape':<22}{'type':<8}{'range':<10}"]
    for name, array in batches[0].items():
        span = f"{array.min()}..{array.max()}"
        lines.append(f"{name:<8}{str(array.shape):<22}{str(array.dtype):<8}{span:<10}")
    counts = np.stack([_counts(label) for batch in batches for label in batch["label"]])
    pixels, images = counts.sum(0), (counts > 0).sum(0)
    known, total = max(int(pixels[: len(space)].sum()), 1), int(pixels.sum())
    lines += ["", f"{'class':<16}{'share':>9}{'images':>8}   ({len(counts)} images)"]
    for i, name in enumerate(space.names):
        lines.append(f"{name:<16}{100 * pixels[i] / known:>7.2f} %{images[i]:>8}")
    lines.append(f"{'(ignored)':<16}{100 * (1 - known / total):>7.2f} %")
    return "\n".join(lines)


def save_panel(
    path: Path,
    images: UInt8[np.ndarray, "b h w 3"],
    labels: UInt8[np.ndarray, "b h w"],
    space: LabelSpace,
) -> None:
    """Writes a PNG of the first examples: image, label, both together; and a legend.

    Args:
        path: file to write.
        images: RGB.
        labels: train ids of `space`.
        space: names and colours of the classes.
    """
    pairs = zip(images[:_MOST_EXAMPLES], labels[:_MOST_EXAMPLES], strict=True)
    examples = [(f"{i}: {_shares(y, space)}", x, y) for i, (x, y) in enumerate(pairs)]
    image_files.write_png(path, label_panels(examples, space, width=_WIDTH))


def _shares(label: UInt8[np.ndarray, "h w"], space: LabelSpace) -> str:
    """The largest classes of a label and their shares: "road 41 %, sky 20 %"."""
    pixels = _counts(label)
    names = dict(enumerate(space.names)) | {IGNORE: "ignored"}
    largest = sorted(names, key=lambda i: -pixels[i])[:_MOST_CLASSES]
    shares = (f"{names[i]} {100 * pixels[i] / label.size:.0f} %" for i in largest if pixels[i])
    return ", ".join(shares)


def _counts(label: UInt8[np.ndarray, "h w"]) -> np.ndarray:
    return np.bincount(label.reshape(-1), minlength=256)
