"""The set loss against the PyTorch criterion, on the same points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from clouds_jax.losses import matching, points, segmentation  # noqa: E402
from clouds_jax.ops import masks  # noqa: E402
from clouds_jax.typing import Prediction, Targets  # noqa: E402
from porting.reference import criterion  # noqa: E402

pytestmark = pytest.mark.parity

TERM = 1e-4  # relative, float32 sums in another order
COST = 1e-4  # absolute
GRADIENT = 1e-4  # of the norm of a tensor
# A logit near the threshold of uncertainty may be chosen on one side only, and no value of ours
# is exact at a cell border of the bilinear map: single elements differ, norms do not.

QUERIES, CLASSES, OUTPUTS, NUM_POINTS = 23, 7, 4, 160
COUNTS = points.Counts.of(NUM_POINTS, oversample=3.0, importance=0.75)
WEIGHTS = matching.LossWeights()


@pytest.fixture(scope="module")
def case():
    """Three images: absent classes and ignored pixels, no target at all, one class everywhere."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, (3, 11, 9)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    label[0][label[0] == 2] = 255
    label[0][label[0] == CLASSES - 1] = 0
    label[1] = 255
    label[2] = 5
    label[2, :7] = 255
    class_logits = rng.normal(size=(OUTPUTS, 3, QUERIES, CLASSES + 1)).astype(np.float32)
    mask_logits = 2 * rng.normal(size=(OUTPUTS, 3, 11, 9, QUERIES)).astype(np.float32)
    prediction = Prediction(jnp.asarray(class_logits), jnp.asarray(mask_logits))
    label = jnp.asarray(label)
    targets = Targets(label, masks.present_classes(label, CLASSES))
    return prediction, targets, jax.random.split(jax.random.key(3), 3)


def reference(prediction, targets, keys, dtype=torch.float32):
    """The criterion's value, its terms and the leaves that gradients go to."""
    class_logits = tensor(prediction.class_logits, dtype).requires_grad_()
    mask_logits = tensor(prediction.mask_logits, dtype).permute(0, 1, 4, 2, 3).contiguous()
    mask_logits.requires_grad_()
    wanted = criterion.targets_of(tensor(targets.label), CLASSES)
    where = reference_points(wanted, keys, len(class_logits), dtype)
    total, terms = criterion.criterion(
        list(class_logits), list(mask_logits), wanted, where, uncertain=COUNTS.uncertain
    )
    return total, terms, (class_logits, mask_logits)


def reference_points(wanted, keys, outputs, dtype=torch.float32, counts=COUNTS, classes=CLASSES):
    """Our points, as the lists the criterion takes."""
    where = []
    for output in range(outputs):
        match = tensor(points.match_points(keys, output, counts.uncertain + counts.random), dtype)
        drawn = points.draw(keys, output, classes, counts)
        candidates, random = tensor(drawn.candidates, dtype), tensor(drawn.random, dtype)
        where.append(
            [
                criterion.Points(match[i], candidates[i][t.classes], random[i][t.classes])
                for i, t in enumerate(wanted)
            ]
        )
    return where


def tensor(array, dtype=None):
    out = torch.from_numpy(np.array(array))
    return out if dtype is None else out.to(dtype)


def loss(prediction, targets, keys):
    return segmentation.set_loss(prediction, targets, keys, num_points=NUM_POINTS)


def test_costs_equal_the_reference(case):
    prediction, targets, keys = case
    where = points.match_points(keys, 2, NUM_POINTS)
    ours = matching.match_costs(
        prediction.class_logits[2], prediction.mask_logits[2], targets, where, weights=WEIGHTS
    )
    for image, target in enumerate(criterion.targets_of(tensor(targets.label), CLASSES)):
        costs = criterion.pair_costs(
            tensor(prediction.class_logits[2, image]),
            tensor(prediction.mask_logits[2, image]).permute(2, 0, 1),
            target,
            tensor(where[image]),
        )
        np.testing.assert_allclose(ours[image][:, target.classes.numpy()], costs, atol=COST)


def test_the_matching_is_that_of_scipy(case):
    prediction, targets, keys = case
    ours = matching.match(prediction, targets, keys, weights=WEIGHTS, num_points=NUM_POINTS)
    wanted = criterion.targets_of(tensor(targets.label), CLASSES)
    where = reference_points(wanted, keys, OUTPUTS)
    for output in range(OUTPUTS):
        pairs = criterion.match(
            tensor(prediction.class_logits[output]),
            tensor(prediction.mask_logits[output]).permute(0, 3, 1, 2),
            wanted,
            where[output],
        )
        theirs = np.full((3, CLASSES), -1)
        for image, (query, mask) in enumerate(pairs):
            theirs[image, wanted[image].classes[mask]] = query
        np.testing.assert_array_equal(ours[output], theirs)


def test_all_terms_equal_the_reference(case):
    total, terms, _ = reference(*case)
    ours, metrics = jax.jit(loss)(*case)
    assert sorted(metrics) == sorted(terms)
    np.testing.assert_allclose(ours, total.item(), rtol=TERM)
    for name, term in terms.items():
        np.testing.assert_allclose(metrics[name], term.item(), rtol=TERM, err_msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_the_logits_equal_the_reference(case, dtype):
    total, _, leaves = reference(*case, dtype)
    theirs = torch.autograd.grad(total, leaves)
    grad = jax.jit(jax.grad(lambda *args: loss(*args)[0]))(*case)
    ours = grad.class_logits, grad.mask_logits.transpose(0, 1, 4, 2, 3)
    for mine, other in zip(ours, theirs, strict=True):
        difference = np.linalg.norm(mine - other.numpy()) / np.linalg.norm(other.numpy())
        assert difference < GRADIENT
