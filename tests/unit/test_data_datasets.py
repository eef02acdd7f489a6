import subprocess
import sys

import numpy as np
import pytest
import raw_layouts
from raw_layouts import LAYOUTS

from clouds_jax.data.build import shards
from clouds_jax.data.classes import SPACES
from clouds_jax.data.datasets import DATASETS, fake, get_dataset, gta5


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_download_is_found_paired_and_mapped_to_train_ids(tmp_path, layout):
    expected = raw_layouts.write_layout(tmp_path, layout)
    spec = get_dataset(layout.dataset)
    (source,) = spec.examples(tmp_path, layout.split)
    assert source.key == layout.key
    assert source.image == tmp_path / layout.image
    example = shards.load(source, spec, {})
    np.testing.assert_array_equal(example.label, expected)
    assert example.image.shape == (*raw_layouts.SIZE, 3)


def test_every_dataset_with_labels_has_a_layout_test():
    tested = {layout.dataset for layout in LAYOUTS.values()}
    with_files = {
        name for name, spec in DATASETS.items() if spec.label_space and not spec.generated
    }
    assert with_files == tested


def test_train_ids_are_preferred_to_label_ids(tmp_path):
    raw_layouts.write_layout(tmp_path, LAYOUTS["cityscapes, label ids"])
    label = tmp_path / LAYOUTS["cityscapes, label ids"].label
    better = label.with_name(label.name.replace("labelIds", "labelTrainIds"))
    raw_layouts.write_label(better, (4,))
    spec = get_dataset("cityscapes")
    (source,) = spec.examples(tmp_path, "val")
    assert source.label == better


def test_gta5_leaves_out_the_62_bad_files(tmp_path):
    assert len(gta5.BAD) == 62
    raw_layouts.write_layout(tmp_path, LAYOUTS["gta5, palette labels"])
    for stem in ("15188", "17705", "20801", "20860"):
        raw_layouts.write_image(tmp_path / f"images/{stem}.png")
        raw_layouts.write_label(tmp_path / f"labels/{stem}.png", (7,))
    raw_layouts.write_image(tmp_path / "images/20861.png")
    raw_layouts.write_label(tmp_path / "labels/20861.png", (7,))
    keys = [source.key for source in get_dataset("gta5").examples(tmp_path, "train")]
    assert keys == ["gta5/00001", "gta5/20861"]


@pytest.mark.parametrize("name", ["cityscapes", "gta5"])
def test_label_ids_are_those_of_cityscapes(name):
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    kind = get_dataset(name).kinds["_labelIds.png" if name == "cityscapes" else ".png"]
    table, colours = kind.table, {colour: i for i, colour in reversed(kind.colours)}
    for label in labels:
        if label.id >= 0:
            assert table[label.id] == (label.trainId if 0 <= label.trainId < 19 else 255)
            if 0 <= label.trainId < 19:
                assert colours[label.color] == label.id
    assert (table[35:] == -1).all()


@pytest.mark.parametrize("name", DATASETS)
def test_tables_hold_only_classes_of_the_label_space(name):
    spec = DATASETS[name]
    for kind in spec.kinds.values():
        classes = set(range(len(SPACES[spec.label_space])))
        assert set(kind.table.tolist()) <= classes | {255, -1}
        assert all(kind.table[i] >= 0 for i, _ in kind.colours)


def test_files_without_a_partner_are_listed_on_both_sides(tmp_path):
    raw_layouts.write_camvid(tmp_path, 3)
    (tmp_path / "camvid/train/images/0000.png").unlink()
    (tmp_path / "camvid/train/labels/0002.png").unlink()
    sources = get_dataset("camvid").examples(tmp_path, "train")
    assert [(s.key, s.image is None, s.label is None) for s in sources] == [
        ("camvid/0000", True, False),
        ("camvid/0001", False, False),
        ("camvid/0002", False, True),
    ]


def test_an_empty_folder_is_answered_with_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        get_dataset("cityscapes").examples(tmp_path, "val")
    assert f"{tmp_path}/cityscapes/leftImg8bit/val/*/" in str(error.value)
    assert "correct --raw" in str(error.value)
    with pytest.raises(FileNotFoundError, match="has no images"):
        get_dataset("folder").examples(tmp_path, "mine")


def test_a_plain_folder_yields_all_images_below_it(tmp_path):
    raw_layouts.write_image(tmp_path / "b.JPG")
    raw_layouts.write_image(tmp_path / "a/c.png")
    (tmp_path / "notes.txt").write_text("no image")
    sources = get_dataset("folder").examples(tmp_path, "mine")
    assert [source.key for source in sources] == ["folder/a/c", "folder/b"]


def test_fake_pictures_depend_on_seed_and_index_alone():
    image, label = fake.draw(3, 5)
    again, label_again = fake.draw(3, 5)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, label_again)
    assert (fake.draw(4, 5)[1] != label).any()
    assert (label == 255).any() and (label < 19).any()


def test_fake_splits_share_no_picture():
    train = {source.key for source in fake.examples(None, "train")}
    assert not train & {source.key for source in fake.examples(None, "val")}


def test_an_unknown_dataset_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="DATASETS has no 'gta'; it has: gta5, synthia"):
        get_dataset("gta")


def test_specs_and_records_import_no_jax():
    code = (
        "import sys, clouds_jax.data.datasets, clouds_jax.data.records, clouds_jax.data.build;"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_label_of_an_unknown_ending_has_no_table(tmp_path):
    spec = get_dataset("cityscapes")
    with pytest.raises(ValueError, match="labels that end in _labelTrainIds.png, _labelIds.png"):
        spec.kind(tmp_path / "x_color.png")
