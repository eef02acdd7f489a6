import json
import subprocess
import sys

import numpy as np
import pytest
import raw_layouts
from PIL import Image
from raw_layouts import LAYOUTS

from clouds_jax import folder_lock
from clouds_jax.data import records
from clouds_jax.data.build import __main__ as program
from clouds_jax.data.build import jobs, workspace
from clouds_jax.data.build import run as build
from clouds_jax.data.build import shards as convert
from clouds_jax.data.build.summary import describe
from clouds_jax.data.build.workspace import BuildError
from clouds_jax.data.datasets import get_dataset
from clouds_jax.data.records import open_ref
from clouds_jax.images import BadImage, read_image


def build_camvid(raw, output, **options):
    return build.build("camvid", raw=raw, output=output, split="train", **options)


def files(root):
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture
def raw(tmp_path):
    raw_layouts.write_camvid(tmp_path / "raw", 9)
    return tmp_path / "raw"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "shards"


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_download_is_built(tmp_path, layout):
    label = raw_layouts.write_layout(tmp_path / "raw", layout)
    build.build(layout.dataset, raw=tmp_path / "raw", output=tmp_path / "out", split=layout.split)
    (example,) = open_ref(f"{layout.dataset}/{layout.split}", tmp_path / "out")
    assert example.key == layout.key
    np.testing.assert_array_equal(example.label, label)
    if layout.image.endswith(".png"):
        np.testing.assert_array_equal(example.image, raw_layouts.picture())


def test_the_summary_counts_what_is_in_the_shards(raw, output):
    summary = build_camvid(raw, output, shards=2)
    assert summary == json.loads((output / "camvid/train.summary.json").read_text())
    assert summary["examples"] == 9 and summary["expected"] == 367
    assert summary["sizes"] == {"10x14": 9}
    # Half of the pixels of each picture are void, half the class of its number.
    assert summary["ignored"] == pytest.approx(0.5)
    assert summary["classes"]["sky"] == {"share": pytest.approx(1 / 9), "images": 1}
    assert summary["classes"]["pedestrian"] == {"share": 0.0, "images": 0}
    assert [shard["examples"] for shard in summary["shards"]] == [5, 4]
    path = output / "camvid" / summary["shards"][0]["name"]
    assert path.stat().st_size == summary["shards"][0]["bytes"]
    assert {path.name for path in (output / "camvid").iterdir()} == {
        "train.summary.json",
        *(records.shard_name("train", i, 2) for i in range(2)),
    }


def test_the_files_do_not_depend_on_the_number_of_workers(raw, output, tmp_path):
    build_camvid(raw, output, shards=4, workers=1)
    build_camvid(raw, tmp_path / "other", shards=4, workers=2)
    assert files(output) == files(tmp_path / "other")


def test_examples_are_read_in_the_order_of_their_keys(raw, output):
    build_camvid(raw, output, shards=4)
    keys = [example.key for example in open_ref("camvid/train", output)]
    assert keys == [f"camvid/{index:04d}" for index in range(9)]


def test_a_limit_takes_the_first_examples(raw, output):
    assert build_camvid(raw, output, limit=4)["examples"] == 4


def test_images_without_labels_are_built(raw, output):
    folder = raw / "camvid/train/images"
    summary = build.build("folder", raw=folder, output=output, split="mine")
    assert summary["examples"] == 9 and summary["classes"] == {} and summary["ignored"] is None
    assert open_ref("folder/mine", output)[0].label is None


def test_generated_datasets_are_drawn(output):
    drawing = {"seed": 3, "count": 5}
    summary = build.build("fake", raw=None, output=output, split="a", drawing=drawing, workers=2,
                          shards=2)  # fmt: skip
    assert summary["examples"] == 5
    example = open_ref("fake/a", output)[4]
    image, label = get_dataset("fake").examples(None, "a", seed=3, count=5)[4].render()
    np.testing.assert_array_equal(example.image, image)
    np.testing.assert_array_equal(example.label, label)


# --- bad input -----------------------------------------------------------------------------------


def spoil(raw):
    """Makes one of each kind of bad example; returns what the error must say of each."""
    images, labels = raw / "camvid/train/images", raw / "camvid/train/labels"
    (images / "0000.png").unlink()
    (labels / "0001.png").unlink()
    data = (images / "0002.png").read_bytes()
    (images / "0002.png").write_bytes(data[: len(data) // 2])
    data = (labels / "0003.png").read_bytes()
    (labels / "0003.png").write_bytes(data[: len(data) // 2])
    raw_layouts.write_label(labels / "0004.png", (3, 12, 200))
    raw_layouts.write_label(labels / "0005.png", (3,), size=(14, 10))
    Image.fromarray(raw_layouts.picture()).save(labels / "0006.png")
    (images / "0007.png").write_bytes(b"")
    return [
        r"camvid/0000: .*0000.png has no image",
        r"camvid/0001: .*0001.png has no label",
        r"camvid/0002: .*images/0002.png is no image that can be read",
        r"camvid/0003: .*labels/0003.png cannot be decoded: ",
        r"camvid/0004: label has ids 12, 200, outside 0\.\.11",
        r"camvid/0005: the label is 14x10 \(h x w\), the image 10x14",
        r"camvid/0006: label has 140 colours that camvid lacks",
        r"camvid/0007: .*images/0007.png is no image that can be read",
    ]


def expect_problems(error, problems):
    for problem in problems:
        error.match(problem)


@pytest.mark.parametrize("shards", [1, 3])
def test_bad_examples_are_all_named_and_nothing_is_written(raw, output, shards):
    problems = spoil(raw)
    with pytest.raises(BuildError) as error:
        build_camvid(raw, output, shards=shards)
    # Partners are checked first: what is missing is told before hours of decoding.
    expect_problems(error, problems[:2])
    (raw / "camvid/train/labels/0000.png").unlink()
    (raw / "camvid/train/images/0001.png").unlink()
    with pytest.raises(BuildError, match="6 bad examples") as error:
        build_camvid(raw, output, shards=shards)
    expect_problems(error, problems[2:])
    error.match("--skip-bad")
    assert not list(output.rglob("train-*")) + list(output.rglob("*.summary.json"))


def test_bad_examples_can_be_left_out_and_are_listed(raw, output):
    problems = spoil(raw)
    raw_layouts.write_label(raw / "camvid/train/labels/0004.png", (3, 11))
    summary = build_camvid(raw, output, shards=3, skip_bad=True)
    assert summary["examples"] == 2 == len(open_ref("camvid/train", output))
    assert len(summary["skipped"]) == len(problems) - 1
    assert not list((output / "camvid").glob(".*"))


def test_nothing_but_bad_examples_is_an_error_even_when_they_may_be_left_out(raw, output):
    for path in (raw / "camvid/train/images").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(BuildError, match="No example is left"):
        build_camvid(raw, output, skip_bad=True)
    assert not files(output)


def test_a_key_that_occurs_twice_is_named(raw, output):
    image = raw / "camvid/train/images/0003.png"
    Image.open(image).save(image.with_suffix(".jpg"))
    with pytest.raises(BuildError, match="occurs twice, as .*/0003.jpg and as .*/0003.png"):
        build_camvid(raw, output)


def test_a_label_that_occurs_twice_is_named_with_both_files(tmp_path, output):
    layout = LAYOUTS["cityscapes, label ids"]
    raw_layouts.write_layout(tmp_path, layout)
    copy = tmp_path / layout.label.replace("/aachen/", "/aachen copy/")
    raw_layouts.write_label(copy, layout.ids)
    with pytest.raises(BuildError, match="occurs twice, as .*/aachen/.* and as .*/aachen copy/"):
        build.build("cityscapes", raw=tmp_path, output=output, split="val")


def test_ids_of_another_version_refuse_the_whole_set(tmp_path, output):
    # The first label shows ids of version 2.0 that version 1.2 has too, with other meanings.
    for stem, ids in (("a", (21, 30)), ("b", (21, 116))):
        raw_layouts.write_image(tmp_path / f"training/images/{stem}.jpg")
        raw_layouts.write_label(tmp_path / f"training/labels/{stem}.png", ids)
    with pytest.raises(BuildError, match="mapillary/b: label has ids 116.*version 2.0") as error:
        build.build("mapillary", raw=tmp_path, output=output, split="train", skip_bad=True)
    error.match("speak against the whole set")
    assert not list((output / "mapillary").glob("train*"))


def test_links_to_nowhere_and_folders_in_place_of_files_can_be_left_out(raw, output):
    images, labels = raw / "camvid/train/images", raw / "camvid/train/labels"
    for path in (images / "0001.png", labels / "0002.png", labels / "0003.png"):
        path.unlink()
    (images / "0001.png").symlink_to(raw / "moved.png")
    (labels / "0002.png").symlink_to(raw / "moved.png")
    (labels / "0003.png").mkdir()
    with pytest.raises(BuildError, match="0001.png is a link to .*moved.png, which does not") as e:
        build_camvid(raw, output)
    e.match("0002.png is a link to .*moved.png, which does not exist")
    e.match("0003.png is a folder; a file is expected")
    assert build_camvid(raw, output, skip_bad=True)["examples"] == 6


# --- ignored pixels ------------------------------------------------------------------------------


def test_images_that_are_ignored_entirely_are_named_with_their_share(raw, output, caplog):
    for index in (2, 5):
        raw_layouts.write_label(raw / f"camvid/train/labels/{index:04d}.png", (11,))
    summary = build_camvid(raw, output, shards=2)
    assert summary["ignored_images"] == ["camvid/0002", "camvid/0005"]
    assert "2 of 9 images (22.2 %) are ignored entirely" in caplog.text
    assert "camvid/0002, camvid/0005" in caplog.text
    assert "61.1 % of all pixels are ignored" in caplog.text
    assert "WARNING: 2 of 9 images (22.2 %)" in describe(summary)


def test_an_ordinary_set_gives_no_warning(raw, output, caplog):
    assert "WARNING" not in describe(build_camvid(raw, output))
    assert not caplog.text


def test_a_set_that_is_ignored_entirely_is_an_error(raw, output):
    for path in (raw / "camvid/train/labels").iterdir():
        raw_layouts.write_label(path, (11,))
    with pytest.raises(BuildError, match="every pixel of all 9 labels is ignored.*0000.png"):
        build_camvid(raw, output, skip_bad=True)
    assert not files(output)


def test_an_unknown_split_is_answered_with_the_known_ones(raw, output):
    with pytest.raises(KeyError, match="camvid has no split 'dev'; it has: train, val, test"):
        build.build("camvid", raw=raw, output=output, split="dev")


def test_a_dataset_of_files_needs_a_raw_folder(output):
    with pytest.raises(BuildError, match="--raw"):
        build.build("camvid", raw=None, output=output, split="train")


def test_another_set_of_parameters_is_refused_in_the_same_folder(raw, output):
    build_camvid(raw, output, shards=2)
    before = files(output)
    with pytest.raises(BuildError, match=r'codec "zstd", now "jpeg95"; shards 2, now 3.*mix'):
        build_camvid(raw, output, shards=3, codec="jpeg95")
    raw_layouts.write_camvid(raw, 10)
    with pytest.raises(BuildError, match="belongs to another build .*sources"):
        build_camvid(raw, output, shards=2)
    assert files(output) == before


def test_shards_of_unknown_origin_are_not_built_over(raw, output):
    (output / "camvid").mkdir(parents=True)
    (output / "camvid/train-00000-of-00009.array_record").write_bytes(b"x")
    with pytest.raises(BuildError, match="holds 1 shards of train without a summary"):
        build_camvid(raw, output)


def test_a_full_disk_is_one_clear_error_and_leaves_no_part(raw, output):
    # A limit on file size fails the same write that a full disk fails.
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, -1));"
        "from clouds_jax.data.build import __main__ as program; program.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "camvid", "--raw", raw, "--output", output]
    run = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("build: ") and "cannot be written" in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(output.rglob("*.array_record*"))


# --- unusual images ------------------------------------------------------------------------------


def grey(path, image):
    Image.fromarray(image[..., 0]).save(path)
    return np.repeat(image[..., :1], 3, axis=-1)


def rgba(path, image):
    alpha = np.full((*image.shape[:2], 1), 90, np.uint8)
    Image.fromarray(np.concatenate([image, alpha], axis=-1)).save(path)
    return image


def grey_16_bit(path, image):
    Image.fromarray(image[..., 0].astype(np.uint16) * 256 + 17).save(path)
    return np.repeat(image[..., :1], 3, axis=-1)


def palette(path, image):
    indexed = Image.fromarray(image).quantize(16)
    indexed.save(path)
    return np.asarray(indexed.convert("RGB"))


def turned_by_exif(path, image):
    # 6: the camera was held so that the stored picture must be turned clockwise to be upright.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(image, 1)).save(path, exif=exif)
    return image


@pytest.mark.parametrize("save", [grey, rgba, grey_16_bit, palette, turned_by_exif])
def test_unusual_images_are_accepted_and_converted(raw, output, save):
    expected = save(raw / "camvid/train/images/0000.png", raw_layouts.picture())
    build_camvid(raw, output)
    np.testing.assert_array_equal(open_ref("camvid/train", output)[0].image, expected)


def test_a_label_in_the_grid_of_the_sensor_is_turned_with_its_image(raw, output):
    picture = raw_layouts.picture((14, 10))
    turned_by_exif(raw / "camvid/train/images/0001.png", picture)  # stored as 10x14, as its label
    build_camvid(raw, output)
    example = open_ref("camvid/train", output)[1]
    np.testing.assert_array_equal(example.image, picture)
    stored = convert.labels.read_label(raw / "camvid/train/labels/0001.png", get_dataset("camvid"))
    np.testing.assert_array_equal(example.label, np.rot90(stored, -1))


@pytest.mark.parametrize("orientation, size", [(3, (10, 14)), (2, (10, 14)), (6, (10, 10))])
def test_an_orientation_that_may_or_may_not_be_the_labels_is_refused(
    raw, output, orientation, size
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(raw_layouts.picture(size)).save(raw / "camvid/train/images/0001.png", exif=exif)
    raw_layouts.write_label(raw / "camvid/train/labels/0001.png", (3,), size=size)
    with pytest.raises(BuildError, match=f"camvid/0001: .*EXIF orientation {orientation}, and"):
        build_camvid(raw, output)
    assert build_camvid(raw, output, skip_bad=True)["examples"] == 8


def test_float_images_are_refused(tmp_path):
    Image.fromarray(np.ones((3, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(BadImage, match="float pixels"):
        read_image(tmp_path / "a.tif")


# --- interruption --------------------------------------------------------------------------------


def test_an_interrupted_build_goes_on_and_ends_in_the_same_bytes(
    raw, output, tmp_path, monkeypatch
):
    build_camvid(raw, tmp_path / "straight", shards=3)
    written = []

    def stop_at_the_third(job, advance):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(job.path.name)
        return convert.write_shard(job, advance)

    monkeypatch.setattr(jobs, "write_shard", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        build_camvid(raw, output, shards=3)
    assert not list((output / "camvid").glob("train*"))
    with pytest.raises(FileNotFoundError):
        open_ref("camvid/train", output)

    again = []
    monkeypatch.setattr(
        jobs, "write_shard", lambda job, advance: again.append(job) or convert.write_shard(
            job, advance)
    )  # fmt: skip
    build_camvid(raw, output, shards=3)
    assert [job.path.name for job in again] == [records.shard_name("train", 2, 3)]
    assert files(output) == files(tmp_path / "straight")


def test_a_build_interrupted_while_taking_its_place_goes_on(raw, output, tmp_path, monkeypatch):
    build_camvid(raw, tmp_path / "straight", shards=3)
    replace, moved = workspace.os.replace, []

    def stop_at_the_second(source, target):
        if str(target).endswith(".array_record") and ".building" not in str(target):
            if moved:
                raise KeyboardInterrupt
            moved.append(target)
        replace(source, target)

    monkeypatch.setattr(workspace.os, "replace", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        build_camvid(raw, output, shards=3)
    monkeypatch.undo()
    build_camvid(raw, output, shards=3)
    assert files(output) == files(tmp_path / "straight")


def test_a_file_changed_since_the_interruption_is_read_again(raw, output, monkeypatch):
    bad = raw / "camvid/train/images/0002.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:40])
    with pytest.raises(BuildError, match="2 finished shards wait in"):
        build_camvid(raw, output, shards=3)
    bad.write_bytes(good)
    raw_layouts.write_image(raw / "camvid/train/images/0000.png", seed=77)
    build_camvid(raw, output, shards=3)
    expected = raw_layouts.picture(seed=77)
    np.testing.assert_array_equal(open_ref("camvid/train", output)[0].image, expected)


def test_an_interrupted_build_is_not_continued_with_other_parameters(raw, output):
    (raw / "camvid/train/images/0002.png").write_bytes(b"")
    with pytest.raises(BuildError):
        build_camvid(raw, output, shards=3)
    with pytest.raises(BuildError, match='codec "zstd", now "zstd_delta"'):
        build_camvid(raw, output, shards=3, codec="zstd_delta")


def test_a_finished_build_is_not_repeated(raw, output, monkeypatch):
    summary = build_camvid(raw, output)
    monkeypatch.setattr(jobs, "write_shard", None)
    assert build_camvid(raw, output) == summary


# --- the program ---------------------------------------------------------------------------------


def test_the_program_prints_shares_and_what_is_missing(raw, output, capsys):
    program.main(["camvid", "--raw", str(raw), "--output", str(output), "--workers", "1"])
    printed = capsys.readouterr().out
    assert "camvid/train: 9 examples in 1 shards" in printed
    assert "bicyclist" in printed and "(ignored)" in printed
    assert "note: the complete download has 367 examples" in printed


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["camvid", "--split", "train"], "say where they are with --raw"),
        (["camvid", "--split", "dev", "--raw", "."], "no split 'dev'"),
        (["camvid", "--raw", "nowhere"], "nowhere is no folder"),
        (["camvid", "--seed", "3"], "only for datasets that are drawn"),
        (["fake", "--count", "0"], "--count is 0; it must be at least 1"),
    ],
)
def test_the_program_says_what_is_wrong_in_one_line(output, capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        program.main([*arguments, "--output", str(output)])
    assert error.value.code != 0
    assert message in f"{error.value.code} {capsys.readouterr().err}"
    assert not files(output)


def test_a_second_build_of_the_split_is_refused_while_one_runs(tmp_path):
    staging = workspace.staging_folder(tmp_path / "fake", "train")
    with folder_lock.locked(staging, "data.build"):
        with pytest.raises(ValueError, match="in use by data.build, process"):
            build.build("fake", raw=None, output=tmp_path, split="train")
    build.build("fake", raw=None, output=tmp_path, split="train")
    assert not staging.exists()
