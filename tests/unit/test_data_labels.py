"""Labels as people saved them: reordered palettes, colours, ids of another version."""

import dataclasses

import numpy as np
import pytest
import raw_layouts
from PIL import Image

from clouds_jax.data.build.labels import BadSource, ForeignLabel, in_grid_of_image, read_label
from clouds_jax.data.classes import SPACES
from clouds_jax.data.datasets import DATASETS, get_dataset
from clouds_jax.data.datasets.spec import LabelKind

CITY = SPACES["cityscapes19"].colours
COLOURED = [
    (name, ending)
    for name, spec in DATASETS.items()
    for ending, kind in spec.kinds.items()
    if kind.colours
]


def palette_label(path, palette, indices=None):
    """Writes a palette PNG; returns which of the colours is where."""
    indices = range(len(palette)) if indices is None else indices
    return raw_layouts.write_palette(path, tuple(indices), palette, size=(60, 70))


def test_every_dataset_with_labels_knows_colours():
    labelled = {name for name, spec in DATASETS.items() if spec.kinds}
    assert {name for name, _ in COLOURED} == labelled


@pytest.mark.parametrize("name, ending", COLOURED)
def test_a_palette_in_another_order_is_read_by_colour(tmp_path, name, ending):
    spec = get_dataset(name)
    kind = spec.kinds[ending]
    first = {colour: i for i, colour in reversed(kind.colours)}
    # The commonest case: an editor or converter numbers the colours as they come.
    palette = [colour for colour in first if kind.table[first[colour]] != 255][:8]
    palette.append((0, 0, 0))
    which = palette_label(tmp_path / f"x{ending}", palette)
    expected = np.array([kind.table[first[colour]] for colour in palette])[which]
    np.testing.assert_array_equal(read_label(tmp_path / f"x{ending}", spec), expected)


def test_black_is_a_colour_of_a_palette_that_is_the_datasets(tmp_path):
    which = palette_label(tmp_path / "x.png", [CITY[0], CITY[1], (0, 0, 0)])
    out = read_label(tmp_path / "x.png", get_dataset("bdd100k"))
    np.testing.assert_array_equal(out, np.array([0, 1, 255])[which])


def test_black_alone_is_what_palettes_hold_where_nobody_set_a_colour(tmp_path):
    palette_label(tmp_path / "x.png", [(0, 0, 0)])
    assert not read_label(tmp_path / "x.png", get_dataset("bdd100k")).any()


@pytest.mark.parametrize("name, ending", COLOURED)
def test_a_palette_in_the_order_of_the_ids_is_read_by_index(tmp_path, name, ending):
    spec = get_dataset(name)
    kind = spec.kinds[ending]
    last = dict(kind.colours)
    ids = [i for i in last if i < 250]
    palette = [last.get(i, (1, 2, 3)) for i in range(max(ids) + 1)]
    which = palette_label(tmp_path / f"x{ending}", palette, ids)
    expected = kind.table[np.array(ids)][which]
    np.testing.assert_array_equal(read_label(tmp_path / f"x{ending}", spec), expected)


@pytest.mark.parametrize("colour", [lambda i: (i, i, i), lambda i: (7 * i % 256, 3, 200)])
def test_a_palette_of_other_colours_is_read_by_index(tmp_path, colour):
    palette_label(tmp_path / "x.png", [colour(i) for i in range(35)])
    out = read_label(tmp_path / "x.png", get_dataset("gta5"))
    assert set(np.unique(out)) == {*range(19), 255}


def voc(index):
    """PASCAL VOC's colour of an index."""
    colour = [0, 0, 0]
    for bit in range(8):
        colour[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return tuple(colour)


def test_greys_say_nothing_though_some_are_known_colours(tmp_path):
    which = palette_label(
        tmp_path / "x.png", [(i, i, i) for i in range(35)] + 9 * [(0, 0, 0)], (0, 20)
    )
    out = read_label(tmp_path / "x.png", get_dataset("gta5"))
    np.testing.assert_array_equal(out, np.array([255, 7])[which])


def test_the_palette_of_pascal_voc_says_nothing_though_colours_coincide(tmp_path):
    assert [voc(i) for i in (1, 3, 7)] == [(128, 0, 0), (128, 128, 0), (128, 128, 128)]
    which = palette_label(tmp_path / "x.png", [voc(i) for i in range(256)], (1, 3, 7))
    out = read_label(tmp_path / "x.png", get_dataset("camvid"))
    np.testing.assert_array_equal(out, np.array([1, 3, 7])[which])


def test_a_palette_that_is_partly_the_datasets_is_refused(tmp_path):
    palette_label(tmp_path / "x.png", [CITY[0], CITY[13], CITY[10], (1, 2, 3)])
    with pytest.raises(ForeignLabel, match="colours that it lacks: #010203"):
        read_label(tmp_path / "x.png", get_dataset("gta5"))


@pytest.mark.parametrize("name, ending", COLOURED)
@pytest.mark.parametrize("alpha", [False, True])
def test_a_colour_image_is_read_by_colour(tmp_path, name, ending, alpha):
    spec = get_dataset(name)
    kind = spec.kinds[ending]
    first = {colour: i for i, colour in reversed(kind.colours)}
    colours = list(first)
    which = np.add.outer(np.arange(10), np.arange(14)) % len(colours)
    picture = np.array(colours, np.uint8)[which]
    if alpha:
        picture = np.concatenate([picture, np.full((10, 14, 1), 255, np.uint8)], axis=-1)
    Image.fromarray(picture).save(tmp_path / f"x{ending}")
    expected = np.array([kind.table[first[colour]] for colour in colours])[which]
    np.testing.assert_array_equal(read_label(tmp_path / f"x{ending}", spec), expected)


def test_a_colour_image_of_a_dataset_without_colours_is_refused(tmp_path):
    spec = get_dataset("gta5")
    kind = LabelKind(spec.kinds[".png"].table)
    raw_layouts.write_image(tmp_path / "x.png")
    with pytest.raises(BadSource, match="x.png is a colour image; labels of gta5 hold ids"):
        read_label(tmp_path / "x.png", dataclasses.replace(spec, kinds={".png": kind}))


@pytest.mark.parametrize(
    "name, ids, hint",
    [
        ("mapillary", (21, 116), "version 2.0"),
        ("carla_13tags", (1, 25), "as carla"),
        ("carla", (1, 29), "as carla_13tags"),
        ("cityscapes", (7, 255), "another kind"),
    ],
)
def test_ids_outside_the_table_say_what_the_label_may_be(tmp_path, name, ids, hint):
    raw_layouts.write_label(tmp_path / "x_labelIds.png", ids)
    with pytest.raises(ForeignLabel, match=f"has ids {ids[1]}, outside .*{hint}"):
        read_label(tmp_path / "x_labelIds.png", get_dataset(name))


def test_a_label_follows_its_image_where_the_sizes_tell_its_grid():
    label = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert in_grid_of_image(label, (2, 3), 1) is label
    assert in_grid_of_image(label, (2, 3), 6) is label  # drawn on the upright picture
    np.testing.assert_array_equal(in_grid_of_image(label, (3, 2), 6), np.rot90(label, -1))
    np.testing.assert_array_equal(in_grid_of_image(label, (3, 2), 8), np.rot90(label))
    with pytest.raises(BadSource, match="EXIF orientation 3"):
        in_grid_of_image(label, (2, 3), 3)
