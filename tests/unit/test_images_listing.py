"""Folders of images as they lie on real disks."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from clouds_jax import images, predict
from clouds_jax.data.build.run import build
from clouds_jax.data.datasets import get_dataset
from clouds_jax.data.records import open_ref

APPLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + b"\x00" * 80


def photo(path, size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def names(folder):
    return [path.relative_to(folder).as_posix() for path in images.find_images(folder)]


def test_files_of_systems_and_hidden_ones_are_nobodys_images(tmp_path):
    photo(tmp_path / "a.png")
    for name in ("._a.png", ".DS_Store", "__MACOSX/._a.png", "__MACOSX/b.png", "Thumbs.db",
                 "thumbs.db", ".cache/c.png", "@eaDir/d.jpg"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(APPLE)
    assert names(tmp_path) == ["a.png"]
    assert [s.key for s in get_dataset("folder").examples(tmp_path, "x")] == ["folder/a"]
    jobs, _ = predict.image_jobs([tmp_path], tmp_path / "out")
    assert [job.source for job in jobs] == [tmp_path / "a.png"]


def test_a_hidden_folder_that_is_named_is_read(tmp_path):
    photo(tmp_path / ".cache/a.png")
    assert names(tmp_path / ".cache") == ["a.png"]


def test_links_to_folders_and_files_are_followed(tmp_path):
    photo(tmp_path / "disk/day1/a.png")
    photo(tmp_path / "disk/b.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/day1").symlink_to(tmp_path / "disk/day1")
    (tmp_path / "photos/c.png").symlink_to(tmp_path / "disk/b.png")
    assert names(tmp_path / "photos") == ["c.png", "day1/a.png"]
    jobs, _ = predict.image_jobs([tmp_path / "photos"], tmp_path / "out")
    assert [job.stem for job in jobs] == [tmp_path / "out/c", tmp_path / "out/day1/a"]
    summary = build("folder", raw=tmp_path / "photos", output=tmp_path / "shards", split="x")
    assert summary["examples"] == 2


def test_folders_that_lie_in_themselves_by_links_are_entered_once(tmp_path):
    photo(tmp_path / "a/b/c.png")
    (tmp_path / "a/b/top").symlink_to(tmp_path)
    (tmp_path / "a/again").symlink_to(tmp_path / "a")
    (tmp_path / "a/self").symlink_to("self")
    assert names(tmp_path)[-1:] == ["a/self"]  # a link to nowhere
    assert names(tmp_path)[:1] == ["a/b/c.png"]
    assert len(names(tmp_path)) == 2


def test_links_to_nowhere_are_named_when_they_are_read(tmp_path):
    photo(tmp_path / "a.png")
    for name in ("b.png", "day1", "notes.txt"):
        (tmp_path / name).symlink_to(tmp_path / "gone")
    assert names(tmp_path) == ["a.png", "b.png", "day1"]
    with pytest.raises(FileNotFoundError, match="b.png is a link to .*gone, which does not exist"):
        images.read_image(tmp_path / "b.png")
    summary = build("folder", raw=tmp_path, output=tmp_path / "shards", split="x", skip_bad=True)
    assert summary["examples"] == 1 and len(summary["skipped"]) == 2


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder_get_a_line(tmp_path):
    path = photo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(images.BadImage, match="b.png is a folder; an image file is expected"):
        images.read_image(tmp_path / "b.png")
    with pytest.raises(ValueError, match="b.png is a folder; a label file is expected"):
        images.read_label(tmp_path / "b.png")
    with pytest.raises(NotADirectoryError, match="a.png is a file; a folder is expected"):
        images.find_images(path)
    with pytest.raises(FileNotFoundError, match="a.png is a file; --raw names the folder"):
        get_dataset("gta5").examples(path, "train")
    with pytest.raises(NotADirectoryError, match="a.png is a file; --output names a folder"):
        predict.image_jobs([path], path)
    with pytest.raises(ValueError, match="a.png is a file; --output names the folder"):
        build("fake", raw=None, output=path, split="x")


def test_images_of_kinds_that_are_not_read_are_named(tmp_path):
    photo(tmp_path / "a.JPG")
    for name in ("b.gif", "c.AVIF", "d.jp2"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    _, notes = predict.image_jobs([tmp_path], tmp_path / "out")
    (note,) = notes
    assert "left out 3 images" in note and "(avif, gif, jp2;" in note and "b.gif" in note
    assert get_dataset("folder").examples(tmp_path, "x").notes == (note,)
    (tmp_path / "a.JPG").unlink()
    with pytest.raises(FileNotFoundError, match="has no images.*left out 3 images"):
        images.find_images(tmp_path)


@pytest.mark.parametrize("place", [".", "out"])
def test_predict_leaves_out_what_it_wrote_itself(tmp_path, place):
    photo(tmp_path / "a.png")
    photo(tmp_path / "my_overlay.png")
    before = [job.source for job in predict.image_jobs([tmp_path], tmp_path / place)[0]]
    for name in ("a_trainids.png", "a_overlay.png", "my_overlay_trainids.png"):
        photo(tmp_path / place / name)
    jobs, _ = predict.image_jobs([tmp_path], tmp_path / place)
    assert [job.source for job in jobs] == before == [
        tmp_path / "a.png", tmp_path / "my_overlay.png"
    ]  # fmt: skip


NOT_UTF_8 = os.fsdecode(b"stra\xdfe.png")


def test_names_that_are_not_utf_8_become_keys(tmp_path):
    photo(tmp_path / NOT_UTF_8)
    photo(tmp_path / "街.png")
    build("folder", raw=tmp_path, output=tmp_path / "shards", split="x")
    examples = list(open_ref("folder/x", tmp_path / "shards"))
    assert [example.key for example in examples] == [r"folder/stra\xdfe", "folder/街"]
    assert examples[0].origin["file"] == r"stra\xdfe.png"


def test_an_ascii_locale_builds_the_same_keys(tmp_path, root):
    raw = tmp_path / "räw"
    photo(raw / NOT_UTF_8)
    photo(raw / "街.png")
    (raw / "broken ü.png").write_bytes(b"")
    command = [sys.executable, "-m", "clouds_jax.data.build", "folder", "--raw", raw,
               "--output", tmp_path / "shards", "--split", "x", "--skip-bad"]  # fmt: skip
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"left out 1" in done.stdout and b"broken" in done.stdout
    keys = [example.key for example in open_ref("folder/x", tmp_path / "shards")]
    assert keys == [r"folder/stra\xdfe", "folder/街"]
