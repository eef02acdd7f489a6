"""The evaluation of a model that answers by colour, against counting by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.constants import IGNORE
from clouds_jax.data.classes import SPACES, reduction
from clouds_jax.data.datasets import fake
from clouds_jax.data.records import Example
from clouds_jax.evaluation import metrics, protocols
from clouds_jax.evaluation.run import evaluate, evenly_spaced

NATIVE = protocols.get_protocol("native")
SPACE = SPACES["cityscapes19"]


class ByColour(nnx.Module):
    """Predicts the class whose colour is nearest; a model that needs no training."""

    def __init__(self, space=SPACE):
        self.colours = nnx.Param(jnp.asarray(space.colours, jnp.float32))

    def scores(self, images):
        difference = images[..., None, :].astype(jnp.float32) - self.colours[...][None, None, None]
        return -jnp.square(difference).sum(-1)


def drawn(count, sizes=((40, 56),), seed=3):
    return [(f"fake/{i:03d}", *fake.draw(seed, i, sizes[i % len(sizes)])) for i in range(count)]


def run(examples, *, model=None, **options):
    graphdef, state = nnx.split(model or ByColour())
    arguments = dict(
        dataset="fake/val", label_space="cityscapes19", model_space="cityscapes19",
        protocol=NATIVE,
    )  # fmt: skip
    examples = [Example(key, image, label) for key, image, label in examples]
    return evaluate(graphdef, (state,), examples, **(arguments | options))


def by_hand(examples):
    total = np.zeros((19, 19), np.int64)
    for _, image, label in examples:
        distance = np.square(
            image[..., None, :].astype(float) - np.asarray(SPACE.colours, float)
        ).sum(-1)
        predicted = distance.argmin(-1)
        kept = label != IGNORE
        np.add.at(total, (label[kept], predicted[kept]), 1)
    return total


def test_confusion_equals_counting_by_hand_for_mixed_sizes_and_short_batches():
    examples = drawn(7, sizes=((40, 56), (24, 33), (40, 56)))
    result = run(examples, batch_per_device=2)
    np.testing.assert_array_equal(result.confusion, by_hand(examples))
    assert set(result.images) == {key for key, *_ in examples}
    assert result.miou == metrics.mean_iou(by_hand(examples))


@pytest.mark.parametrize("devices, batch", [(1, 1), (1, 3), (2, 1)])
def test_devices_and_batches_change_nothing(devices, batch):
    examples = drawn(5)
    want = run(examples, devices=jax.devices()[:1])
    got = run(examples, devices=jax.devices()[:devices], batch_per_device=batch)
    np.testing.assert_array_equal(got.confusion, want.confusion)
    assert got.images == want.images


def test_weights_are_left_as_they_were():
    model = ByColour()
    before = np.asarray(model.colours[...]).copy()
    run(drawn(2), model=model)
    np.testing.assert_array_equal(model.colours[...], before)


def test_panels_are_evenly_spaced_and_show_what_was_scored():
    examples = drawn(9)
    result = run(examples, panels=3, batch_per_device=2)
    assert [panel.key for panel in result.panels] == ["fake/001", "fake/004", "fake/007"]
    _, image, label = examples[4]
    np.testing.assert_array_equal(result.panels[1].image, image)
    np.testing.assert_array_equal(result.panels[1].label, label)
    wrong = (result.panels[1].predicted != label) & (label != IGNORE)
    assert wrong.mean() < 0.2


@pytest.mark.parametrize(
    "count, n, want", [(0, 6, []), (1, 6, [0]), (4, 6, [0, 1, 2, 3]), (233, 3, [38, 116, 194])]
)
def test_evenly_spaced_indices(count, n, want):
    assert evenly_spaced(count, n) == want


def test_a_model_of_other_classes_is_scored_in_the_space_both_reduce_to():
    examples = [
        (key, image, reduction("cityscapes19", "camvid11")[label]) for key, image, label in drawn(4)
    ]
    result = run(examples, label_space="camvid11")
    assert result.space.name == "camvid11"
    assert [score.name for score in result.scores] == ["11"]
    assert result.panels[0].predicted.max() < 11
    fine = by_hand(drawn(4))
    lookup = reduction("cityscapes19", "camvid11")
    want = metrics.merge(fine, classes=11, rows=lookup, columns=lookup)[:, :-1]
    np.testing.assert_array_equal(result.confusion, want)


def test_nineteen_classes_give_four_rows():
    result = run(drawn(3))
    assert [score.name for score in result.scores] == ["19", "16", "11", "7"]
    numbers = result.numbers()
    assert numbers["miou"] == result.miou
    assert {"miou_16", "miou_11", "miou_7", "accuracy", "iou/sky"} <= set(numbers)


def test_sixteen_classes_are_averaged_over_the_matrix_of_nineteen():
    matrix = np.diag(np.full(19, 10))
    matrix[0, 9] = 10  # half of the road is taken for terrain, which is none of the sixteen
    nineteen, sixteen, *_ = metrics.score(matrix, "cityscapes19", "cityscapes19")
    assert sixteen.miou == pytest.approx((0.5 + 15) / 16)
    assert nineteen.miou == pytest.approx((0.5 + 0.5 + 17) / 19)


def test_cityscapes_counts_an_absent_but_predicted_class_as_zero():
    label = np.zeros((8, 8), np.uint8)
    image = np.full((8, 8, 3), SPACE.colours[0], np.uint8)
    image[:4] = SPACE.colours[1]
    examples = [("a", image, label)]
    assert run(examples, dataset="cityscapes/val").miou == pytest.approx(0.25)
    assert run(examples, dataset="bdd100k/val").miou == pytest.approx(0.5)


def test_the_clouds_protocol_scores_at_the_resized_size():
    protocol = protocols.get_protocol("clouds", short_side=50)
    examples = drawn(2, sizes=((40, 56),))
    result = run(examples, protocol=protocol)
    assert result.panels[0].label.shape == (50, 70)
    assert result.confusion.sum() == sum(
        (protocols.prepare_label(label, protocol) != IGNORE).sum() for *_, label in examples
    )


def test_an_input_size_is_scored_at_the_labels_own_size():
    protocol = protocols.get_protocol("native", size=(20, 28))
    examples = drawn(2, sizes=((40, 56),))
    result = run(examples, protocol=protocol)
    assert result.panels[0].image.shape == (20, 28, 3)
    assert result.panels[0].label.shape == (40, 56)
    assert result.confusion.sum() == sum((label != IGNORE).sum() for *_, label in examples)


def test_a_label_outside_the_classes_is_named():
    key, image, label = drawn(1)[0]
    label = label.copy()
    label[0, 0] = 37
    with pytest.raises(ValueError, match=r"fake/000: label has class id 37, outside 0\.\.18"):
        run([(key, image, label)])


def test_no_examples_is_an_error():
    with pytest.raises(ValueError, match="fake/val has no examples"):
        run([])


def test_label_spaces_without_common_classes_are_named():
    with pytest.raises(ValueError, match="'camvid11'.*'categories7' have no classes in common"):
        metrics.common_spaces("camvid11", "categories7")


def test_an_image_without_a_label_is_named():
    key, image, _ = drawn(1)[0]
    with pytest.raises(ValueError, match="fake/000 has no label"):
        run([(key, image, None)])
