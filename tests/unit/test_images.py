"""Image files of all kinds people have, and files that are none."""

import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from clouds_jax import images
from clouds_jax.files import write_text, written_whole


def picture(h=7, w=11):
    return np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)


def test_colour_is_read_as_written(tmp_path):
    images.write_png(tmp_path / "a.png", picture())
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), picture())


def test_grey_transparent_and_16_bit_images_become_rgb(tmp_path):
    grey = picture()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    opaque = np.concatenate([picture(), np.full((7, 11, 1), 255, np.uint8)], -1)
    Image.fromarray(opaque).save(tmp_path / "rgba.png")
    want = np.repeat(grey[..., None], 3, -1)
    np.testing.assert_array_equal(images.read_image(tmp_path / "grey.png"), want)
    np.testing.assert_array_equal(images.read_image(tmp_path / "deep.png"), want)
    np.testing.assert_array_equal(images.read_image(tmp_path / "rgba.png"), picture())


def ramp(bits, channels=1):
    """Values from 0 to the largest of that many bits, and what 8 bits make of them."""
    values = np.linspace(0, 2**bits - 1, 77 * channels).astype(np.uint16)
    return values.reshape(7, 11, channels), (values >> (bits - 8)).reshape(7, 11, channels)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_files_of_16_bits_are_scaled_by_the_bits_that_they_use(tmp_path, bits, ending, channels):
    values, want = ramp(bits, channels)
    path = tmp_path / f"a.{ending}"
    assert cv2.imwrite(str(path), values[..., [2, 1, 0, 3][:channels]] if channels > 1 else values)
    out = images.read_image(path)
    np.testing.assert_array_equal(out, np.broadcast_to(want[..., :3], (7, 11, 3)))


def test_colours_of_16_bits_are_turned_upright_once(tmp_path):
    values, want = ramp(12, 3)
    ok, data = cv2.imencode(".png", values[..., ::-1])
    assert ok
    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    length, checksum = len(chunk) - 4, zlib.crc32(chunk)
    end = data.tobytes().index(b"IDAT") - 4
    parts = [length.to_bytes(4, "big"), chunk, checksum.to_bytes(4, "big")]
    (tmp_path / "a.png").write_bytes(data.tobytes()[:end] + b"".join(parts) + data.tobytes()[end:])
    out = images.read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(out, np.rot90(want, -1))


def test_values_that_no_sensor_gives_are_refused(tmp_path):
    Image.fromarray(np.full((3, 4), 70_000, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(images.BadImage, match="values from 70000 to 70000; allowed are 0 to 65535"):
        images.read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending, bits", [("png", 8), ("png", 16), ("tif", 8)])
def test_every_orientation_is_turned_upright_and_told(tmp_path, orientation, ending, bits):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    stored = picture() if bits == 8 else picture()[..., 0]
    if bits == 16:
        stored[0, 0] = 255
    Image.fromarray(stored if bits == 8 else stored.astype(np.uint16) * 257).save(path, exif=exif)
    upright = ImageOps.exif_transpose(with_exif(Image.fromarray(stored), exif))
    out, told = images.read_upright(path)
    assert told == orientation
    np.testing.assert_array_equal(out, np.asarray(upright.convert("RGB")))
    np.testing.assert_array_equal(images.turned(stored, orientation), np.asarray(upright))


def with_exif(image, exif):
    image.info["exif"] = exif.tobytes()
    return image


def test_an_orientation_that_exif_does_not_define_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 9
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif)
    assert images.read_upright(tmp_path / "a.jpg")[1] == 1


def test_a_rotated_photo_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    out = images.read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(out, np.rot90(picture(), -1))


def test_a_truncated_image_and_a_text_file_are_named(tmp_path):
    images.write_png(tmp_path / "whole.png", picture(200, 300))
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("no image")
    for name in ("cut.png", "text.png"):
        with pytest.raises(ValueError, match=f"{name} is no image that can be read"):
            images.read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="none.png does not exist"):
        images.read_image(tmp_path / "none.png")


def test_a_label_with_a_palette_is_read_as_ids(tmp_path):
    label = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(label, mode=None)
    image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(images.read_label(tmp_path / "p.png"), label)


def test_a_failed_write_leaves_neither_the_file_nor_a_part_of_it(tmp_path):
    with pytest.raises(RuntimeError), written_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_older_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), written_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"


def test_an_empty_folder_is_an_error_that_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match="has no images; looked for png, jpg"):
        images.find_images(tmp_path)


def test_reading_images_loads_neither_datasets_nor_the_street_renderer(root):
    code = "import clouds_jax.images, sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    loaded = {name.split(".")[1] for name in done.stdout.split() if name.startswith("clouds_jax.")}
    assert loaded == {"files", "images"}, done.stderr


def test_an_error_of_the_body_keeps_its_own_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="^no shards$"), written_whole(tmp_path / "a"):
        raise FileNotFoundError("no shards")
