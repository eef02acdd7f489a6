"""The program that predicts images, from the command line."""

import re

import numpy as np
import pytest
from PIL import Image

from clouds_jax.data.datasets import fake

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """One photo in five forms, in a folder with a folder in it."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    pixels, _ = fake.draw(1, 0, (50, 70))
    image = Image.fromarray(pixels)
    image.save(folder / "rgb.png")
    image.convert("RGBA").save(folder / "sub" / "rgba.png")
    grey = image.convert("L")
    grey.save(folder / "grey.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)
    return folder


@pytest.fixture(scope="module")
def predicted(program, debug_run, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicted")
    done = program(
        "clouds_jax.predict", f"--workdir={debug_run}", f"--output={folder}", "--scores", photos
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_image_of_a_folder_gets_its_files_at_its_own_size(predicted):
    sizes = {
        "rgb": (50, 70), "sub/rgba": (50, 70), "grey": (50, 70), "deep": (50, 70),
        "turned": (70, 50),
    }  # fmt: skip
    for name, size in sizes.items():
        with Image.open(predicted / f"{name}_trainids.png") as label:
            assert label.mode == "L" and label.size == size[::-1]
        with Image.open(predicted / f"{name}_overlay.png") as picture:
            assert picture.width == size[1] and picture.height > size[0]  # the legend below
        with np.load(predicted / f"{name}_scores.npz") as scores:
            assert scores["scores"].dtype == np.float16
            assert scores["scores"].shape[:2] == size
    assert len(list(predicted.rglob("*.*"))) == 3 * len(sizes)


def test_the_ids_are_those_of_the_highest_score(predicted):
    with Image.open(predicted / "rgb_trainids.png") as image:
        label = np.asarray(image)
    with np.load(predicted / "rgb_scores.npz") as file:
        scores, classes = file["scores"], file["classes"]
    assert len(classes) == scores.shape[-1]
    # float16 has ties that float32 has not: the score of the chosen class is the highest.
    chosen = np.take_along_axis(scores, label[..., None].astype(int), -1)[..., 0]
    np.testing.assert_array_equal(chosen, scores.max(-1))


def test_the_same_pixels_in_another_file_format_give_the_same_map(predicted):
    for one, other in (("rgb", "sub/rgba"), ("grey", "deep")):
        with Image.open(predicted / f"{one}_trainids.png") as a:
            with Image.open(predicted / f"{other}_trainids.png") as b:
                np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_unreadable_images_are_named_and_the_others_predicted(program, debug_run, photos, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.png").write_bytes((photos / "rgb.png").read_bytes())
    (folder / "cut.png").write_bytes((photos / "rgb.png").read_bytes()[:500])
    (folder / "text.jpg").write_text("no image")
    done = program(
        "clouds_jax.predict", f"--workdir={debug_run}", f"--output={tmp_path / 'out'}", folder
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cut.png is no image" in done.stderr and "text.jpg is no image" in done.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["good_overlay.png", "good_trainids.png"]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda folder: [folder], "has no images; looked for png"),
        (lambda folder: [folder / "none.png"], "no such file or folder: .*none.png"),
        (lambda folder: [], "name at least one image"),
    ],
    ids=["empty folder", "no file", "nothing"],
)
def test_a_mistake_is_one_clear_error(program, debug_run, tmp_path, make, message):
    folder = tmp_path / "in"
    folder.mkdir()
    done = program(
        "clouds_jax.predict",
        f"--workdir={debug_run}",
        f"--output={tmp_path / 'out'}",
        *make(folder),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr)
    assert not (tmp_path / "out").exists()
