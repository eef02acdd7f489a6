"""Generated images as student and teacher see them, and the embeddings that go with them."""

import itertools

import numpy as np
import pytest

from clouds_jax.data import embeddings, records
from clouds_jax.data.build import run
from clouds_jax.data.generated import View, fit, generated_batches
from clouds_jax.stages import embed, shard_set

SIZE = (64, 96)
REF, SAM = "fake/train", "sam_debug"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    run.build("fake", raw=None, output=root, split="train", shards=2)
    return root


@pytest.fixture(scope="module")
def embedded(shards):
    done = shard_set.fill(embed.Embed(shards, REF, SAM, SIZE), progress=False)
    assert done == len(records.open_ref(REF, shards))
    return shards


def batches(shards, n, **settings):
    view = View(SIZE, **settings)
    found = generated_batches({REF: 2}, view, shards_root=shards, seed=3, threads=0)
    return list(itertools.islice(iter(found), n))


def test_an_image_of_the_wanted_size_stays_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    np.testing.assert_array_equal(fit(image, SIZE), image)


@pytest.mark.parametrize("size", [(64, 200), (300, 96), (50, 60), (641, 333)])
def test_other_sizes_are_scaled_and_cut_in_the_middle(size):
    image = np.zeros((*size, 3), np.uint8)
    image[size[0] // 2 - 2 : size[0] // 2 + 2, size[1] // 2 - 2 : size[1] // 2 + 2] = 255
    out = fit(image, SIZE)
    assert out.shape == (*SIZE, 3)
    assert out[SIZE[0] // 2, SIZE[1] // 2].min() > 100 and out[0, 0].max() == 0
    assert set(np.unique(fit(image[..., 0], SIZE))) <= {0, 255}  # maps are not blended


def test_student_and_teacher_see_the_same_image_in_other_colours(shards):
    for batch in batches(shards, 3):
        assert batch["image"].shape == batch["clean"].shape == (2, *SIZE, 3)
        assert (batch["image"] != batch["clean"]).any()
    for batch in batches(shards, 2, colour=False):
        assert set(batch) == {"image"}


def test_the_embedding_is_that_of_the_image_as_it_was_flipped(embedded):
    source = records.open_ref(REF, embedded)
    stored = embeddings.Embeddings(embedded, REF, SAM, SIZE)
    seen = set()
    for batch in batches(embedded, 12, sam=SAM):
        for clean, embedding in zip(batch["clean"], batch["embedding"], strict=True):
            matches = [
                (i, bool(mirrored))
                for i, example in enumerate(source)
                for mirrored in (0, 1)
                if np.array_equal(fit(example.image, SIZE)[:, :: 1 - 2 * mirrored], clean)
            ]
            assert any(np.array_equal(stored[i].values[int(m)], embedding) for i, m in matches)
            seen |= {m for _, m in matches}
    assert seen == {False, True}


def test_the_same_seed_gives_the_same_batches(shards):
    for one, two in zip(batches(shards, 3), batches(shards, 3), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


def test_what_is_embedded_is_not_embedded_again(embedded):
    paths = embeddings.shard_paths(embedded, REF, SAM, SIZE, 2)
    before = [path.read_bytes() for path in paths]
    paths[1].unlink()
    done = shard_set.fill(embed.Embed(embedded, REF, SAM, SIZE), progress=False)
    assert 0 < done < len(records.open_ref(REF, embedded))
    assert [path.read_bytes() for path in paths] == before


def test_missing_embeddings_are_named_with_the_command_that_makes_them(embedded):
    with pytest.raises(FileNotFoundError, match="no complete embeddings of mobile_sam at 64x96"):
        batches(embedded, 1, sam="mobile_sam")


def test_embeddings_of_other_images_are_refused(embedded, tmp_path):
    root = tmp_path / "shards"
    run.build("fake", raw=None, output=root, split="train", shards=2)
    for path in embeddings.shard_paths(embedded, REF, SAM, SIZE, 2):
        (root / "fake" / path.name).write_bytes(path.read_bytes())
    stem = root / "fake"
    first, second = sorted(stem.glob("train.sam_debug*.array_record"))
    swapped = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(swapped)
    with pytest.raises(ValueError, match="its embedding is of another image"):
        batches(root, 1, sam=SAM)


def label(shards, name, *, kind="refined", targets=None, change=lambda i, example: example):
    """Writes labels of the images of REF: image i has class i modulo 3 everywhere but a corner."""
    examples = []
    for i, example in enumerate(records.open_ref(REF, shards)):
        values = np.full(example.size, i % 3, np.uint8)
        values[: values.shape[0] // 2, : values.shape[1] // 2] = 7
        made = records.Example(example.key, targets=targets, **{kind: values})
        examples.append(change(i, made))
    folder = shard_set.Folder(
        shards, name, stage="label", parameters={}, inputs={}, examples=len(examples), shards=2
    )
    for shard in range(2):
        made = (records.encode(examples[i]) for i in folder.indices(shard))
        folder.write(shard, ((data, {}) for data in made))
    folder.finish()


def test_labels_lie_in_shards_beside_the_images(shards):
    label(shards, "fake.refined/train")
    seen = set()
    for batch in batches(shards, 6, label="refined", classes=19):
        assert set(batch) == {"image", "label", "present"}
        for values, present in zip(batch["label"], batch["present"], strict=True):
            assert present.shape == (19,)
            assert set(np.flatnonzero(present)) == set(np.unique(values))
            seen.add((7 == values[0, 0], 7 == values[0, -1]))  # mirrored with the image
    assert seen == {(True, False), (False, True)}


def test_a_target_without_a_pixel_is_one(shards):
    label(shards, "fake.refined-2/train", targets=(0, 1, 2, 5, 7))
    (batch,) = batches(shards, 1, label="refined-2", classes=19)
    assert [np.flatnonzero(p).tolist() for p in batch["present"]] == [[0, 1, 2, 5, 7]] * 2
    label(shards, "fake.pseudo/train", kind="pseudo")
    (batch,) = batches(shards, 1, label="pseudo", classes=19)
    assert batch["present"].sum(1).tolist() == [2, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda i, one: records.Example("other", refined=one.refined),
        lambda i, one: records.Example(one.key, refined=one.refined[:-1]),
        lambda i, one: records.Example(one.key, pseudo=one.refined),
    ],
    ids=["key", "size", "kind"],
)
def test_labels_of_other_images_are_refused(shards, change, request):
    name = f"refined-{request.node.callspec.id}"
    label(shards, f"fake.{name}/train", change=change)
    with pytest.raises(ValueError, match=f"its {name} label is .*porting refine"):
        batches(shards, 1, label=name, classes=19)


def test_labels_that_are_not_there_are_named(shards):
    with pytest.raises(FileNotFoundError, match="fake.refined-9/train"):
        batches(shards, 1, label="refined-9", classes=19)
    with pytest.raises(ValueError, match="allowed are 'pseudo' and 'refined'"):
        View(SIZE, label="label", classes=19)
