import json

import msgpack
import numpy as np
import pytest

from clouds_jax.data import records
from clouds_jax.data.build import run
from clouds_jax.data.records import Example, RecordError

LOSSLESS = ("zstd", "zstd_delta")
JPEG_MEAN_ERROR = 4.0  # grey levels, on a smooth picture


def example(index=0, size=(9, 14)):
    rng = np.random.default_rng(index)
    return Example(
        f"test/{index}",
        rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        rng.integers(0, 19, size, dtype=np.uint8),
        origin={"file": f"{index}.png", "seed": index},
    )


def assert_equal(a, b):
    assert (a.key, a.origin) == (b.key, b.origin)
    for name in ("image", "label", "pseudo", "refined"):
        np.testing.assert_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("codec", LOSSLESS)
@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 5), (33, 50)])
def test_an_example_survives_its_record(codec, size):
    before = example(size=size)
    assert_equal(records.decode(records.encode(before, codec)), before)


def test_jpeg_is_close_and_smaller():
    y, x = np.mgrid[:96, :128]
    image = np.stack([y * 2, x, y + x], axis=-1).astype(np.uint8)
    record = records.encode(Example("a", image), "jpeg95")
    after = records.decode(record).image
    error = np.abs(after.astype(int) - image)
    assert error.mean() < JPEG_MEAN_ERROR
    assert len(record) < image.size / 5


def test_a_record_may_hold_maps_without_an_image():
    refined = np.full((4, 6), 3, np.uint8)
    before = Example("generated/p1", pseudo=refined + 1, refined=refined)
    after = records.decode(records.encode(before))
    assert_equal(after, before)
    assert after.size == (4, 6)


def test_maps_must_have_the_size_of_the_image():
    wrong = Example("a/1", np.zeros((4, 6, 3), np.uint8))
    # Past the type checker, which is there in tests only.
    object.__setattr__(wrong, "label", np.zeros((6, 4), np.uint8))
    with pytest.raises(RecordError, match=r"a/1: label is \(6, 4\), the image \(4, 6\)"):
        records.encode(wrong)


def test_an_empty_record_is_refused():
    with pytest.raises(RecordError, match="needs an image or a map"):
        records.encode(Example("a/1"))


def test_another_schema_version_is_refused_by_name(tmp_path):
    data = msgpack.unpackb(records.encode(example()))
    data["version"] = 2
    path = tmp_path / "train-00000-of-00001.array_record"
    with records.shard_writer(path) as writer:
        writer.write(msgpack.packb(data))
    with pytest.raises(RecordError, match="train-00000-of-00001.*has schema version 2, .* reads 1"):
        records.open_shards(str(path))[0]


def test_what_is_no_record_is_refused(tmp_path):
    with pytest.raises(RecordError, match="no record of this project"):
        records.decode(b"\xc1 nonsense")
    with pytest.raises(RecordError, match="no record of this project"):
        records.decode(msgpack.packb({"key": "a"}))


def test_an_unknown_codec_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="CODECS has no 'webp'; it has: zstd, zstd_delta, jpeg95"):
        records.encode(example(), "webp")


@pytest.mark.parametrize("shards", [1, 3, 5])
def test_examples_come_back_in_the_order_given_whatever_the_number_of_shards(tmp_path, shards):
    before = [example(i, (5 + i, 9)) for i in range(11)]
    paths = records.write_shards(before, tmp_path / "train", shards=shards)
    assert [path.name for path in paths][-1] == records.shard_name("train", shards - 1, shards)
    after = records.open_shards(str(tmp_path / "train-*.array_record"))
    assert len(after) == 11
    for a, b in zip(before, after, strict=True):
        assert_equal(a, b)


def test_the_same_examples_make_the_same_bytes(tmp_path):
    for stem in ("a", "b"):
        records.write_shards([example(i) for i in range(7)], tmp_path / stem, shards=2)
    for i in range(2):
        a, b = ((tmp_path / records.shard_name(stem, i, 2)).read_bytes() for stem in "ab")
        assert a == b


def test_a_failure_while_writing_leaves_no_file(tmp_path):
    def failing():
        yield example()
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        records.write_shards(failing(), tmp_path / "train", shards=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 10, 0.3, 0.9, -1])
def test_a_shard_cut_short_is_refused(tmp_path, keep):
    (path,) = records.write_shards([example(i) for i in range(4)], tmp_path / "a", shards=1)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(RecordError, match="a-00000-of-00001.*cut short"):
        records.open_shards(str(path))


def test_a_damaged_record_is_refused(tmp_path):
    (path,) = records.write_shards(
        [example(i, (40, 40)) for i in range(4)], tmp_path / "a", shards=1
    )
    data = bytearray(path.read_bytes())
    data[12_000:12_200] = bytes(200)  # within the second record
    path.write_bytes(bytes(data))
    shards = records.open_shards(str(path))
    with pytest.raises(RecordError, match="the file is damaged"):
        for i in range(len(shards)):
            shards[i]


def test_a_pattern_that_fits_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no shard fits"):
        records.open_shards(str(tmp_path / "x-*"))


def test_refs_name_a_dataset_and_perhaps_a_split():
    assert records.parse_ref("gta5") == ("gta5", "train")
    assert records.parse_ref("gta5", "val") == ("gta5", "val")
    assert records.parse_ref("camvid/test", "val") == ("camvid", "test")


class TestRefs:
    @pytest.fixture
    def root(self, tmp_path):
        run.build("fake", raw=None, output=tmp_path, split="val", shards=2, drawing={"count": 4})
        return tmp_path

    def test_a_ref_opens_the_shards_of_its_summary(self, root):
        assert len(records.open_ref("fake/val", root)) == 4

    def test_a_missing_build_is_answered_with_what_there_is_and_the_command(self, root):
        with pytest.raises(FileNotFoundError) as error:
            records.open_ref("camvid/test", root)
        assert "there is: fake/val" in str(error.value)
        assert f"clouds_jax.data.build camvid --split test --output {root}" in str(error.value)

    def test_a_shard_of_another_length_than_the_summary_says_is_refused(self, root):
        path = root / "fake" / records.shard_name("val", 1, 2)
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(RecordError, match="val-00001-of-00002.*bytes; its summary says"):
            records.open_ref("fake/val", root)
        path.unlink()
        with pytest.raises(RecordError, match="val-00001-of-00002.*is missing"):
            records.open_ref("fake/val", root)

    def test_a_summary_of_another_schema_version_is_refused(self, root):
        path = root / "fake/val.summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 7}))
        with pytest.raises(RecordError, match="has schema version 7, this code reads 1"):
            records.open_ref("fake/val", root)
