"""Description of a dataset: where its files are and what the values of its labels mean."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int16, Shaped, UInt8
from PIL import Image

from clouds_jax.constants import IGNORE
from clouds_jax.data.classes import SPACES, Colour

UNKNOWN = -1  # in an id table: a value that the dataset does not define

Table = Int16[np.ndarray, "256"]
Rendered = tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]


@dataclasses.dataclass(frozen=True)
class Source:
    """One example before it is a record: two files, or a function that draws it.

    Attributes:
        key: unique in its split, and stable: `gta5/00001`.
        image: file of the image; None for a label without an image.
        label: file of the label; None for an image without a label.
        render: function that returns (image, label); picklable, as workers are processes.
    """

    key: str
    image: Path | None = None
    label: Path | None = None
    render: Callable[[], Rendered] | None = None


class Sources(list[Source]):
    """The examples of a split, with what the user should know of how they were found.

    Attributes:
        notes: sentences, such as which files were left out.
    """

    def __init__(self, sources: Iterable[Source], notes: Sequence[str] = ()):
        super().__init__(sources)
        self.notes = tuple(notes)


class Stored(NamedTuple):
    """A label file as stored.

    Attributes:
        values: ids or palette indices [h, w], or colours [h, w, 3 or 4].
        palette: colours of the palette indices, where the file has a palette.
    """

    values: Shaped[np.ndarray, "..."]
    palette: UInt8[np.ndarray, "n 3"] | None = None


def read_stored(path: Path) -> Stored:
    """A label file that PIL decodes."""
    with Image.open(path) as image:
        values = np.asarray(image)
        if image.mode != "P":
            return Stored(values)
        palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        return Stored(values, palette)


def id_table(train_ids: Mapping[int, int], ids: Iterable[int]) -> Table:
    """The table from a dataset's label ids to train ids.

    Args:
        train_ids: label id to train id, for the ids that are a class.
        ids: all ids that the dataset defines; those without a class become ignore.

    Returns:
        `table[id]`: a train id, 255, or UNKNOWN for ids that the dataset does not define.
    """
    table = np.full(256, UNKNOWN, np.int16)
    table[list(ids)] = IGNORE
    for label_id, train_id in train_ids.items():
        table[label_id] = train_id
    return table


@dataclasses.dataclass(frozen=True)
class LabelKind:
    """What the values of one kind of label file mean.

    Attributes:
        table: from ids to train ids.
        colours: pairs of id and RGB, by which colour images and reordered palettes are read. Of ids
            that share a colour, the first stands for it.
        hint: what a label with other ids than the table's probably is, and what to do; a sentence.
    """

    table: Table
    colours: tuple[tuple[int, Colour], ...] = ()
    hint: str = ""


# Labels that are train ids already: written by the datasets' own tools, or BDD100K's own.
TRAIN_IDS = LabelKind(
    id_table({i: i for i in range(19)}, [IGNORE]),
    (*enumerate(SPACES["cityscapes19"].colours), (IGNORE, (0, 0, 0))),
)


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """One dataset. To add one, write a module in `clouds_jax/data/datasets` and list it there.

    Attributes:
        name: folder of its shards, first part of a ref ("gta5/train").
        label_space: key of `classes.SPACES`, or None for images without labels.
        splits: name -> number of examples of the complete download (None: unknown). Empty where
            the user names the splits (plain folders).
        examples: `examples(raw, split)` lists the split. A generated dataset takes
            `examples(None, split, seed=, count=)` and returns sources that render.
        kinds: ending of a label file -> what its values mean; the first ending that fits is used.
        read_label: reads a label file.
        jitter_size: (h, w) that scale 1 of the scale jitter stands for; None: the image's own.
        generated: whether examples are drawn, and no raw folder is read.
        homepage: where to get the download.
        licence: its licence in a few words.
    """

    name: str
    label_space: str | None
    splits: Mapping[str, int | None]
    examples: Callable[..., Sequence[Source]]
    homepage: str
    licence: str
    kinds: Mapping[str, LabelKind] = dataclasses.field(default_factory=dict)
    read_label: Callable[[Path], Stored] = read_stored
    jitter_size: tuple[int, int] | None = None
    generated: bool = False

    def kind(self, label: Path) -> LabelKind:
        """The kind of a label file, by the ending of its name in any case."""
        for ending, kind in self.kinds.items():
            if label.name.lower().endswith(ending.lower()):
                return kind
        raise ValueError(
            f"{label}: {self.name} reads labels that end in {', '.join(self.kinds)} only."
        )
