"""Tiny copies of the datasets' downloads: the folders they unpack to, with drawn files."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (10, 14)


@dataclasses.dataclass(frozen=True)
class Layout:
    """One example of a dataset: its files, some ids in its label and what they must become.

    Attributes:
        kind: how the label is stored: "grey", "palette", "colour", "synthia" or "red".
    """

    dataset: str
    split: str
    image: str
    label: str
    ids: tuple
    train_ids: tuple[int, ...]
    kind: str = "grey"
    key: str = ""


CITY = "aachen_000000_000019"
FRAME = "GOPR0351_frame_000159"

LAYOUTS = {
    "gta5, palette labels": Layout(
        "gta5", "train", "images/00001.png", "labels/00001.png",
        (0, 7, 8, 23, 34), (255, 0, 1, 10, 255), "palette", "gta5/00001",
    ),
    "gta5, colour labels": Layout(
        "gta5", "train", "images/00001.png", "labels/00001.png",
        ((128, 64, 128), (0, 0, 142), (111, 74, 0)), (0, 13, 255), "colour", "gta5/00001",
    ),
    "gta5, train ids": Layout(
        "gta5", "train", "gta5/images/00001.png", "gta5/labels/00001_labelTrainIds.png",
        (0, 18, 255), (0, 18, 255), "grey", "gta5/00001",
    ),
    "synthia, 16-bit colour labels": Layout(
        "synthia", "train", "RAND_CITYSCAPES/RGB/0000000.png",
        "RAND_CITYSCAPES/GT/LABELS/0000000.png",
        (0, 1, 3, 21, 22), (255, 10, 0, 3, 255), "synthia", "synthia/0000000",
    ),
    "synthia, train ids": Layout(
        "synthia", "train", "synthia/RGB/0000000.png",
        "synthia/GT/LABELS/0000000_labelTrainIds.png", (0, 9, 255), (0, 9, 255),
        "grey", "synthia/0000000",
    ),
    "cityscapes, label ids": Layout(
        "cityscapes", "val", f"leftImg8bit/val/aachen/{CITY}_leftImg8bit.png",
        f"gtFine/val/aachen/{CITY}_gtFine_labelIds.png",
        (0, 7, 33, 30), (255, 0, 18, 255), "grey", f"cityscapes/{CITY}",
    ),
    "cityscapes, train ids": Layout(
        "cityscapes", "val", f"cityscapes/leftImg8bit/val/aachen/{CITY}_leftImg8bit.png",
        f"cityscapes/gtFine/val/aachen/{CITY}_gtFine_labelTrainIds.png",
        (0, 18, 255), (0, 18, 255), "grey", f"cityscapes/{CITY}",
    ),
    "bdd100k": Layout(
        "bdd100k", "val", "bdd100k/images/10k/val/7d06fefd.jpg",
        "bdd100k/labels/sem_seg/masks/val/7d06fefd.png",
        (0, 18, 255), (0, 18, 255), "grey", "bdd100k/7d06fefd",
    ),
    "bdd100k, bdd10k": Layout(
        "bdd100k", "train", "bdd10k/images/10k/train/7d06fefd.jpg",
        "bdd10k/labels/sem_seg/masks/train/7d06fefd.png",
        (3, 255), (3, 255), "grey", "bdd100k/7d06fefd",
    ),
    "mapillary, palette": Layout(
        "mapillary", "val", "validation/images/_aBc-1.jpg", "validation/labels/_aBc-1.png",
        (13, 24, 41, 2, 8, 21, 65), (0, 0, 0, 1, 255, 12, 255), "palette", "mapillary/_aBc-1",
    ),
    "mapillary, version 2": Layout(
        "mapillary", "train", "training/images/_aBc-1.jpg", "training/v1.2/labels/_aBc-1.png",
        (58, 61), (16, 14), "palette", "mapillary/_aBc-1",
    ),
    "mapillary, train ids": Layout(
        "mapillary", "val", "mapillary_vistas/validation/images/_aBc-1.jpg",
        "mapillary_vistas/validation/labels/_aBc-1_labelTrainIds.png",
        (13, 255), (13, 255), "grey", "mapillary/_aBc-1",
    ),
    "acdc, nested": Layout(
        "acdc", "night_val", f"rgb_anon/night/val/GOPR0351/{FRAME}_rgb_anon.png",
        f"gt/night/val/GOPR0351/{FRAME}_gt_labelTrainIds.png",
        (0, 18, 255), (0, 18, 255), "grey", f"acdc/{FRAME}",
    ),
    "acdc, flattened": Layout(
        "acdc", "fog_train", f"acdc/rgb_anon/fog/train/{FRAME}_rgb_anon.png",
        f"acdc/gt/fog/train/{FRAME}_gt_labelTrainIds.png",
        (2, 255), (2, 255), "grey", f"acdc/{FRAME}",
    ),
    "camvid": Layout(
        "camvid", "test", "camvid/test/images/0001TP_008550.jpg",
        "camvid/test/labels/0001TP_008550.png",
        (0, 10, 11), (0, 10, 255), "grey", "camvid/0001TP_008550",
    ),
    "camvid, SegNet's folders": Layout(
        "camvid", "test", "CamVid/test/0001TP_008550.png", "CamVid/testannot/0001TP_008550.png",
        (3, 11), (3, 255), "grey", "camvid/0001TP_008550",
    ),
    "carla": Layout(
        "carla", "test", "carla_mini/images/Town10HD_1.jpg",
        "carla_mini/labels_carlaTags/Town10HD_1.png",
        (0, 1, 19, 24, 25, 28), (255, 0, 18, 0, 255, 255), "grey", "carla/Town10HD_1",
    ),
    # Archives that were unpacked into folders of their own names, and older downloads.
    "gta5, parts": Layout(
        "gta5", "train", "01_images/images/00001.png", "01_labels/labels/00001.png",
        (0, 7, 8, 23, 34), (255, 0, 1, 10, 255), "palette", "gta5/00001",
    ),
    "gta5, parts with train ids": Layout(
        "gta5", "train", "GTA5/10_images/images/24966.png",
        "GTA5/10_labels/labels/24966_labelTrainIds.png",
        (0, 18, 255), (0, 18, 255), "grey", "gta5/24966",
    ),
    "synthia, 8-bit colour labels with transparency": Layout(
        "synthia", "train", "RGB/0000000.png", "GT/LABELS/0000000.png",
        (0, 1, 3, 21, 22), (255, 10, 0, 3, 255), "red", "synthia/0000000",
    ),
    "synthia, colours": Layout(
        "synthia", "train", "RGB/0000000.png", "GT/LABELS/0000000.png",
        ((70, 130, 180), (128, 64, 128), (102, 102, 156)), (10, 0, 255), "colour",
        "synthia/0000000",
    ),
    "cityscapes, zips": Layout(
        "cityscapes", "val",
        f"leftImg8bit_trainvaltest/leftImg8bit/val/aachen/{CITY}_leftImg8bit.png",
        f"gtFine_trainvaltest/gtFine/val/aachen/{CITY}_gtFine_labelIds.png",
        (0, 7, 33, 30), (255, 0, 18, 255), "grey", f"cityscapes/{CITY}",
    ),
    "bdd100k, older": Layout(
        "bdd100k", "val", "bdd100k/seg/images/val/7d06fefd-f7be05a6.jpg",
        "bdd100k/seg/labels/val/7d06fefd-f7be05a6_train_id.png",
        (0, 18, 255), (0, 18, 255), "grey", "bdd100k/7d06fefd-f7be05a6",
    ),
    "bdd100k, zips": Layout(
        "bdd100k", "val", "bdd100k_images_10k/bdd100k/images/10k/val/7d06fefd.jpg",
        "bdd100k_sem_seg_labels_trainval/bdd100k/labels/sem_seg/masks/val/7d06fefd.png",
        (0, 18, 255), (0, 18, 255), "grey", "bdd100k/7d06fefd",
    ),
    "mapillary, its own folder": Layout(
        "mapillary", "val", "mapillary-vistas-dataset_public_v2.0/validation/images/_aBc-1.jpg",
        "mapillary-vistas-dataset_public_v2.0/validation/v1.2/labels/_aBc-1.png",
        (13, 65), (0, 255), "palette", "mapillary/_aBc-1",
    ),
    "acdc, zips": Layout(
        "acdc", "fog_val",
        f"rgb_anon_trainvaltest/rgb_anon/fog/val/GOPR0351/{FRAME}_rgb_anon.png",
        f"gt_trainval/gt/fog/val/GOPR0351/{FRAME}_gt_labelTrainIds.png",
        (0, 18, 255), (0, 18, 255), "grey", f"acdc/{FRAME}",
    ),
    "camvid, original": Layout(
        "camvid", "test", "701_StillsRaw_full/Seq05VD_f00000.png",
        "LabeledApproved_full/Seq05VD_f00000_L.png",
        ((128, 128, 128), (192, 0, 128), (192, 0, 64), (192, 0, 192), (0, 0, 0)),
        (0, 1, 3, 10, 255), "colour", "camvid/Seq05VD_f00000",
    ),
    "camvid, train_labels": Layout(
        "camvid", "train", "CamVid/train/0001TP_006690.png",
        "CamVid/train_labels/0001TP_006690_L.png",
        ((0, 0, 64), (64, 64, 0)), (2, 9), "colour", "camvid/0001TP_006690",
    ),
    "carla, red channel": Layout(
        "carla", "test", "CameraRGB/000001.png", "CameraSeg/000001.png",
        (0, 1, 19, 24), (255, 0, 18, 0), "red", "carla/000001",
    ),
    "carla, colours": Layout(
        "carla", "test", "images/1.png", "labels_carlaTags/1.png",
        ((128, 64, 128), (157, 234, 50), (70, 130, 180)), (0, 0, 10), "colour", "carla/1",
    ),
    "carla, 13 tags": Layout(
        "carla_13tags", "test", "CameraRGB/000001.png", "CameraSeg/000001.png",
        (0, 1, 3, 4, 6, 7, 10, 12), (255, 2, 255, 11, 0, 0, 13, 7), "red", "carla_13tags/000001",
    ),
    "carla, 23 tags": Layout(
        "carla_13tags", "test", "images/1.jpg", "labels_carlaTags/1.png",
        (13, 18, 22, 21), (10, 6, 9, 255), "grey", "carla_13tags/1",
    ),
    "an ending in capitals": Layout(
        "bdd100k", "val", "images/10k/val/a.JPG", "labels/sem_seg/masks/val/a.PNG",
        (0, 18, 255), (0, 18, 255), "grey", "bdd100k/a",
    ),
}  # fmt: skip


def picture(size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write_image(path: Path, size=SIZE, seed=0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(size, seed)).save(path)


def write_label(path: Path, ids, *, kind="grey", size=SIZE) -> np.ndarray:
    """Writes a label of diagonal stripes of the ids; returns which id is where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: size[0], : size[1]]
    which = (y + x) % len(ids)
    values = np.array(ids, np.uint8)[which]
    if kind == "palette":
        image = Image.frombytes("P", size[::-1], values.tobytes())
        image.putpalette(list(range(255, -1, -1)) * 3)
        image.save(path)
    elif kind == "synthia":
        # The ids are in the red channel; green holds instances, both of 16 bits.
        wide = values.astype(np.uint16)
        channels = np.stack([0 * wide, wide + 1000, wide], axis=-1)
        cv2.imwrite(str(path), channels)
    elif kind == "red":
        rest = np.zeros_like(values)
        Image.fromarray(np.stack([values, rest, rest, rest + 255], axis=-1)).save(path)
    else:
        Image.fromarray(values).save(path)
    return which


def write_palette(path: Path, ids, palette, *, size=SIZE) -> np.ndarray:
    """Writes a palette label of diagonal stripes of the indices; returns which is where."""
    which = write_label(path, ids, kind="palette", size=size)
    with Image.open(path) as image:
        image.load()
    image.putpalette([value for colour in palette for value in colour])
    image.save(path)
    return which


def write_layout(raw: Path, layout: Layout) -> np.ndarray:
    """Writes the two files; returns the label as train ids."""
    write_image(raw / layout.image)
    which = write_label(raw / layout.label, layout.ids, kind=layout.kind)
    return np.array(layout.train_ids, np.uint8)[which]


def write_camvid(raw: Path, count: int, split="train") -> None:
    """A small CamVid that is right in all respects."""
    for index in range(count):
        write_image(raw / f"camvid/{split}/images/{index:04d}.png", seed=index)
        write_label(raw / f"camvid/{split}/labels/{index:04d}.png", (index % 11, 11))
