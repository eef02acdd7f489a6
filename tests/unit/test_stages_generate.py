"""The generate stage without a diffusion model: attempts, photos, contact sheet, the command."""

import json
import pickle

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from clouds_jax.data import records
from clouds_jax.data.part import Part
from clouds_jax.data.records import Example
from clouds_jax.stages import shard_set
from clouds_jax.visual.labels import font
from porting.__main__ import main
from porting.stages.images import contact_sheet, retries
from porting.stages.images.photos import Photos
from porting.stages.images.stage import Generate

# ml_collections loads config files in a way that Python 3.12 drops
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
SIZE = (24, 32)
PROMPTS = ("a", "b", "c", "d")


@pytest.fixture
def photos(tmp_path):
    """Seven photos of different sizes in two folders."""
    root = tmp_path / "photos"
    (root / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(7):
        pixels = rng.integers(0, 256, (30 + i, 50 - i, 3), np.uint8)
        Image.fromarray(pixels).save(root / ("more" if i % 2 else ".") / f"{i}.png")
    return root


def made(root, photos, count=0, shards=3):
    return Generate(root, "photos", Photos(str(photos), count=count), SIZE, shards, "zstd")


def test_the_request_of_an_image_depends_on_seed_image_and_attempt_alone():
    seen = {retries.request(i, a, PROMPTS, s).noise_seed for i in range(9) for a in (1, 2)
            for s in (0, 1)}  # fmt: skip
    assert len(seen) == 9 * 2 * 2
    one = retries.request(6, 1, PROMPTS, 3)
    assert (one.prompt, one.prompt_index) == ("c", 2) and one == retries.request(6, 1, PROMPTS, 3)
    own = [retries.request(6, a, PROMPTS, 3).prompt for a in range(1, 7)]
    assert own == ["c", "c", "c", "d", "a", "b"]  # other prompts after three attempts


def test_blank_images_are_recognised():
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, (8, 9, 3))
    np.testing.assert_array_equal(retries.judge(image), np.round(255 * image).astype(np.uint8))
    assert retries.judge(image, unsafe=True) == "unsafe"
    assert retries.judge(np.where(image < 0.01, np.nan, image)) == "nan"
    assert retries.judge(image * 0.01) == "black"
    assert retries.judge(np.full((8, 9, 3), 0.5)) == "even"
    assert not isinstance(retries.judge(0.08 + 0.04 * image), str)  # a dark night


def test_an_image_is_drawn_until_it_is_good_and_others_wait_for_nothing():
    asked = []

    def draw(requests):
        asked.append([r.index for r in requests])
        good = np.zeros((2, 2, 3), np.uint8)
        return ["black" if r.index % 2 and r.attempt < 1 + r.index else good for r in requests]

    found = list(retries.draw_all(draw, range(5), PROMPTS, seed=0, batch=3))
    assert [request.index for request, *_ in found] == list(range(5))
    assert [request.attempt for request, *_ in found] == [1, 2, 1, 4, 1]
    assert [numbers["other_prompt"] for *_, numbers in found] == [0, 0, 0, 1, 0]
    assert found[3][2]["blank_black"] == found[3][2]["remade"] == 3
    assert asked == [[0, 1, 2], [1], [3, 4], [3], [3], [3]]


def test_photos_are_fitted_and_named_as_such(photos, tmp_path):
    one = made(tmp_path / "shards", photos)
    assert shard_set.fill(one, progress=False) == 7
    found = list(records.open_ref("photos/train", tmp_path / "shards"))
    assert [example.key for example in found] == [f"photos/{i:06d}" for i in range(7)]
    assert all(example.image.shape == (*SIZE, 3) for example in found)
    assert all(example.origin["photo"] is True for example in found)
    files = [example.origin["file"] for example in found]
    assert sorted(files) == files and "more/1.png" in files
    assert pickle.loads(pickle.dumps(one)).folder.missing() == []


def test_parts_give_the_bytes_of_the_whole(photos, tmp_path):
    shard_set.fill(made(tmp_path / "whole", photos), progress=False)
    for part in (Part(1, 2), Part(0, 2)):
        shard_set.fill(made(tmp_path / "parts", photos), part, progress=False)
    names = [path.name for path in (tmp_path / "whole/photos").glob("*.array_record")]
    assert len(names) == 3
    for name in names:
        one, two = (tmp_path / root / "photos" / name for root in ("whole", "parts"))
        assert one.read_bytes() == two.read_bytes()


def test_other_photos_are_refused_and_too_few_are_told(photos, tmp_path):
    shard_set.fill(made(tmp_path / "shards", photos), progress=False)
    (photos / "0.png").write_bytes((photos / "2.png").read_bytes())
    with pytest.raises(ValueError, match="inputs.photos"):
        made(tmp_path / "shards", photos).folder.missing()
    assert len(made(tmp_path / "new", photos, count=3).folder.indices(0)) == 1
    (note,) = Photos(str(photos), count=9).notes
    assert "holds 7 photos, config.generate.count is 9" in note


def test_files_that_are_no_photos_are_named_before_the_first_shard(photos, tmp_path):
    (photos / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="1 of 8 files.*\n.*bad.png"):
        shard_set.fill(made(tmp_path / "shards", photos), progress=False)
    with pytest.raises(OSError, match="is '', which is no folder"):
        Photos("", count=0)


def test_captions_are_wrapped_into_few_lines():
    face = font(15)
    lines = contact_sheet.wrap("a photo of a bus " * 12, 200, face, 3)
    assert len(lines) == 3 and lines[-1].endswith("…")
    assert all(face.getlength(line) <= 200 for line in lines)
    assert contact_sheet.wrap("a photo", 200, face, 3) == ["a photo"]
    assert all(face.getlength(x) <= 200 for x in contact_sheet.wrap("w" * 300, 200, face, 3))


def test_the_contact_sheet_has_a_tile_per_image():
    rng = np.random.default_rng(0)
    examples = [
        Example(f"x/{i}", rng.integers(0, 256, (20, 30, 3), np.uint8), origin={"prompt": "a car"})
        for i in range(8)
    ]
    one, all_ = contact_sheet.draw(examples[:1]), contact_sheet.draw(examples)
    assert all_.shape[0] > 1.8 * one.shape[0] and all_.shape[1] > 5 * one.shape[1]


def test_the_command_makes_shards_and_a_picture(photos, tmp_path, capsys):
    command = [
        "generate", "--config", "configs/stages/base.py", "--workdir", str(tmp_path / "work"),
        "--config.generate.provider=folder", f"--config.generate.folder.path={photos}",
        "--config.generate.size=(24, 32)", "--config.generate.count=5",
        "--config.generate.shards=2",
    ]  # fmt: skip
    assert main([*command, "--shard", "2/2"]) == 0
    assert "1 of 2 shards are there" in capsys.readouterr().out
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "3 images made" in told and "contact sheet: " in told
    folder = tmp_path / "work/shards/generated"
    with Image.open(folder / "train.contact_sheet.png") as sheet:
        assert sheet.width > 1500
    assert json.loads((folder / "train.summary.json").read_text())["examples"] == 5
    assert main(command) == 0 and "0 images made" in capsys.readouterr().out
    assert main([*command, "--config.generate.codec=jpeg95"]) == 1
    assert 'parameters.codec "zstd", now "jpeg95"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, told",
    [
        (["provider=magic"], "provider is 'magic'; allowed are: diffusers, folder"),
        (["provider=diffusers", "prompts=none.txt"], "none.txt: no such file. Make it with"),
        (["provider=folder", "codec=gif"], "gif"),
    ],
)
def test_the_command_tells_what_is_wrong(photos, tmp_path, capsys, flags, told):
    command = [
        "generate", "--config", "configs/stages/base.py", "--workdir", str(tmp_path),
        f"--config.generate.folder.path={photos}",
        *(f"--config.generate.{flag}" for flag in flags),
    ]  # fmt: skip
    assert main(command) == 1
    assert told in capsys.readouterr().err
