"""Any folder of images, without labels: for prediction. The user names the split."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets.spec import DatasetSpec, Source

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Every image below `raw`; keys are paths without their ending."""
    del split  # a name for the shards only
    paths = [path for path in raw.rglob("*") if path.suffix.lower() in ENDINGS]
    if not paths:
        raise FileNotFoundError(
            f"folder: {raw} holds no image; looked below it for files that end in "
            f"{', '.join(ENDINGS)}. Correct --raw."
        )
    names = {path: path.relative_to(raw).with_suffix("").as_posix() for path in paths}
    return [Source(f"folder/{names[path]}", path) for path in sorted(paths, key=names.__getitem__)]


SPEC = DatasetSpec(
    name="folder",
    label_space=None,
    splits={},
    examples=examples,
    homepage="your own images",
    licence="yours",
)
