"""Self-training in rounds from the command line: once, twice, with other parameters."""

import json

import numpy as np
import pytest
from PIL import Image

from clouds_jax.data import records

torch = pytest.importorskip("torch")
from porting.reference import sam as reference  # noqa: E402

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Two photos, a small SAM with random weights, no prompts."""
    root = tmp_path_factory.mktemp("rounds")
    (root / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        coarse = rng.integers(0, 256, (4, 6, 3), np.uint8).repeat(16, 0).repeat(16, 1)
        Image.fromarray(coarse).save(root / "photos" / f"{i}.png")
    torch.save(reference.random_sam("sam_debug", 0).state_dict(), root / "sam.pth")
    return [
        "experiments.rounds", "--config=configs/stages/laptop.py:debug",
        f"--workdir={root / 'work'}", f"--config.generate.folder.path={root / 'photos'}",
        "--config.prompts.count=0", "--config.refine.sam=sam_debug",
        f"--config.refine.weights={root / 'sam.pth'}", "--config.refine.panels=0",
        "--config.generate.shards=1",
    ], root / "work"  # fmt: skip


@pytest.mark.slow
def test_two_rounds_by_one_command(program, command):
    arguments, work = command
    done = program(*arguments, "--rounds=2")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (json.loads((work / f"rounds/{i}/config.json").read_text()) for i in (1, 2))
    assert first["selftrain"]["labels"] == second["selftrain"]["labels"] == "stored"
    assert (first["selftrain"]["map"], second["selftrain"]["map"]) == ("refined", "refined-2")
    assert first["init_from"] == str(work / "warmup")
    assert second["init_from"] == str(work / "rounds/1")

    shards = work / "shards"
    summary = records.read_summary("generated.pseudo-2/train", shards)
    assert summary["parameters"]["teacher"] is True and summary["parameters"]["step"] == 4
    refined = records.open_ref("generated.refined-2/train", shards)
    assert len(refined) == 2 and all(example.refined is not None for example in refined)
    assert "| refine-2 | 2 |" in (work / "rounds.md").read_text()

    again = program(*arguments, "--rounds=2")
    assert again.returncode == 0
    assert "nothing to do: 2 rounds are there" in again.stdout and "$ -m" not in again.stdout


@pytest.mark.slow
def test_other_parameters_are_refused_by_name(program, command):
    arguments, work = command
    before = sorted(path for path in work.rglob("*") if path.is_file())
    done = program(
        *arguments, "--rounds=3", "--config.refine.num_points=2", "--config.seed=4",
        "--config.rounds.config=configs/joint_streets.py:stored",
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "holds rounds of other parameters" in done.stderr
    for told in (
        "refine.num_points 3, now 2", "seed 0, now 4",
        'rounds.config "configs/stages/debug_round.py", now "configs/joint_streets.py:stored"',
        "training.steps 4, now 400",
    ):  # fmt: skip
        assert told in done.stderr
    assert sorted(path for path in work.rglob("*") if path.is_file()) == before
