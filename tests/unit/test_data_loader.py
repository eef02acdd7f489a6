import dataclasses
import itertools

import numpy as np
import pytest
import raw_layouts

from clouds_jax.data import loader
from clouds_jax.data.augment import Augmentation
from clouds_jax.data.build import run
from clouds_jax.data.classes import SPACES, reduction
from clouds_jax.data.loader import __main__ as program
from clouds_jax.data.loader import train_batches
from clouds_jax.data.part import Part

CROP = (24, 40)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Fake pictures in two splits, CamVid pictures, and pictures without labels."""
    root, raw = tmp_path_factory.mktemp("shards"), tmp_path_factory.mktemp("raw")
    for split, count in (("train", 10), ("val", 7)):
        run.build("fake", raw=None, output=root, split=split, drawing={"count": count}, shards=2)
    raw_layouts.write_camvid(raw, 5)
    run.build("camvid", raw=raw, output=root, split="train")
    run.build("folder", raw=raw / "camvid/train/images", output=root, split="mine")
    return root


SETTINGS = {field.name for field in dataclasses.fields(Augmentation)}


def batches(shards, refs, count=3, *, threads=0, **options):
    settings = {name: options.pop(name) for name in SETTINGS & set(options)}
    augmentation = Augmentation(**dict(crop=CROP) | settings)
    dataset = train_batches(refs, augmentation, shards_root=shards, threads=threads, **options)
    return list(itertools.islice(dataset, count))


def assert_equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x["image"], y["image"])
        np.testing.assert_array_equal(x["label"], y["label"])


def test_batches_have_the_crop_s_shape_and_bytes(shards):
    (batch,) = batches(shards, {"fake": 4}, 1)
    assert batch["image"].shape == (4, *CROP, 3) and batch["image"].dtype == np.uint8
    assert batch["label"].shape == (4, *CROP) and batch["label"].dtype == np.uint8
    assert set(np.unique(batch["label"])) <= {*range(19), 255}


def test_the_same_call_yields_the_same_batches_with_threads_or_without(shards):
    first = batches(shards, {"fake": 3}, 6)
    assert_equal(first, batches(shards, {"fake": 3}, 6))
    assert_equal(first, batches(shards, {"fake": 3}, 6, threads=3, prefetch=2))


def test_another_seed_yields_other_batches(shards):
    a, b = (batches(shards, {"fake": 3}, 1, seed=seed)[0]["image"] for seed in (0, 1))
    assert (a != b).any()


def test_an_element_of_the_stream_is_a_function_of_its_index(shards):
    stream = loader._examples("fake/train", 2, Augmentation(CROP), shards, "cityscapes19", 0)
    late = stream[17]
    stream[3]
    np.testing.assert_array_equal(stream[17]["image"], late["image"])
    # 10 examples: 7 and 17 may be one picture in two epochs, never with one augmentation.
    assert (stream[7]["image"] != late["image"]).any()


def test_every_example_occurs_once_per_epoch(shards):
    plain = dict(crop=(96, 128), scale=(1.0, 1.0), flip=0.0, colour=False)
    epochs = batches(shards, {"fake": 5}, 4, **plain)
    for epoch in (epochs[:2], epochs[2:]):
        pictures = {image.tobytes() for batch in epoch for image in batch["image"]}
        assert len(pictures) == 10
    assert (epochs[0]["image"] != epochs[2]["image"]).any()


@pytest.mark.parametrize("refs", [{"fake": 3}, {"fake": 2, "fake/val": 2}])
@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("start", [1, 4])  # an epoch of three has three batches
def test_the_batches_go_on_from_any_of_them(shards, refs, threads, start):
    straight = batches(shards, refs, 7, threads=threads)
    assert_equal(batches(shards, refs, 3, threads=threads, start=start), straight[start:][:3])


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("start", [0, 2])
def test_the_rows_of_all_processes_are_the_batch_of_one(shards, processes, start):
    refs = {"fake": 4, "fake/val": 2}  # three processes divide neither
    whole = batches(shards, refs, 5, start=start)
    parts = [batches(shards, refs, 5, part=Part(i, processes), start=start)
             for i in range(processes)]  # fmt: skip
    for batch, *own in zip(whole, *parts, strict=True):
        for name in batch:
            assert {len(x[name]) for x in own} == {6 // processes}
            np.testing.assert_array_equal(np.concatenate([x[name] for x in own]), batch[name])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_rows_behind_the_examples_repeat_the_last_one(shards, processes):
    refs = {"fake": 2, "fake/val": 1}
    whole = batches(shards, refs, 3)
    parts = [batches(shards, refs, 3, part=Part(i, processes), rows=8) for i in range(processes)]
    for batch, *own in zip(whole, *parts, strict=True):
        for name in batch:
            padded = np.concatenate([batch[name], *[batch[name][-1:]] * 5])
            np.testing.assert_array_equal(np.concatenate([x[name] for x in own]), padded)


def test_a_batch_holds_the_asked_number_of_each_dataset_in_order(shards):
    plain = dict(crop=(96, 128), scale=(1.0, 1.0), flip=0.0, colour=False)
    train, val = (
        {image.tobytes() for batch in batches(shards, {ref: 1}, n, **plain) for image in
         batch["image"]}
        for ref, n in (("fake/train", 10), ("fake/val", 7))
    )  # fmt: skip
    for batch in batches(shards, {"fake/val": 1, "fake/train": 3}, 6, **plain):
        where = [image.tobytes() in train for image in batch["image"]]
        assert where == [False, True, True, True]
        assert batch["image"][0].tobytes() in val


def test_labels_are_reduced_to_the_label_space_of_the_run(shards):
    plain = dict(crop=(96, 128), scale=(1.0, 1.0), flip=0.0, colour=False)
    (fine,) = batches(shards, {"fake": 3}, 1, **plain)
    (coarse,) = batches(shards, {"fake": 3}, 1, label_space="camvid11", **plain)
    table = reduction("cityscapes19", "camvid11")
    np.testing.assert_array_equal(coarse["label"], table[fine["label"]])
    with pytest.raises(KeyError, match="'camvid11' do not reduce to 'cityscapes19'"):
        batches(shards, {"camvid": 2})


def test_the_jitter_size_is_the_image_s_own_where_none_is_given(shards):
    # Fake pictures are 96 x 128: at factor 1 with jitter size 24 x 32 a crop of that holds all.
    plain = dict(crop=(24, 32), scale=(1.0, 1.0), flip=0.0, colour=False)
    small = batches(shards, {"fake": 2}, 1, jitter_size=(24, 32), **plain)
    large = batches(shards, {"fake": 2}, 1, **plain)
    assert (small[0]["image"] != large[0]["image"]).any()
    own = batches(shards, {"fake": 2}, 1, jitter_size=(96, 128), **plain)
    assert_equal(large, own)


@pytest.mark.parametrize(
    "refs, options, message",
    [
        ({}, {}, "refs is empty"),
        ({"fake": 0}, {}, "takes 0 images"),
        ({"fake": 2, "fake/val": 0}, {}, "fake/val: 0.*at least one of each"),
        ({"fake": 3}, {"part": Part(0, 2)}, "multiple of the 2 processes"),
        ({"fake": 11}, {}, "fake/train has 10 examples, a batch takes 11"),
        ({"folder/mine": 2}, {}, "folder/mine has no labels"),
    ],
)
def test_impossible_batches_are_refused(shards, refs, options, message):
    with pytest.raises(ValueError, match=message):
        batches(shards, refs, **options)


def test_a_dataset_that_was_not_built_is_named(shards):
    with pytest.raises(FileNotFoundError, match="gta5/train: no .*clouds_jax.data.build gta5"):
        batches(shards, {"gta5": 2})


def test_the_program_prints_keys_shapes_shares_and_draws_a_panel(shards, tmp_path, capsys):
    panel = tmp_path / "panel.png"
    options = ["--shards", str(shards), "--ref", "camvid/train", "--crop", "24", "40"]
    program.main([*options, "--output", str(panel)])
    printed = capsys.readouterr().out
    assert "(4, 24, 40, 3)" in printed and "uint8" in printed
    assert all(name in printed for name in SPACES["camvid11"].names)
    assert panel.stat().st_size > 1_000
    assert [path.name for path in tmp_path.iterdir()] == ["panel.png"]


def test_the_program_takes_a_config(shards, tmp_path, capsys, root):
    config = f"{root}/configs/warmup_gta.py:debug"
    program.main(["--config", config, "--shards", str(shards), "--output", str(tmp_path / "p.png")])
    assert "image" in capsys.readouterr().out


def test_the_program_names_what_is_missing(shards):
    with pytest.raises(SystemExit, match="^loader: gta5/train: no "):
        program.main(["--shards", str(shards), "--ref", "gta5/train"])
