import numpy as np
import pytest

from clouds_jax.constants import IGNORE
from clouds_jax.data import classes
from clouds_jax.data.classes import SPACES, SYNTHIA16, reduction


def test_names_and_colours_are_those_of_cityscapes():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    space = SPACES["cityscapes19"]
    for label in labels:
        if 0 <= label.trainId < IGNORE:
            assert space.names[label.trainId] == label.name
            assert space.colours[label.trainId] == label.color


def test_categories_are_those_of_cityscapes():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    table = reduction("cityscapes19", "categories7")
    for label in labels:
        if 0 <= label.trainId < IGNORE:
            assert SPACES["categories7"].names[table[label.trainId]] == label.category


@pytest.mark.parametrize(
    "fine, coarse",
    [
        ("truck", "car"),
        ("bus", "car"),
        ("train", "car"),
        ("rider", "bicyclist"),
        ("motorcycle", "bicyclist"),
        ("wall", "building"),
        ("terrain", "tree"),
        ("traffic light", "sign"),
        ("traffic sign", "sign"),
        ("person", "pedestrian"),
        ("road", "road"),
    ],
)
def test_cityscapes_reduces_to_camvid(fine, coarse):
    table = reduction("cityscapes19", "camvid11")
    index = SPACES["cityscapes19"].names.index(fine)
    assert SPACES["camvid11"].names[table[index]] == coarse


@pytest.mark.parametrize("target", SPACES)
def test_a_reduction_reaches_every_class_and_ignores_the_rest(target):
    table = reduction("cityscapes19", target)
    assert set(table[:19]) == set(range(len(SPACES[target])))
    assert (table[19:] == IGNORE).all()


def test_the_16_classes_leave_out_terrain_truck_and_train():
    names = SPACES["cityscapes19"].names
    left_out = {names[i] for i in range(19) if i not in SYNTHIA16}
    assert left_out == {"terrain", "truck", "train"}


def test_the_palette_paints_classes_and_leaves_the_rest_black():
    palette = SPACES["camvid11"].palette()
    np.testing.assert_array_equal(palette[3], (128, 64, 128))
    assert not palette[11:].any()


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="has no 'ade'; it has: cityscapes19, camvid11"):
        classes.get_space("ade")
    with pytest.raises(KeyError, match="do not reduce to 'cityscapes19'; known: cityscapes19 -> "):
        reduction("camvid11", "cityscapes19")
