"""Downloads as people unpacked, converted and moved them."""

import numpy as np
import pytest
import raw_layouts
from raw_layouts import LAYOUTS

from clouds_jax.data.build.run import build
from clouds_jax.data.classes import SPACES
from clouds_jax.data.datasets import camvid, get_dataset

APPLE = b"\x00\x05\x16\x07"
GTA5 = get_dataset("gta5")


def gta5(raw, count, ending=".png"):
    for index in range(count):
        raw_layouts.write_image(raw / f"images/{index:05d}.png")
        raw_layouts.write_label(raw / f"labels/{index:05d}{ending}", (7, 8))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_files_of_systems_beside_a_download_change_nothing(tmp_path, layout):
    raw_layouts.write_layout(tmp_path, layout)
    spec = get_dataset(layout.dataset)
    before = spec.examples(tmp_path, layout.split)
    for name in (layout.image, layout.label):
        place = (tmp_path / name).parent
        (place / f"._{(tmp_path / name).name}").write_bytes(APPLE)
        (place / "._x_labelTrainIds.png").write_bytes(APPLE)
        (place.parent / ".DS_Store").write_bytes(APPLE)
        (place / "Thumbs.db").write_bytes(APPLE)
    after = spec.examples(tmp_path, layout.split)
    assert before == after and not after.notes


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_download_behind_links_is_found(tmp_path, layout):
    raw_layouts.write_layout(tmp_path / "disk", layout)
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in (tmp_path / "disk").iterdir():
        (raw / path.name).symlink_to(path)
    (source,) = get_dataset(layout.dataset).examples(raw, layout.split)
    assert source.image == raw / layout.image and source.label == raw / layout.label


def test_each_image_takes_the_kind_of_label_that_it_has_and_mixed_kinds_are_said(tmp_path):
    gta5(tmp_path, 3)
    raw_layouts.write_label(tmp_path / "labels/00001_labelTrainIds.png", (0, 1))
    sources = GTA5.examples(tmp_path, "train")
    assert [source.label.name for source in sources] == [
        "00000.png", "00001_labelTrainIds.png", "00002.png"
    ]  # fmt: skip
    (note,) = sources.notes
    assert "1 like labels/{stem}_labelTrainIds.png and 2 like labels/{stem}.png" in note
    assert "was a converter interrupted?" in note
    summary = build("gta5", raw=tmp_path, output=tmp_path / "out", split="train")
    assert summary["notes"] == [note] and summary["classes"]["road"]["images"] == 3


def test_a_label_for_no_image_decides_nothing(tmp_path):
    gta5(tmp_path, 2)
    raw_layouts.write_label(tmp_path / "labels/x_labelTrainIds.png", (0, 1))
    sources = GTA5.examples(tmp_path, "train")
    assert [(source.key, source.image is None) for source in sources] == [
        ("gta5/00000", False), ("gta5/00001", False), ("gta5/x", True)
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["gta5, train ids", "synthia, train ids", "cityscapes, train ids",
                                  "mapillary, train ids"])  # fmt: skip
def test_a_converter_that_ran_twice_is_said(tmp_path, name):
    layout = LAYOUTS[name]
    raw_layouts.write_layout(tmp_path, layout)
    label = tmp_path / layout.label
    raw_layouts.write_label(label.with_name(label.stem + "_labelTrainIds.png"), (0, 1))
    sources = get_dataset(layout.dataset).examples(tmp_path, layout.split)
    assert [source.label for source in sources] == [label]
    assert "1 files were left out, which a converter wrote from its own results" in sources.notes[0]


def test_parts_of_gta5_are_taken_together(tmp_path):
    for part in ("01", "10"):
        gta5(tmp_path / "x", 1)
        for kind in ("images", "labels"):
            (tmp_path / f"{part}_{kind}").mkdir()
            (tmp_path / "x" / kind).rename(tmp_path / f"{part}_{kind}/{kind}")
        old = tmp_path / f"{part}_images/images/00000.png"
        old.rename(old.with_name(f"000{part}.png"))
        old = tmp_path / f"{part}_labels/labels/00000.png"
        old.rename(old.with_name(f"000{part}.png"))
    keys = [source.key for source in GTA5.examples(tmp_path, "train")]
    assert keys == ["gta5/00001", "gta5/00010"]


@pytest.mark.parametrize("folder", ["training", "mapillary/training"])
def test_version_2_alone_of_mapillary_is_named(tmp_path, folder):
    raw_layouts.write_image(tmp_path / folder / "images/a.jpg")
    raw_layouts.write_label(tmp_path / folder / "v2.0/labels/a.png", (21, 116))
    with pytest.raises(ValueError, match="v2.0/labels has 1 labels of version 2.0, and there are"):
        get_dataset("mapillary").examples(tmp_path, "train")
    raw_layouts.write_label(tmp_path / folder / "v1.2/labels/a.png", (13, 65))
    (source,) = get_dataset("mapillary").examples(tmp_path, "train")
    assert source.label == tmp_path / folder / "v1.2/labels/a.png"


def test_the_folder_that_comes_nearest_is_named(tmp_path):
    for index in range(3):
        raw_layouts.write_image(tmp_path / f"data/part1/images/{index}.png")
    raw_layouts.write_image(tmp_path / "other/x.png")
    with pytest.raises(FileNotFoundError) as error:
        GTA5.examples(tmp_path, "train")
    assert f"{tmp_path}/data/part1/images has 3 .png files; is this it?" in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"part1/images has 3 .png files; is this it\?"):
        get_dataset("bdd100k").examples(tmp_path, "val")  # which has .jpg


def test_labels_that_are_nowhere_are_one_error_that_names_the_nearest(tmp_path):
    gta5(tmp_path, 3)
    (tmp_path / "labels").rename(tmp_path / "annotations")
    with pytest.raises(FileNotFoundError, match="none of the labels looked for") as error:
        GTA5.examples(tmp_path, "train")
    assert f"{tmp_path}/annotations has 3 .png files; is this it?" in str(error.value)


def test_a_raw_folder_that_is_a_link_to_nowhere_is_named(tmp_path):
    (tmp_path / "raw").symlink_to(tmp_path / "unmounted")
    with pytest.raises(FileNotFoundError, match="raw is a link to .*unmounted, which does not"):
        GTA5.examples(tmp_path / "raw", "train")


def test_a_city_that_is_a_link_to_nowhere_is_a_bad_example(tmp_path):
    layout = LAYOUTS["cityscapes, label ids"]
    raw_layouts.write_layout(tmp_path, layout)
    (tmp_path / "leftImg8bit/val/bonn").symlink_to(tmp_path / "gone")
    options = {"raw": tmp_path, "output": tmp_path / "out", "split": "val"}
    with pytest.raises(ValueError, match="val/bonn is a link to .*gone, which does not exist"):
        build("cityscapes", **options)
    assert build("cityscapes", **options, skip_bad=True)["examples"] == 1


@pytest.mark.realdata
def test_original_frames_of_camvid_are_split_as_in_segnets_lists(real_data):
    for split in ("train", "val", "test"):
        for path in (real_data / f"camvid/{split}/images").iterdir():
            assert camvid.split_of(path.stem) == split


def test_the_original_classes_of_camvid_fill_the_eleven(tmp_path):
    assert len(camvid.ORIGINAL) == 32 == len({colour for _, colour, _ in camvid.ORIGINAL})
    assert {train_id for *_, train_id in camvid.ORIGINAL} == {*range(11), 255}
    ours = np.array(SPACES["camvid11"].colours)
    theirs = {}
    for _, colour, train_id in camvid.ORIGINAL:
        theirs.setdefault(train_id, colour)
    same = [i for i in range(11) if tuple(ours[i]) == theirs[i]]
    assert same == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]  # SegNet colours the sidewalk otherwise
