"""The chain of the offline stages, from the command line."""

import numpy as np
import pytest
from PIL import Image

from clouds_jax.data import records

pytestmark = pytest.mark.e2e
pytest.importorskip("torch")
CONFIG = "configs/stages/laptop.py:debug"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (70, 100, 3), np.uint8)).save(root / f"{i}.png")
    return root


def test_stages_run_one_after_another_and_only_once(program, photos, tmp_path):
    command = [
        "experiments.pipeline", f"--config={CONFIG}", f"--workdir={tmp_path}",
        "--only=generate", f"--config.generate.folder.path={photos}",
    ]  # fmt: skip
    done = program(*command)
    assert done.returncode == 0, done.stderr
    assert f"== generate: uses photos of {photos}" in done.stdout
    assert "3 images made" in done.stdout and "| generate | 3 |" in done.stdout
    assert len(records.open_ref("generated/train", tmp_path / "shards")) == 3
    assert (tmp_path / "pipeline.md").read_text().startswith("| stage | made |")
    again = program(*command)
    assert again.returncode == 0 and "0 images made" in again.stdout

    # a later stage names what it lacks, and the chain ends there
    refine = [*command[:3], "--only=refine", *command[4:]]
    done = program(*refine)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "generated.pseudo/train: no" in done.stderr and "refine: not finished" in done.stderr


def test_an_unknown_key_is_one_clear_error(program, tmp_path):
    done = program(
        "experiments.pipeline", f"--config={CONFIG}", f"--workdir={tmp_path}",
        "--config.generate.cuont=3",
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert 'Did you mean "count"' in done.stderr
