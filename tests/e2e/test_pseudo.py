"""The programs that label and embed the images of shards, from the command line."""

import pytest

from clouds_jax.data import records
from clouds_jax.data.build import run
from clouds_jax.data.classes import SPACES

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    run.build("fake", raw=None, output=root, split="train", shards=3)
    return root


def test_images_get_pseudo_labels_in_their_order_in_parts_or_at_once(program, debug_run, shards):
    command = ["clouds_jax.pseudo", f"--workdir={debug_run}", "--shards", shards, "--ref=fake"]
    done = program(*command, "--shard=2/2")
    assert done.returncode == 0, done.stderr
    assert "fake.pseudo/train: 1 of 3 shards are there" in done.stdout
    done = program(*command)
    assert done.returncode == 0, done.stderr
    assert "fake.pseudo/train is complete" in done.stdout
    images = records.open_ref("fake/train", shards)
    pseudo = records.open_ref("fake.pseudo/train", shards)
    assert len(images) == len(pseudo)
    classes = max(len(space) for space in SPACES.values())
    for image, label in zip(images, pseudo, strict=True):
        assert label.key == image.key and label.image is None
        assert label.pseudo.shape == image.size and label.pseudo.max() < classes
        assert label.origin["stage"] == "pseudo"

    # in two processes, the same bytes
    done = program(*command, "--name=again", "--processes=2")
    assert done.returncode == 0, done.stderr
    for path in sorted((shards / "fake.pseudo").glob("*.array_record")):
        assert (shards / "again" / path.name).read_bytes() == path.read_bytes()

    other = program(*command, "--protocol=clouds")
    assert other.returncode == 1 and "Traceback" not in other.stderr
    assert 'parameters.protocol "native", now "clouds"' in other.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--ref=none"], "none/train: no "),
        (["--ref=fake", "--teacher"], "has no teacher at step 1; only joint runs have one"),
        (["--ref=fake", "--shard=3/2"], "--shard is '3/2'; it must be I/N"),
    ],
)
def test_a_mistake_is_one_clear_error(program, debug_run, shards, arguments, message):
    name = f"--name=wrong{len(arguments[-1])}"
    done = program(
        "clouds_jax.pseudo", f"--workdir={debug_run}", "--shards", shards, name, *arguments
    )
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
