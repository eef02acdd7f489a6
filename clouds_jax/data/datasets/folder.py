"""Any folder of images, without labels: for prediction. The user names the split."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax import images
from clouds_jax.data.datasets.spec import DatasetSpec, Source, Sources


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Every image below `raw`, see `images.list_images`; keys are paths without their ending.

    Raises:
        FileNotFoundError: there are none, or no such folder.
    """
    del split  # a name for the shards only
    if not raw.exists():
        raise FileNotFoundError(f"folder: {raw} is no folder: it does not exist. Correct --raw.")
    listing = images.list_images(raw)
    sources = [Source(f"folder/{_name(path, raw)}", path) for path in listing.images]
    return Sources(sorted(sources, key=lambda source: source.key), listing.notes)


def _name(path: Path, raw: Path) -> str:
    return images.unicode_name(path.relative_to(raw).with_suffix("").as_posix())


SPEC = DatasetSpec(
    name="folder",
    label_space=None,
    splits={},
    examples=examples,
    homepage="your own images",
    licence="yours",
)
