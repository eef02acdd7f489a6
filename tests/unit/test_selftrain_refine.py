"""Refinement on the device and on the host against the same steps written out one by one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from flax import nnx

from clouds_jax.nn.rngs import HostKeys
from clouds_jax.nn.sam.decoder import DecoderSize, PromptedMasks
from clouds_jax.selftrain import refine_device, refine_host, refine_rules

CLASSES = 5
SIZE = (48, 64)
SAM = DecoderSize(dim=32, heads=4, depth=2, ffn=32, grid=8, image=128)
SMALL = {
    name: dataclasses.replace(rules, min_area=30, num_points=3)
    for name, rules in refine_rules.PRESETS.items()
}


@pytest.fixture(scope="module")
def sam():
    model = PromptedMasks(SAM, rngs=HostKeys(0))
    # masks of a random model cover nothing or all; this makes them differ from place to place
    for layer in model.mask_decoder.mask_maps:
        layer[-1].kernel[...] = 20 * layer[-1].kernel[...]
    return model


def label_map(seed):
    """Regions with rough borders, some below the smallest area, some ignored pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, CLASSES, (6, 8)).astype(np.uint8)
    label = coarse.repeat(8, 0).repeat(8, 1)
    rough = rng.random(label.shape) < 0.08
    label[rough] = rng.integers(0, CLASSES, rough.sum())
    label[:3, :9] = 255
    return label


def by_hand(sam, embedding, label, bits, rules):
    """Spec 4.5 step by step, with scipy; the decoder alone is shared."""
    masks, classes = [], []
    for value in range(CLASSES):
        regions, count = scipy.ndimage.label(label == value)
        for region in range(1, count + 1):
            inside = np.argwhere(regions == region)
            if len(inside) <= rules.min_area:
                continue
            left, chosen = list(range(len(inside))), []
            for number in bits[len(classes)]:
                chosen.append(left.pop(int(number) % len(left)))
            masks.append(ask(sam, embedding, inside[chosen][None, :, ::-1])[0])
            classes.append(value)
    if not masks:
        return label, np.array([(label == k).any() for k in range(CLASSES)])
    masks, classes = np.stack(masks), np.array(classes)
    out = np.full(SIZE, 255, np.uint8)
    present = np.zeros(CLASSES, bool)
    for value in np.unique(classes):
        union = np.zeros(SIZE, bool)
        for i in np.flatnonzero(classes == value):
            others = np.arange(len(classes)) != i
            if rules.overlap == "classes":
                others = classes != value
            union |= masks[i] & ~masks[others].any(0)
        out[union] = value
        present[value] = union.any() or rules.emptied == "keep"
    return out, present


def ask(sam, embedding, points):
    """SAM's masks for pixels (x, y) of the image, prompt by prompt."""
    scaled = points.astype(np.float32) * np.float32(SAM.image / max(SIZE))
    kinds = np.ones((1, points.shape[1]), np.int32)
    masks = [decode(sam, embedding, one[None], kinds)[0] for one in scaled]
    return np.asarray(masks)


def decode(sam, embedding, points, kinds):
    graphdef, state = nnx.split(sam)
    return _decode(graphdef, state, *map(jnp.asarray, (embedding, points, kinds)))


@functools.partial(jax.jit, static_argnums=0)
def _decode(graphdef, state, *args):
    return refine_device.best_masks(nnx.merge(graphdef, state), *args, SIZE)


@pytest.mark.parametrize(
    "name",
    [n if n == "release" else pytest.param(n, marks=pytest.mark.slow) for n in SMALL],
)
def test_it_equals_the_steps_by_hand_for_the_same_random_numbers(sam, name):
    rules = SMALL[name]
    labels = np.stack([label_map(seed) for seed in range(3)])
    labels[2] = label_map(2) * 0 + (np.indices(SIZE).sum(0) % 2)  # nothing large enough
    rng = np.random.default_rng(3)
    embeddings = rng.normal(size=(3, SAM.grid, SAM.grid, SAM.dim)).astype(np.float32)
    bits = np.asarray(refine_device.draws(jax.random.split(jax.random.key(0), 3), SIZE, rules))
    graphdef, state = nnx.split(sam)

    @jax.jit
    def run(state, *arrays):
        model = nnx.merge(graphdef, state)
        return refine_device.refine_labels(model, *arrays, rules=rules, classes=CLASSES, chunk=4)

    found = run(state, embeddings, labels, bits)
    counts = []
    for i in range(3):
        label, present = by_hand(sam, embeddings[i], labels[i], bits[i], rules)
        np.testing.assert_array_equal(found.label[i], label)
        np.testing.assert_array_equal(found.present[i], present)
        masks = functools.partial(ask, sam, embeddings[i])
        offline = refine_host.refine_label(labels[i], bits[i], masks, rules=rules, classes=CLASSES)
        np.testing.assert_array_equal(offline.label, label)
        np.testing.assert_array_equal(offline.present, present)
        n = len(offline.points)
        np.testing.assert_array_equal(offline.points, found.points[i, :n])
        np.testing.assert_allclose(offline.overlapped.mean(), found.overlapped[i], atol=1e-6)
        counts.append(int(found.components[i]))
    assert counts[0] > 4 and counts[1] > 4  # more than one chunk
    assert counts[2] == 0 and (np.asarray(found.label[2]) == labels[2]).all()
    shares = found.confirmed + found.changed + found.dropped
    np.testing.assert_allclose(shares, 1, atol=1e-6)


def claims_of(masks, classes, xp):
    claims = refine_rules.no_claims(masks.shape[1:], xp)
    return refine_rules.claim(claims, xp.asarray(masks), xp.asarray(classes), xp)


@pytest.mark.parametrize("name", refine_rules.PRESETS)
def test_numpy_and_jax_give_the_same(name):
    rules = refine_rules.PRESETS[name]
    rng = np.random.default_rng(0)
    masks, classes = rng.random((7, 9, 11)) < 0.3, rng.integers(0, CLASSES, 7).astype(np.uint8)
    teacher = rng.integers(0, CLASSES, (9, 11)).astype(np.uint8)
    results = []
    for xp in (np, jnp):
        label = refine_rules.resolve(claims_of(masks, classes, xp), rules, xp)
        valid = xp.asarray(np.arange(7) < 6)
        results.append(
            refine_rules.targets(
                xp.asarray(teacher), label, xp.asarray(classes), valid, rules, CLASSES, xp
            )
        )
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


# three masks in a row of six pixels: class 1, class 1, class 2
MASKS = np.array([[[1, 1, 0, 0, 0, 0]], [[0, 1, 1, 1, 0, 0]], [[0, 0, 0, 1, 1, 0]]], bool)
IDS = np.array([1, 1, 2], np.uint8)


@pytest.mark.parametrize(
    "overlap, expected", [("any", [1, 255, 1, 255, 2, 255]), ("classes", [1, 1, 1, 255, 2, 255])]
)
def test_overlaps_within_and_across_classes(overlap, expected):
    rules = refine_rules.RefineRules(overlap=overlap)
    assert refine_rules.resolve(claims_of(MASKS, IDS, np), rules)[0].tolist() == expected


@pytest.mark.parametrize(
    "emptied, expected", [("keep", [False, True, True]), ("drop", [False, True, False])]
)
def test_a_class_whose_masks_were_all_dropped(emptied, expected):
    rules = refine_rules.RefineRules(emptied=emptied)
    masks = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]], [[0, 1, 1, 0]]], bool)
    ids, valid = np.array([1, 2, 2], np.uint8), np.ones(3, bool)
    label = refine_rules.resolve(claims_of(masks, ids, np), rules)
    _, present = refine_rules.targets(np.zeros((1, 4), np.uint8), label, ids, valid, rules, 3)
    assert present.tolist() == expected


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="overlap is 'none'; allowed are: any, classes"):
        refine_rules.RefineRules(overlap="none")


@pytest.mark.parametrize("area, kept", [(5000, False), (5001, True)])
def test_a_component_of_exactly_the_smallest_area_is_dropped(area, kept):
    label = np.full((120, 120), 255, np.uint8)
    label.reshape(-1)[:area] = 3  # whole rows and a piece: connected
    found = refine_host.large_components(label, min_area=5000)
    assert (found.label.tolist(), found.area.tolist()) == (([3], [area]) if kept else ([], []))
    refined = refine_host.refine_label(
        label,
        refine_host.draws(0, 0, label.shape, refine_rules.PRESETS["release"]),
        lambda points: np.ones((len(points), *label.shape), bool),
        rules=refine_rules.PRESETS["release"],
        classes=5,
    )
    # with no component left the teacher's own label is taken
    expected = np.full_like(label, 3) if kept else label
    np.testing.assert_array_equal(refined.label, expected)
    assert refined.present.tolist() == [False, False, False, True, False]


def test_diagonal_neighbours_are_two_components():
    label = np.full((20, 20), 255, np.uint8)
    label[:10, :10] = label[10:, 10:] = 2
    assert refine_host.large_components(label, min_area=50).area.tolist() == [100, 100]


def test_a_label_that_is_ignored_everywhere_has_no_component_and_stays():
    label = np.full((20, 30), 255, np.uint8)
    rules = SMALL["fixed"]
    found = refine_host.refine_label(
        label, refine_host.draws(0, 0, label.shape, rules), np.zeros_like, rules=rules, classes=4
    )
    assert (found.label == 255).all() and not found.present.any() and not len(found.points)


def test_points_on_the_host_are_distinct_and_inside_and_depend_on_the_image():
    label = label_map(0)
    found = refine_host.large_components(label, 30)
    rules = SMALL["fixed"]
    points = [
        refine_host.random_points(found, refine_host.draws(0, i, SIZE, rules)) for i in (0, 1)
    ]
    assert (points[0] != points[1]).any()
    for slot, own in enumerate(points[0]):
        assert len({tuple(p) for p in own}) == rules.num_points
        assert (found.slot[own[:, 1], own[:, 0]] == slot).all()


def test_statistics_add_up():
    rules = SMALL["release"]
    label = label_map(1)
    half = np.zeros(SIZE, bool)
    half[:, :32] = True
    after = refine_host.refine_label(
        label,
        refine_host.draws(0, 0, SIZE, rules),
        lambda points: np.stack([half] + [~half] * (len(points) - 1)),
        rules=rules,
        classes=CLASSES,
    )
    names = tuple("abcde")
    found = refine_host.statistics(label, after, names)
    assert found["components"] == len(after.points) > 2
    assert found["confirmed"] + found["changed"] + found["dropped"] == label.size
    assert found["dropped"] == found["overlapped"] == label.size // 2
    for name in ("teacher", "confirmed", "components"):
        assert found[name] == sum(found.get(f"{name}/{c}", 0) for c in names)
    # one class keeps its half, the others are targets without a pixel
    assert found["emptied"] == after.present.sum() - 1


def test_a_map_too_small_for_any_component_keeps_its_label(sam):
    rules = refine_rules.RefineRules(min_area=SIZE[0] * SIZE[1], num_points=3)
    label, keys = label_map(0), jax.random.split(jax.random.key(0), 1)
    bits = refine_device.draws(keys, SIZE, rules)
    embedding = jnp.zeros((1, SAM.grid, SAM.grid, SAM.dim))
    graphdef, state = nnx.split(sam)

    @jax.jit
    def run(state, label):
        return refine_device.refine_labels(
            nnx.merge(graphdef, state), embedding, label, bits, rules=rules, classes=CLASSES
        )

    found = run(state, label[None])
    np.testing.assert_array_equal(found.label[0], label)
    assert int(found.components[0]) == 0
