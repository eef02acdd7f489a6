"""Prompts of a person to SAM: what is allowed, and what is answered."""

import numpy as np
import pytest
from flax import nnx

from clouds_jax import Sam
from clouds_jax.nn.rngs import HostKeys
from clouds_jax.nn.sam.registry import get_sam
from clouds_jax.weights import save_weights

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    """A small SAM with random weights, written and read again."""
    spec = get_sam("sam_debug")
    tree = {"sam": nnx.to_pure_dict(nnx.state(spec.build(HostKeys(0))))}
    folder = tmp_path_factory.mktemp("weights") / "sam"
    save_weights(folder, tree, {"target": {"sam": "sam_debug"}})
    return Sam.load(folder)


def test_a_mask_has_the_image_s_size_whatever_the_prompt(sam):
    one = sam.predict(IMAGE, points=[[30, 20]])
    assert one.masks.shape == (1, 3, 40, 60) and one.masks.dtype == bool
    assert one.iou.shape == (1, 3) and one.best.shape == (1, 40, 60)
    several = sam.predict(
        IMAGE, points=[[[30, 20]], [[5, 5]]], boxes=[[0, 0, 9, 9], [1, 1, 30, 30]]
    )
    assert several.best.shape == (2, 40, 60)


def test_labels_and_boxes_change_the_mask(sam):
    inside = sam.predict(IMAGE, points=[[30, 20], [3, 3]])
    outside = sam.predict(IMAGE, points=[[30, 20], [3, 3]], labels=[1, 0])
    box = sam.predict(IMAGE, boxes=[10, 10, 50, 30])
    assert not np.allclose(inside.iou, outside.iou)
    assert not np.allclose(inside.iou, box.iou)


@pytest.mark.parametrize(
    "prompt, message",
    [
        ({}, "give points, boxes or both"),
        ({"points": [1, 2]}, r"points are \(2,\); allowed are \[p, 2\] and \[n, p, 2\]"),
        ({"points": [[1, 2]], "labels": [2]}, "1 inside, 0 outside, -1 none"),
        ({"boxes": [1, 2, 3]}, r"boxes are \(3,\); allowed are \[4\] and \[n, 4\]"),
        ({"points": [[1, 2]], "boxes": np.ones((2, 4))}, "1 prompts of points and 2 boxes"),
    ],
)
def test_a_wrong_prompt_is_one_clear_error(sam, prompt, message):
    with pytest.raises(ValueError, match=message):
        sam.predict(IMAGE, **prompt)


def test_a_folder_without_sam_says_so(tmp_path):
    save_weights(tmp_path / "w", {"encoder": {"w": np.zeros(1)}}, {})
    with pytest.raises(ValueError, match="holds no whole SAM; convert one with"):
        Sam.load(tmp_path / "w")
